"""What the WHIP door does with a session that stands: trickle, ICE restart, 404 and 410."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from turnout.errors import KernelError
from turnout.wire.sdpfrag import IceFragment
from unit.signaling.fake_transceiver import PWD, background, running, until
from unit.signaling.test_whip import ADVERTISED, OFFER, SDP, Edge

FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
CANDIDATE = "candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host"
TRICKLE = (
    "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    f"a={CANDIDATE}\r\na=end-of-candidates\r\n"
)
RESTART = "a=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n"


class Call:
    """A session at the door."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.transceiver = edge.transceivers[0]

    async def post(self, ufrag: str = "first") -> None:
        self.transceiver.ufrags = [ufrag]
        status, headers, _ = await self.edge.post()
        assert status == 201
        self.path = headers["Location"]
        self.id = self.path.removeprefix("/whip/")
        self.etag = headers["ETag"]
        assert headers["Accept-Patch"] == FRAGMENT["Content-Type"]

    async def patch(
        self, body: str | bytes, if_match: str | None, **headers: str
    ) -> tuple[int, Mapping[str, str], Any]:
        sent = FRAGMENT | headers | ({} if if_match is None else {"If-Match": if_match})
        async with self.edge.http.patch(self.path, data=body, headers=sent) as response:
            is_problem = response.content_type == "application/problem+json"
            assert is_problem == (response.status >= 400)
            told = await (response.json() if is_problem else response.text())
            return response.status, response.headers, told

    def ufrags(self) -> tuple[str, ...]:
        return self.edge.steering.sessions[self.id].ufrags


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Call]:
    edge = Edge(tmp_path)
    first, second = edge.transceivers
    follow = [one.run(edge.steering, edge.ended.remember) for one in edge.upstreams.values()]
    async with running(first), running(second), background(*follow):
        await until(lambda: all(upstream.is_up for upstream in edge.upstreams.values()))
        async with TestClient(TestServer(edge.app)) as edge.http:
            made = Call(edge)
            await made.post()
            yield made


async def test_patch_candidates_are_taken_without_asking_anybody(call: Call) -> None:
    status, headers, body = await call.patch(TRICKLE, call.etag)
    assert (status, body) == (204, "")
    assert "ETag" not in headers
    assert call.transceiver.patched == []


@pytest.mark.parametrize("if_match", ['"x", {etag}', " {etag} "])
async def test_patch_etag_in_a_list_is_found(call: Call, if_match: str) -> None:
    assert (await call.patch(TRICKLE, if_match.format(etag=call.etag)))[0] == 204


@pytest.mark.parametrize(
    ("body", "if_match", "headers", "status", "said"),
    [
        (TRICKLE, None, {}, 428, "If-Match"),
        (TRICKLE, '"another"', {}, 412, "restart it again"),
        (TRICKLE, "W/{etag}", {}, 412, "ETag"),
        (TRICKLE, "{etag}", {"Content-Type": "application/sdp"}, 415, "sdpfrag"),
        ("hello", "{etag}", {}, 400, "line 1"),
        ("", "{etag}", {}, 400, "neither"),
        (b"\xff\xfe", "{etag}", {}, 400, "UTF-8"),
        ("v=0\r\n", "{etag}", {}, 400, "'v='"),
        (TRICKLE.replace("udp 2122260223", "udp x"), "{etag}", {}, 400, "'x'"),
        (TRICKLE.replace("EsAw", "E w"), "{etag}", {}, 400, "ice-ufrag"),
        ("a=end-of-candidates\r\n", "*", {}, 400, "a=ice-ufrag and a=ice-pwd"),
        ("a=x\r\n" * 20000, "{etag}", {}, 413, "65536"),
    ],
)
async def test_patch_that_cannot_be_is_told_why(  # noqa: PLR0917 - the columns of a table
    call: Call, body: str, if_match: str | None, headers: dict[str, str], status: int, said: str
) -> None:
    named = None if if_match is None else if_match.format(etag=call.etag)
    got, answered, problem = await call.patch(body, named, **headers)
    assert got == status == problem["status"]
    assert said in problem["detail"]
    assert ("Accept-Patch" in answered) == (status == 415)
    assert call.ufrags() == ("first",)


@pytest.mark.parametrize("asterisk", ["*", '"*"'])
async def test_restart_gives_new_credentials_at_the_same_address(call: Call, asterisk: str) -> None:
    call.transceiver.ufrags = ["second"]
    status, headers, body = await call.patch(RESTART, asterisk)
    assert status == 200
    assert headers["Content-Type"] == FRAGMENT["Content-Type"]
    assert headers["ETag"] != call.etag
    answer = IceFragment.parse(body)
    assert answer.credentials == ("second", PWD)
    assert [(one.address, one.port) for one in answer.candidates] == ADVERTISED
    assert (answer.mid, answer.is_lite, answer.is_complete) == ("0", True, True)
    assert call.ufrags() == ("first", "second")
    for ufrag in ("first", "second"):
        assert call.edge.maps.session_of(ufrag) is not None


async def test_restart_makes_the_old_etag_invalid_and_a_new_one_valid(call: Call) -> None:
    _, headers, _ = await call.patch(RESTART, "*")
    assert (await call.patch(TRICKLE, call.etag))[0] == 412
    assert (await call.patch(TRICKLE, headers["ETag"]))[0] == 204


