"""The transceiver as a process of its own: its command line and its control socket."""

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from turnout.wire.sdpfrag import IceFragment
from unit.transceiver.peer import CREDENTIALS, build_offer
from unit.transceiver.process import SDP, Process, command, environment


async def test_whip_answers_an_offer_and_delete_ends_it(running: Process) -> None:
    session_id = "0123456789abcdef" * 2
    async with running.http() as http:
        headers = {**SDP, "Turnout-Session": session_id}
        async with http.post("/whip", data=build_offer(), headers=headers) as response:
            answer = await response.text()
            assert response.status == 201
            assert response.headers["Location"] == f"/whip/{session_id}"
            assert response.content_type == "application/sdp"
        lane = (await running.status())["lane"]
        assert f" 127.0.0.1 {lane} typ host" in answer
        assert "a=ice-lite" in answer
        assert "a=end-of-candidates" in answer
        for status in (200, 404):
            async with http.delete(f"/whip/{session_id}") as response:
                assert response.status == status


async def test_whip_mints_an_id_where_none_is_given(running: Process) -> None:
    async with running.http() as http:
        async with http.post("/whip", data=build_offer(), headers=SDP) as response:
            location = response.headers["Location"]
        (session,) = (await running.status())["sessions"]
        assert location == f"/whip/{session['id']}"
        assert len(session["id"]) == 32


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"v=0\r\n", {"Content-Type": "text/plain"}, 415, id="not SDP"),
        pytest.param(b"\xff\xfe", SDP, 400, id="not UTF-8"),
        pytest.param(b"", SDP, 400, id="empty"),
        pytest.param(b"hello", SDP, 400, id="no SDP lines"),
        pytest.param(b"v=0\r\n" + b"a=x\r\n" * 20000, SDP, 400, id="20,000 lines"),
        pytest.param(b"v=0\r\n" + b"a" * (1 << 20), SDP, 413, id="1 MiB"),
        pytest.param(
            build_offer().replace("opus/48000/2", "speex/8000").encode(), SDP, 406, id="no codec"
        ),
        pytest.param(
            build_offer().replace("a=rtcp-mux\r\n", "").encode(), SDP, 422, id="no rtcp-mux"
        ),
        pytest.param(
            build_offer().encode(), {**SDP, "Turnout-Session": "xyz"}, 400, id="bad session id"
        ),
    ],
)
async def test_whip_bad_request_is_told_why(
    running: Process, body: bytes, headers: dict[str, str], status: int
) -> None:
    sent = BytesIO(body)
    async with running.http() as http, http.post("/whip", data=sent, headers=headers) as response:
        assert response.status == status
        assert response.content_type == "application/problem+json"
        problem = json.loads(await response.text())
    assert problem["status"] == status
    assert problem["title"]
    assert len(problem["detail"]) > 10
    assert (await running.status())["sessions"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/whip", 405)]
)
async def test_unknown_path_or_method_is_a_problem(
    running: Process, method: str, path: str, status: int
) -> None:
    async with running.http() as http, http.request(method, path) as response:
        assert response.status == status
        assert response.content_type == "application/problem+json"


async def test_sessions_past_the_cap_get_503(running: Process) -> None:
    statuses = []
    async with running.http() as http:
        for _ in range(4):
            async with http.post("/whip", data=build_offer(), headers=SDP) as response:
                statuses.append(response.status)
    assert statuses == [201, 201, 201, 503]


async def next_event(events: aiohttp.ClientResponse) -> dict[str, Any]:
    async with asyncio.timeout(5):
        event: dict[str, Any] = json.loads(await events.content.readline())
        return event


async def test_events_begin_with_hello_and_tell_of_ends(running: Process) -> None:
    async with running.http() as http:
        async with http.post("/whip", data=build_offer(), headers=SDP) as response:
            location = response.headers["Location"]
        async with http.get("/events") as events:
            hello = await next_event(events)
            status = await running.status()
            (session,) = hello["sessions"]
            assert hello["event"] == "hello"
            assert hello["lane"] == status["lane"]
            assert 0 < hello["incarnation"] == status["incarnation"] < 1 << 63
            assert session["id"] == location.removeprefix("/whip/")
            assert session["ufrag"] == status["sessions"][0]["ufrag"]
            assert len(session["pwd"]) >= 22
            assert await next_event(events) == {"event": "alive"}
            async with http.delete(location):
                pass
            event = await next_event(events)
            while event == {"event": "alive"}:
                event = await next_event(events)
            assert event == {
                "event": "session_ended",
                "id": session["id"],
                "reason": "deleted",
            }


