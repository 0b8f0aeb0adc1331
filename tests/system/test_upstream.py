"""`[[upstream]]`: real calls to a media server that is not ours, unchanged."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest

from system.edge_process import ApiCallFailed
from system.foreign import MediaServerProcess, running_media_server
from system.lab import WHIP_URL, Lab, counted, open_lab, wait_until
from system.namespaces import EDGE_ADDRESSES
from turnout.calling import Call
from turnout.errors import CallError

pytestmark = pytest.mark.privileged

LANE, HTTP_PORT = 20500, 9000
SLOT = 4095
OFFER = Path(__file__).parents[1] / "vectors" / "offers" / "chromium-audio.sdp"
FRAGMENT = """a=ice-ufrag:abcd\r
a=ice-pwd:0123456789012345678901\r
m=audio 9 UDP/TLS/RTP/SAVPF 111\r
a=mid:0\r
a=candidate:1 1 udp 2122260223 10.77.0.2 9999 typ host\r
"""
SETTINGS = f"""
transceivers = 0

[[upstream]]
name = "datachannel"
whip = "http://127.0.0.1:{HTTP_PORT}/whip"
lane = {LANE}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return a laboratory whose edge has no transceiver of its own: all is the upstream's."""
    with open_lab() as built:
        settings = built.directory / "turnout.toml"
        settings.write_text(SETTINGS)
        built.edge.start("--config", str(settings), transceivers=0)
        yield built
        assert (built.edge.stop(), built.edge.leftovers()) == (0, []), built.edge.tail()


@pytest.fixture
def server(lab: Lab) -> Iterator[MediaServerProcess]:
    with running_media_server(lab, LANE, HTTP_PORT) as running:
        wait_until(lambda: owner(lab)["state"] == "active", "the upstream takes sessions")
        yield running


def owner(lab: Lab) -> Any:
    (only,) = lab.edge.api("GET", "/owners")
    assert (only["slot"], only["lane"], only["kind"]) == (SLOT, LANE, "upstream")
    return only


def test_call_to_a_foreign_media_server_is_steered_and_hears_its_tone(
    lab: Lab, server: MediaServerProcess
) -> None:
    before = lab.edge.counters()
    report = lab.place_call(duration=3, tone=600, family=4)
    assert report.error is None
    assert report.remote == f"{EDGE_ADDRESSES[4]}:3478"
    assert server.requests("POST") == ["/whip"]
    # Its Location was not ours: the client's DELETE found the way to it all the same.
    wait_until(lambda: server.requests("DELETE") == ["/resource/1"], "deleted at the upstream")
    status = lab.edge.status()
    moved = counted(before, status["counters"])
    assert moved["steered__rtp"] >= 100
    assert moved["steered__dtls"] >= 2
    assert moved["returned__rewritten"] >= 100
    assert status["shared_port_datagrams"] == 0
    assert lab.edge.api("GET", "/sessions") == []


def test_candidates_of_the_client_are_passed_on(lab: Lab, server: MediaServerProcess) -> None:
    async def trickle() -> tuple[int, int]:
        async with aiohttp.ClientSession() as http:
            sdp = {"Content-Type": "application/sdp"}
            async with http.post(WHIP_URL, data=OFFER.read_bytes(), headers=sdp) as made:
                assert made.status == 201
                resource = urljoin(WHIP_URL, made.headers["Location"])
                headers = {
                    "Content-Type": "application/trickle-ice-sdpfrag",
                    "If-Match": made.headers["ETag"],
                }
            async with http.patch(resource, data=FRAGMENT, headers=headers) as patched:
                pass
            async with http.delete(resource) as deleted:
                return patched.status, deleted.status

    assert lab.in_client(trickle) == (204, 200)
    assert server.requests("PATCH") == server.requests("DELETE") == ["/resource/1"]


def test_agent_that_is_killed_in_a_call_knows_the_upstream_s_sessions_again(
    lab: Lab, server: MediaServerProcess
) -> None:
    async def talk_through() -> int:
        async with Call(WHIP_URL, tone=700, family=4) as call:
            await call.connect()
            await call.talk(1)
            os.kill(lab.edge.pids()["agent"], signal.SIGKILL)
            before = call.detector.tone_windows
            await call.talk(3)
            wait_until(lambda: is_back(lab), "the agent is back", 30)
            assert len(lab.edge.api("GET", "/sessions")) == 1
            return call.detector.tone_windows - before

    assert lab.in_client(talk_through) >= 20
    wait_until(lambda: server.requests("DELETE") != [], "deleted by the agent that came after")
    assert lab.edge.api("GET", "/sessions") == []


def is_back(lab: Lab) -> bool:
    try:
        return bool(owner(lab)["state"] == "active")
    except (OSError, ApiCallFailed):
        return False


def test_upstream_that_is_away_takes_no_sessions_and_the_client_is_told(
    lab: Lab, server: MediaServerProcess
) -> None:
    server.end()
    wait_until(lambda: owner(lab)["state"] == "draining", "its absence is seen")
    report = lab.place_call(duration=1, family=4)
    assert report.error is not None
    assert "503" in report.error


def test_upstream_that_is_drained_takes_no_sessions_and_the_deadline_ends_those_it_has(
    lab: Lab, server: MediaServerProcess
) -> None:
    drain = f"/owners/{SLOT}/drain"

    async def talk_through() -> int:
        async with Call(WHIP_URL, tone=700, family=4) as call:
            await call.connect()
            before = call.detector.tone_windows
            lab.edge.api("POST", drain, {"deadline_seconds": 600})
            await call.talk(2.5)  # longer than a look at its health, which is good
            assert owner(lab)["state"] == "draining"
            heard = call.detector.tone_windows - before
            lab.edge.api("POST", drain, {"deadline_seconds": 0})
            await asyncio.to_thread(
                wait_until, lambda: lab.edge.api("GET", "/sessions") == [], "the deadline"
            )
            with pytest.raises(CallError, match="answered 410"):
                await call.hang_up()
        return heard

    assert lab.in_client(talk_through) >= 15
    assert server.requests("DELETE") == ["/resource/1"]
    report = lab.place_call(duration=1, family=4)
    assert "503" in (report.error or "")
    assert "drained" in (report.error or "")
    lab.edge.api("DELETE", drain)
    assert owner(lab)["state"] == "active"
    assert lab.place_call(duration=1, family=4).error is None


def test_owner_of_an_upstream_is_not_for_the_local_api_to_take(lab: Lab) -> None:
    with pytest.raises(ApiCallFailed, match=r"belongs to an \[\[upstream\]\]"):
        lab.edge.api("POST", "/owners", {"lane": LANE})
    with pytest.raises(ApiCallFailed) as refused:
        lab.edge.api("DELETE", f"/owners/{SLOT}")
    assert refused.value.status == 409
