"""`--app rtp://`: real calls whose sound comes from another process, over plain RTP."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from system.edge_process import ask
from system.lab import WHIP_URL, Lab, open_running_lab, wait_until
from turnout.calling import Call, CallReport

pytestmark = pytest.mark.privileged

PROGRAM = Path(__file__).with_name("rtp_responder.py")
RTP_PORT, HTTP_PORT = 4000, 4001


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return a laboratory whose transceiver bridges to a process on the edge's host."""
    app = ("--app", f"rtp://127.0.0.1:{RTP_PORT}")
    webhook = ("--webhook", f"http://127.0.0.1:{HTTP_PORT}/calls")
    with open_running_lab(*app, *webhook, transceivers=1) as running:
        yield running


class Responder:
    """A running rtp_responder.py."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output

    def said(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._output.read_text().splitlines()]

    def hooks(self) -> list[dict[str, Any]]:
        return [line["hook"] for line in self.said() if "hook" in line]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def running_responder(lab: Lab) -> Iterator[Responder]:
    output = lab.directory / "responder.jsonl"
    with output.open("wb") as stdout:
        process = subprocess.Popen(
            [
                *("nsenter", f"--net=/run/netns/{lab.namespaces.edge}"),
                *(sys.executable, str(PROGRAM), str(RTP_PORT), str(HTTP_PORT)),
            ],
            stdout=stdout,
        )
    responder = Responder(process, output)
    try:
        wait_until(lambda: responder.said() != [], "the responder is ready")
        yield responder
    finally:
        responder.end()


def transceiver(lab: Lab) -> Any:
    return ask(lab.edge.runtime / "transceiver-0.sock", "GET", "/status")


def test_bridged_call_is_announced_and_hears_its_tone_from_the_backend(lab: Lab) -> None:
    with running_responder(lab) as responder:
        report = lab.place_call(duration=3, tone=650, family=4)
        assert report.error is None
        wait_until(lambda: len(responder.hooks()) == 2, "both ends of the call are told")
        started, ended = responder.hooks()
        sources = [line["source"] for line in responder.said() if "source" in line]
    assert (started["event"], ended["event"]) == ("call_started", "call_ended")
    assert started["call"] == ended["call"]
    assert sources == [started["rtp"]["address"]]
    assert started["rtp"]["backend"] == f"127.0.0.1:{RTP_PORT}"
    (opus, *_) = started["codecs"]
    assert (opus["name"].lower(), opus["clock_rate"], opus["channels"]) == ("opus", 48000, 2)
    counters = transceiver(lab)["counters"]
    assert counters["bridge__sent"] >= 100
    assert counters["bridge__received"] >= 100
    assert counters["webhook__told"] == 2
    assert counters["drop__srtp_auth"] == counters["drop__srtp_replay"] == 0


def test_call_whose_backend_dies_goes_on_and_hears_the_next_one(lab: Lab) -> None:
    async def talk_across_backends() -> tuple[int, int, CallReport]:
        async with Call(WHIP_URL, tone=550, family=4) as call:
            await call.connect()
            await call.talk(1.5)
            before = call.detector.tone_windows
            first.end()
            refused = transceiver(lab)["counters"]["bridge__refused"]
            await talk_until(
                call, lambda: transceiver(lab)["counters"]["bridge__refused"] > refused + 20
            )
            (session,) = transceiver(lab)["sessions"]
            assert session["rtp"]["backend"] == f"127.0.0.1:{RTP_PORT}"
            at_return = call.detector.tone_windows
            with running_responder(lab):
                await call.talk(2.5)
            after = call.detector.tone_windows - at_return
        call.judge_tone()
        return before, after, call.report()

    with running_responder(lab) as first:
        before, after, _report = lab.in_client(talk_across_backends)
    assert before >= 5
    assert after >= 10
    wait_until(lambda: transceiver(lab)["sessions"] == [], "the session is gone")


async def talk_until(call: Call, condition: Callable[[], bool]) -> None:
    for _ in range(40):
        if condition():
            return
        await call.talk(0.25)
    pytest.fail("the backend's absence was not counted")