FRAGMENT = "a=ice-ufrag:again\r\na=ice-pwd:" + "b" * 22 + "\r\n"
SDPFRAG = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def test_patch_restarts_ice_and_hello_names_both_ufrags(running: Process) -> None:
    async with running.http() as http:
        async with http.post("/whip", data=build_offer(), headers=SDP) as response:
            location = response.headers["Location"]
        bodies = []
        for _ in range(2):
            async with http.patch(location, data=FRAGMENT, headers=SDPFRAG) as response:
                assert response.status == 200
                assert response.content_type == "application/trickle-ice-sdpfrag"
                bodies.append(await response.text())
        assert bodies[0] == bodies[1]
        ours = IceFragment.parse(bodies[0])
        assert ours.credentials is not None
        lane = (await running.status())["lane"]
        assert [(one.address, one.port) for one in ours.candidates] == [("127.0.0.1", lane)]
        assert (ours.is_lite, ours.is_complete, ours.mid) == (True, True, "0")
        async with http.get("/events") as events:
            first, second = (await next_event(events))["sessions"]
        assert first["id"] == second["id"] == location.removeprefix("/whip/")
        assert second["ufrag"] == ours.credentials.ufrag != first["ufrag"]
        assert second["pwd"] == ours.credentials.pwd != first["pwd"]


async def test_patch_with_the_credentials_of_the_offer_restarts_nothing(running: Process) -> None:
    same = f"a=ice-ufrag:{CREDENTIALS.remote_ufrag}\r\na=ice-pwd:{CREDENTIALS.remote_pwd}\r\n"
    async with running.http() as http:
        async with http.post("/whip", data=build_offer(), headers=SDP) as response:
            location = response.headers["Location"]
        async with http.patch(location, data=same, headers=SDPFRAG) as response:
            assert response.status == 204
        async with http.get("/events") as events:
            assert len((await next_event(events))["sessions"]) == 1


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        pytest.param("/whip/" + "ab" * 16, FRAGMENT, SDPFRAG, 404, id="unknown"),
        pytest.param("", FRAGMENT, SDP, 415, id="not a fragment"),
        pytest.param("", "hello", SDPFRAG, 400, id="no lines"),
        pytest.param("", "a=end-of-candidates\r\n", SDPFRAG, 400, id="no credentials"),
    ],
)
async def test_patch_bad_request_is_told_why(
    running: Process, path: str, body: str, headers: dict[str, str], status: int
) -> None:
    async with running.http() as http:
        async with http.post("/whip", data=build_offer(), headers=SDP) as response:
            path = path or response.headers["Location"]
        async with http.patch(path, data=body, headers=headers) as response:
            assert response.status == status
            assert len((await response.json())["detail"]) > 10


async def test_sigterm_ends_events_and_exits_0(running: Process) -> None:
    async with running.http() as http, http.get("/events") as events:
        await next_event(events)
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert b"alive" in b'"alive"' + await events.content.read()
            assert await running.process.wait() == 0
    assert not running.control.exists()


async def test_status_names_the_process(running: Process) -> None:
    status = await running.status()
    assert (status["slot"], status["pid"]) == (3, running.process.pid)
    assert status["counters"]["internal_errors"] == 0


async def test_control_socket_is_its_users_alone(running: Process) -> None:
    assert running.control.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="nothing"),
        pytest.param(
            ["--slot", "0", "--lane", "65536", "--vip", "127.0.0.1", "--control", "c"], id="lane"
        ),
        pytest.param(
            ["--slot", "0", "--lane", "x", "--vip", "127.0.0.1", "--control", "c"], id="lane x"
        ),
        pytest.param(
            ["--slot", "0", "--lane", "0", "--vip", "localhost", "--control", "c"], id="vip"
        ),
        pytest.param(
            ["--slot", "0", "--lane", "0", "--vip", "::1", "--control", "c", "--app", "no"],
            id="app",
        ),
    ],
)
def test_wrong_flag_exits_2_and_says_so(arguments: list[str]) -> None:
    done = subprocess.run(command(*arguments), env=environment(), capture_output=True, check=False)
    assert done.returncode == 2
    assert b"error:" in done.stderr


@pytest.fixture
def taken_lane() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_lane_in_use_exits_1_with_one_line(taken_lane: int, tmp_path: Path) -> None:
    arguments = ["--slot", "5", "--lane", str(taken_lane), "--vip", "127.0.0.1"]
    done = subprocess.run(
        command(*arguments, "--control", str(tmp_path / "c")),
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"slot 5 cannot start" in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert str(taken_lane).encode() in done.stderr
    assert done.stderr.count(b"\n") == 1