async def test_restart_that_the_client_uses_retires_the_old_ufrag(call: Call) -> None:
    call.transceiver.ufrags = ["second"]
    _, headers, _ = await call.patch(RESTART, "*")
    call.transceiver.tell(event="ice_restarted", id=call.id, ufrag="second")
    await until(lambda: call.ufrags() == ("second",))
    assert call.edge.maps.session_of("first") is None
    assert (await call.patch(TRICKLE, headers["ETag"]))[0] == 204


async def test_restart_of_another_owner_s_session_is_not_believed(call: Call) -> None:
    call.transceiver.ufrags = ["second"]
    await call.patch(RESTART, "*")
    await call.edge.post()
    other = call.edge.transceivers[1]
    (marker,) = other.sessions
    other.tell(event="ice_restarted", id=call.id, ufrag="second")
    other.end_session(marker)
    await until(lambda: marker not in call.edge.steering.sessions)
    assert call.ufrags() == ("first", "second")


async def test_restart_with_the_client_s_own_credentials_is_none(call: Call) -> None:
    call.transceiver.fault = "same"
    status, headers, _ = await call.patch(RESTART, "*")
    assert (status, "ETag" in headers) == (204, False)
    assert call.ufrags() == ("first",)


@pytest.mark.parametrize(
    ("fault", "status"),
    [("break", 502), ("garbage", 502), ("no ufrag", 502), ("forgetful", 410)],
)
async def test_restart_that_fails_keeps_the_call(call: Call, fault: str, status: int) -> None:
    call.transceiver.fault = fault
    assert (await call.patch(RESTART, "*"))[0] == status
    assert call.ufrags() == ("first",)
    call.transceiver.fault = ""
    assert (await call.patch(TRICKLE, call.etag))[0] == 204


async def test_restart_the_kernel_does_not_take_keeps_the_call(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise KernelError("sessions: the map is full")

    monkeypatch.setattr(call.edge.maps.sessions, "update", refuse)
    status, headers, problem = await call.patch(RESTART, "*")
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert "goes on as it was" in problem["detail"]
    assert call.ufrags() == ("first",)


async def test_restart_to_a_ufrag_in_use_keeps_the_call(call: Call) -> None:
    call.edge.steering.add_session("taken", PWD, 1)
    call.transceiver.ufrags = ["taken"]
    status, _, problem = await call.patch(RESTART, "*")
    assert status == 503
    assert "taken" in problem["detail"]
    assert call.ufrags() == ("first",)


async def test_restarts_at_once_end_with_the_upstream_s_last_word(call: Call) -> None:
    replies = await asyncio.gather(*(call.patch(RESTART, "*") for _ in range(5)))
    assert {status for status, _, _ in replies} == {200}
    told = [IceFragment.parse(body).credentials for _, _, body in replies]
    assert len({one.ufrag for one in told if one}) == 5
    assert len(call.ufrags()) == 2
    assert len(call.edge.maps.sessions.records) == 2


async def test_delete_that_meets_a_hand_off_ends_the_call_where_it_went(call: Call) -> None:
    edge = call.edge
    edge.maps.settings.update(0, {"vips": []})
    with edge.upstreams[0].leaving(call.id):
        edge.transceivers[1].sessions[call.id] = call.transceiver.sessions.pop(call.id)
        deleting = asyncio.create_task(edge.http.delete(call.path).__aenter__())
        await until(lambda: call.id in call.transceiver.deleted)
        edge.steering.hand_over(call.id, 1, (), lambda _hash, _flow: False)
    response = await deleting
    assert response.status == 200
    assert edge.transceivers[1].deleted == [call.id]
    assert dict(edge.steering.sessions) == {}


async def test_delete_in_a_restart_leaves_nothing(call: Call) -> None:
    await call.patch(RESTART, "*")
    async with call.edge.http.delete(call.path, headers={"If-Match": '"any"'}) as response:
        assert response.status == 200
    assert call.edge.maps.sessions.records == {}
    for method in ("DELETE", "GET"):
        async with call.edge.http.request(method, call.path) as response:
            assert response.status == 404


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "GET"])
async def test_session_its_transceiver_ended_is_gone(call: Call, method: str) -> None:
    call.transceiver.end_session(call.id, "timeout")
    await until(lambda: not call.edge.steering.sessions)
    headers = {**FRAGMENT, "If-Match": "*"}
    async with call.edge.http.request(method, call.path, data=RESTART, headers=headers) as reply:
        assert reply.status == 410
        problem = await reply.json()
    assert "30 s" in problem["detail"]
    assert "new offer" in problem["detail"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_get_and_head_have_nothing_to_show(call: Call, method: str) -> None:
    for path in ("/whip", call.path):
        async with call.edge.http.request(method, path) as response:
            assert (response.status, await response.read()) == (204, b"")
    async with call.edge.http.request(method, "/whip/abc") as response:
        assert response.status == 404


async def test_post_offer_at_the_session_is_not_allowed(call: Call) -> None:
    async with call.edge.http.post(call.path, data=OFFER, headers=SDP) as response:
        assert response.status == 405
        assert "PATCH" in response.headers["Allow"]
