"""The test client against an answerer of plain aiortc over HTTP: no edge, no kernel program."""

import argparse
import json
import math
import sys
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack

from turnout.calling import Call, place_call, place_calls
from turnout.calling.sdp import candidates, keep_family
from turnout.calling.tone import SAMPLE_RATE, ToneDetector, ToneSource
from turnout.cli import call as cli
from turnout.errors import CallError


@dataclass
class Answerer:
    """A WHIP endpoint that echoes, or does one thing wrong."""

    fault: str = ""
    url: str = ""
    deleted: list[str] = field(default_factory=list)
    peers: dict[str, RTCPeerConnection] = field(default_factory=dict)

    async def post(self, request: web.Request) -> web.Response:
        if self.fault == "problem":
            body = {"title": "No room", "status": 503, "detail": "no active transceiver"}
            return web.Response(
                status=503, body=json.dumps(body), content_type="application/problem+json"
            )
        if self.fault == "html":
            return web.Response(status=404, text="<h1>not here</h1>")
        if self.fault == "garbage":
            return web.Response(status=201, text="hello", headers={"Location": "/s/0"})
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        key = str(len(self.peers))
        self.peers[key] = peer

        @peer.on("track")
        def echo(track: AudioStreamTrack) -> None:
            peer.addTrack(AudioStreamTrack() if self.fault == "silence" else track)

        await peer.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        answer = peer.localDescription.sdp
        if self.fault == "unreachable":
            answer = "\r\n".join(
                "a=candidate:1 1 udp 2130706431 192.0.2.77 9 typ host"
                if line.startswith("a=candidate")
                else line
                for line in answer.splitlines()
            )
            await peer.close()
        return web.Response(status=201, text=answer, headers={"Location": f"/s/{key}"})

    async def delete(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        self.deleted.append(key)
        return web.Response(status=200 if key in self.peers else 404)


@asynccontextmanager
async def answering(fault: str = "") -> AsyncIterator[Answerer]:
    answerer = Answerer(fault)
    app = web.Application()
    app.router.add_post("/whip", answerer.post)
    app.router.add_delete("/s/{key}", answerer.delete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answerer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/whip"
    try:
        yield answerer
    finally:
        for peer in answerer.peers.values():
            await peer.close()
        await runner.cleanup()


async def test_call_against_echo_hears_its_tone_and_deletes_its_session() -> None:
    async with answering() as answerer:
        report = await place_call(answerer.url, duration=2.5, tone=523)
    assert report.error is None
    assert report.ok
    assert report.tone.hz == 523
    assert report.tone.heard >= 15
    assert report.set_up.total_ms is not None
    assert report.media.sent > 50
    assert report.media.received > 50
    assert report.media.rtt_ice_ms is not None
    assert report.session == answerer.url.replace("/whip", "/s/0")
    assert answerer.deleted == ["0"]
    assert json.loads(json.dumps(report.to_json()))["ok"] is True


async def test_calls_in_parallel_hear_each_its_own_tone() -> None:
    async with answering() as answerer:
        reports = await place_calls(answerer.url, 2, tone=400, duration=2)
    assert [report.error for report in reports] == [None, None]
    assert [report.tone.hz for report in reports] == [400, 450]


async def test_call_answered_with_silence_says_that_the_tone_is_missing() -> None:
    async with answering("silence") as answerer:
        report = await place_call(answerer.url, duration=1, tone=440)
    assert report.error is not None
    assert "440 Hz came back in 0 of" in report.error
    assert "silence" in report.error
    assert answerer.deleted == ["0"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("problem", "503 Service Unavailable: no active transceiver"),
        ("html", "404 Not Found: <h1>not here</h1>"),
        ("garbage", "no IP candidate"),
    ],
)
async def test_call_refused_shows_what_the_endpoint_said(fault: str, said: str) -> None:
    async with answering(fault) as answerer:
        report = await place_call(answerer.url)
    assert report.error is not None
    assert said in report.error


async def test_call_to_a_closed_port_says_connection_refused() -> None:
    async with answering() as answerer:
        url = answerer.url
    report = await place_call(url)
    assert report.error is not None
    assert "connection refused" in report.error


async def test_call_to_an_unreachable_candidate_fails_with_a_hint_and_deletes() -> None:
    async with answering("unreachable") as answerer:
        report = await place_call(answerer.url, family=4, connect_timeout=0.5)
    assert report.error is not None
    assert report.error.startswith("ICE failed: no answer to connectivity checks from ")
    assert "192.0.2.77:9" in report.error
    assert report.set_up.signaling_ms is not None
    assert report.set_up.ice_ms is None
    assert answerer.deleted == ["0"]


async def test_call_whose_other_side_hangs_up_says_so() -> None:
    async with answering() as answerer, Call(answerer.url) as call:
        await call.connect()
        await answerer.peers["0"].close()
        with pytest.raises(CallError, match="the other side ended the call"):
            await call.talk(10)


async def test_call_without_aiortc_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiortc", None)
    with pytest.raises(CallError, match=r"pip install 'turnout\[call\]'"):
        await place_call("http://192.0.2.1/whip")


@pytest.mark.parametrize("url", ["192.0.2.1:8080", "ftp://host/whip", "http://", "http://a:b/"])
async def test_call_to_something_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(CallError, match="URL"):
        await place_call(url)


@pytest.mark.parametrize(("count", "tone"), [(0, 440), (1, 50), (1, 9000), (60, 440)])
async def test_calls_with_impossible_tones_or_count_are_refused(count: int, tone: int) -> None:
    with pytest.raises(CallError, match="allowed is"):
        await place_calls("http://192.0.2.1/whip", count, tone=tone)


def test_tone_detector_hears_only_its_own_frequency() -> None:
    source = ToneSource(440)
    second = array("h", b"".join(source.next_frame() for _ in range(50)))
    own, neighbour = ToneDetector(440), ToneDetector(490)
    own.feed(second)
    neighbour.feed(second)
    assert (own.windows, own.tone_windows) == (10, 10)
    assert (neighbour.windows, neighbour.tone_windows) == (10, 0)
    assert neighbour.describe_stranger() == "mostly 440 Hz"


def test_tone_detector_does_not_take_a_quieter_tone_among_others_for_its_own() -> None:
    mixed = array(
        "h",
        (
            round(3000 * math.sin(440 * t) + 4000 * math.sin(900 * t))
            for t in (2 * math.pi * n / SAMPLE_RATE for n in range(SAMPLE_RATE))
        ),
    )
    detector = ToneDetector(440)
    detector.feed(mixed)
    assert (detector.windows, detector.tone_windows) == (10, 0)


def test_tone_detector_counts_silence_apart() -> None:
    detector = ToneDetector(440)
    assert detector.describe_stranger() == "nothing was decoded"
    detector.feed(array("h", bytes(2 * SAMPLE_RATE)))
    assert (detector.windows, detector.silent_windows, detector.tone_windows) == (10, 10, 0)
    assert detector.describe_stranger() == "silence"


def test_keep_family_drops_candidates_of_the_other_version_only() -> None:
    lines = (
        "v=0",
        "a=candidate:1 1 udp 2130706431 192.0.2.2 3478 typ host",
        "a=candidate:2 1 UDP 2130706430 fd00::2 3478 typ host",
        "a=candidate:3 1 udp 2130706429 4f3a.local 3478 typ host",
        "a=end-of-candidates",
    )
    text = "\r\n".join(lines)
    assert candidates(text) == ["192.0.2.2:3478", "[fd00::2]:3478", "4f3a.local:3478"]
    assert candidates(keep_family(text, 4)) == ["192.0.2.2:3478", "4f3a.local:3478"]
    assert candidates(keep_family(text, 6)) == ["[fd00::2]:3478", "4f3a.local:3478"]
    assert keep_family(text, 6).endswith("a=end-of-candidates\r\n")


@pytest.mark.parametrize("flag", [["--duration", "0"], ["--duration", "x"], ["--family", "5"]])
def test_call_command_with_a_bad_flag_exits_2(flag: list[str]) -> None:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit) as exit_info:
        parser.parse_args(["call", "http://192.0.2.1/whip", *flag])
    assert exit_info.value.code == 2


def test_call_command_refused_prints_json_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["call", "http://127.0.0.1:9/whip", "--json"])
    assert cli.run(args) == 1
    (report,) = json.loads(capsys.readouterr().out)["calls"]
    assert report["ok"] is False
    assert "connection refused" in report["error"]
    assert cli.run(parser.parse_args(["call", "http://127.0.0.1:9/whip"])) == 1
    assert "connection refused" in capsys.readouterr().out
