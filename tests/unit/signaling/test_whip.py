import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from turnout.errors import KernelError
from turnout.settings import Limits, Settings
from turnout.signaling import upstream as upstream_module
from turnout.signaling.ended import EndedSessions
from turnout.signaling.policy import WhipPolicy
from turnout.signaling.upstream import Upstream
from turnout.signaling.whip import build_whip
from turnout.wire.sdp import Candidate, SessionDescription
from unit.memory_maps import MemoryMaps, build_steering
from unit.signaling.fake_transceiver import PWD, FakeTransceiver, background, running, until

OFFERS = Path(__file__).parents[2] / "vectors" / "offers"
OFFER = (OFFERS / "chromium-audio.sdp").read_bytes()
SDP = {"Content-Type": "application/sdp"}
ADVERTISED = [("203.0.113.7", 3478), ("2001:db8::7", 3478)]


class Edge:
    """The WHIP door over real upstreams and steering; two transceivers that only signal."""

    def __init__(self, directory: Path) -> None:
        self.maps = MemoryMaps()
        self.steering = build_steering(self.maps)
        self.transceivers = [
            FakeTransceiver(directory / f"transceiver-{slot}.sock", lane=20000 + slot)
            for slot in range(2)
        ]
        self.upstreams = {slot: Upstream(slot, t.path) for slot, t in enumerate(self.transceivers)}
        self.advertised = list(ADVERTISED)
        self.policy = WhipPolicy()
        self.ended = EndedSessions()
        self.app = build_whip(
            self.steering,
            self.upstreams,
            lambda: self.advertised,
            lambda: self.policy,
            self.ended,
        )
        self.steered_at_answer: list[bool] = []
        self.app.on_response_prepare.append(self._before_answer)
        self.http: TestClient[Any, Any]

    async def _before_answer(self, _request: web.Request, _response: web.StreamResponse) -> None:
        self.steered_at_answer.append(self.maps.session_of("first") is not None)

    async def post(self, offer: bytes = OFFER) -> tuple[int, Mapping[str, str], Any]:
        async with self.http.post("/whip", data=offer, headers=SDP) as response:
            if response.status == 201:
                return 201, response.headers, await response.text()
            assert response.content_type == "application/problem+json"
            return response.status, response.headers, await response.json()

    def everything_asked_for(self) -> set[str]:
        return {session_id for t in self.transceivers for session_id in t.sessions}


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    made = Edge(tmp_path)
    first, second = made.transceivers
    follow = [
        upstream.run(made.steering, made.ended.remember) for upstream in made.upstreams.values()
    ]
    async with running(first), running(second), background(*follow):
        await until(lambda: all(upstream.is_up for upstream in made.upstreams.values()))
        async with TestClient(TestServer(made.app)) as made.http:
            yield made


async def test_post_offer_is_answered_with_the_shared_port(edge: Edge) -> None:
    status, headers, body = await edge.post()
    assert status == 201
    assert headers["Content-Type"] == "application/sdp"
    answer = SessionDescription.parse(body)
    candidates = [
        Candidate.parse(value) for value in answer.media[0].attributes.values("candidate")
    ]
    assert [(c.address, c.port) for c in candidates] == ADVERTISED
    assert "20000" not in body
    session_id = headers["Location"].removeprefix("/whip/")
    session = edge.steering.sessions[session_id]
    assert (session.kind, session.pwd, session.slot) == ("upstream", PWD, 0)
    assert edge.transceivers[0].sessions == {session_id: session.ufrag}


async def test_post_ufrag_is_steered_before_the_answer_leaves(edge: Edge) -> None:
    edge.transceivers[0].ufrags = ["first"]
    assert (await edge.post())[0] == 201
    assert edge.steered_at_answer == [True]


async def test_post_sessions_are_spread_over_owners(edge: Edge) -> None:
    for _ in range(10):
        assert (await edge.post())[0] == 201
    assert [len(t.sessions) for t in edge.transceivers] == [5, 5]


async def test_post_burst_of_offers_is_spread_over_owners(edge: Edge) -> None:
    replies = await asyncio.gather(*(edge.post() for _ in range(20)))
    assert {status for status, _, _ in replies} == {201}
    assert [len(t.sessions) for t in edge.transceivers] == [10, 10]


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", ""])
async def test_post_other_content_type_is_refused(edge: Edge, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    async with edge.http.post("/whip", data=OFFER, headers=headers) as response:
        assert response.status == 415
        assert "application/sdp" in (await response.json())["detail"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "v=0"),
        (b"hello", 400, "line 1"),
        (b"\xff\xfe", 400, "UTF-8"),
        (OFFER.replace(b"m=audio 9", b"m=audio x"), 400, "'x'"),
        (b"v" * (64 * 1024 + 1), 413, "65536"),
    ],
)
async def test_post_broken_body_is_refused_without_asking_anybody(
    edge: Edge, body: bytes, status: int, said: str
) -> None:
    got, _, problem = await edge.post(body)
    assert got == status
    assert problem["status"] == status
    assert said in problem["detail"]
    assert edge.transceivers[0].offers == 0


async def test_post_offer_at_the_size_limit_is_read(edge: Edge) -> None:
    padding = 64 * 1024 - len(OFFER) - len(b"a=x:\r\n")
    assert (await edge.post(OFFER + b"a=x:" + b"y" * padding + b"\r\n"))[0] == 201


async def test_post_offer_the_transceiver_refuses_keeps_its_words(edge: Edge) -> None:
    edge.transceivers[0].fault = "refuse"
    status, _, problem = await edge.post()
    assert status == 422
    assert problem["detail"] == "offer a=setup:actpass"
    assert edge.transceivers[1].offers == 0


@pytest.mark.parametrize("fault", ["break", "hang up", "garbage", "no ufrag"])
async def test_post_owner_that_fails_is_passed_over(edge: Edge, fault: str) -> None:
    edge.transceivers[0].fault = fault
    status, headers, _ = await edge.post()
    assert status == 201
    assert edge.transceivers[0].sessions == {}
    assert edge.steering.sessions[headers["Location"].removeprefix("/whip/")].slot == 1


async def test_post_owner_that_hangs_is_passed_over(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "OFFER_TIMEOUT_S", 0.05)
    edge.transceivers[0].fault = "wait"
    status, headers, _ = await edge.post()
    assert status == 201
    assert edge.transceivers[0].sessions == {}
    assert edge.steering.sessions[headers["Location"].removeprefix("/whip/")].slot == 1


async def test_post_all_owners_failing_is_unavailable(edge: Edge) -> None:
    for transceiver in edge.transceivers:
        transceiver.fault = "break"
    status, headers, problem = await edge.post()
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert "2 transceivers failed" in problem["detail"]
    assert [t.offers for t in edge.transceivers] == [1, 1]


async def test_post_without_an_active_owner_is_unavailable(edge: Edge) -> None:
    edge.steering.set_owner_state(0, "draining")
    edge.steering.set_owner_state(1, "down")
    status, headers, problem = await edge.post()
    assert status == 503
    assert "Retry-After" in headers
    assert "no transceiver" in problem["detail"]


async def test_post_a_drained_owner_gets_no_session(edge: Edge) -> None:
    edge.steering.set_drained(0, is_drained=True)
    status, headers, _ = await edge.post()
    assert status == 201
    assert edge.steering.sessions[headers["Location"].removeprefix("/whip/")].slot == 1
    assert edge.transceivers[0].offers == 0


async def test_post_offer_under_way_when_its_owner_is_drained_goes_to_another(edge: Edge) -> None:
    edge.transceivers[0].fault = "wait"
    async with asyncio.TaskGroup() as group:
        posting = group.create_task(edge.post())
        await edge.transceivers[0].asked.wait()
        edge.steering.set_drained(0, is_drained=True)
        edge.transceivers[0].release.set()
    status, headers, _ = posting.result()
    assert status == 201
    assert edge.steering.sessions[headers["Location"].removeprefix("/whip/")].slot == 1
    assert edge.transceivers[0].sessions == {}


async def test_post_all_owners_drained_is_unavailable_and_says_when_to_come_back(
    edge: Edge,
) -> None:
    for slot in (0, 1):
        edge.steering.set_drained(slot, is_drained=True)
    status, headers, problem = await edge.post()
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert "drained" in problem["detail"]
    assert edge.everything_asked_for() == set()


async def test_post_without_an_advertised_address_is_unavailable(edge: Edge) -> None:
    edge.advertised.clear()
    status, _, problem = await edge.post()
    assert status == 503
    assert "no address" in problem["detail"]
    assert edge.everything_asked_for() == set()


async def test_post_ufrag_in_use_is_asked_again(edge: Edge) -> None:
    edge.steering.add_session("taken", PWD, 1)
    edge.transceivers[0].ufrags = ["taken", "taken", "fresh"]
    status, headers, _ = await edge.post()
    assert status == 201
    session_id = headers["Location"].removeprefix("/whip/")
    assert edge.transceivers[0].sessions == {session_id: "fresh"}
    assert len(edge.transceivers[0].deleted) == 2


async def test_post_ufrag_in_use_for_ever_is_unavailable(edge: Edge) -> None:
    taken = edge.steering.add_session("taken", PWD, 1)
    edge.transceivers[0].ufrags = ["taken"] * 9
    status, headers, _ = await edge.post()
    assert status == 503
    assert "Retry-After" in headers
    assert edge.transceivers[0].offers == 4
    assert edge.everything_asked_for() == set()
    assert dict(edge.steering.sessions) == {taken.id: taken}


async def test_post_map_that_takes_no_more_leaves_nothing_behind(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise KernelError("sessions: the map is full")

    monkeypatch.setattr(edge.maps.sessions, "update", refuse)
    status, _, _ = await edge.post()
    assert status == 503
    assert edge.everything_asked_for() == set()


async def test_post_to_an_edge_that_is_full_asks_no_transceiver(edge: Edge) -> None:
    edge.steering.follow_settings(Settings(transceivers=2, limits=Limits(max_sessions=1)))
    assert (await edge.post())[0] == 201

    status, headers, body = await edge.post()

    assert status == 503
    assert "all it may have" in str(body)
    assert "Retry-After" in headers
    assert sum(transceiver.offers for transceiver in edge.transceivers) == 1
    assert edge.steering.sessions_refused == 1


async def test_post_client_that_hangs_up_leaves_nothing_behind(edge: Edge) -> None:
    transceiver = edge.transceivers[0]
    transceiver.fault = "wait"
    post = asyncio.create_task(edge.post())
    await transceiver.asked.wait()
    post.cancel()
    with pytest.raises(asyncio.CancelledError):
        await post
    # The server sees the hang-up before the transceiver's answer.
    await until(lambda: not edge.http.server.handler.connections)
    transceiver.release.set()
    await until(lambda: transceiver.deleted)
    assert transceiver.sessions == {}
    assert dict(edge.steering.sessions) == {}


async def test_delete_ends_the_session_on_both_sides(edge: Edge) -> None:
    edge.transceivers[0].ufrags = ["going"]
    _, headers, _ = await edge.post()
    async with edge.http.delete(headers["Location"]) as response:
        assert response.status == 200
    assert edge.everything_asked_for() == set()
    assert dict(edge.steering.sessions) == {}
    assert edge.maps.session_of("going") is None
    async with edge.http.delete(headers["Location"]) as response:
        assert response.status == 404
        assert "has ended" in (await response.json())["detail"]


async def test_delete_transceiver_that_does_not_answer_is_no_obstacle(edge: Edge) -> None:
    _, headers, _ = await edge.post()
    await edge.transceivers[0].stop()
    async with edge.http.delete(headers["Location"]) as response:
        assert response.status in {200, 410}
    await until(lambda: not edge.steering.sessions)


async def test_delete_session_of_the_local_api_is_not_found(edge: Edge) -> None:
    session = edge.steering.add_session("apis", PWD, 0)
    async with edge.http.delete(f"/whip/{session.id}") as response:
        assert response.status == 404
    assert session.id in edge.steering.sessions


async def test_preflight_of_a_browser_is_granted(edge: Edge) -> None:
    asked = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    async with edge.http.options("/whip", headers=asked) as response:
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert response.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert response.headers["Accept-Post"] == "application/sdp"
    async with edge.http.options("/whip/abc", headers=asked) as response:
        assert response.status == 200
        for method in ("DELETE", "PATCH"):
            assert method in response.headers["Access-Control-Allow-Methods"]
        assert response.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"


@pytest.mark.parametrize("body", [OFFER, b"hello"])
async def test_post_answer_and_error_can_be_read_by_a_page(edge: Edge, body: bytes) -> None:
    _, headers, _ = await edge.post(body)
    assert headers["Access-Control-Allow-Origin"] == "*"
    exposed = headers["Access-Control-Expose-Headers"].split(", ")
    assert {"Location", "ETag", "Link", "Retry-After", "Accept-Patch"} <= set(exposed)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("PATCH", "/whip", 405),
        ("PUT", "/whip", 405),
        ("POST", "/whip/abc", 405),
        ("PUT", "/whip/abc", 405),
        ("GET", "/whip/abc/def", 404),
    ],
)
async def test_request_to_another_door_is_told_what_is_here(
    edge: Edge, method: str, path: str, status: int
) -> None:
    async with edge.http.request(method, path) as response:
        assert response.status == status
        assert response.content_type == "application/problem+json"
        assert "POST /whip" in (await response.json())["detail"]
        assert ("Allow" in response.headers) == (status == 405)


async def test_request_that_hits_a_fault_is_answered_and_logged(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("divided by zero")

    monkeypatch.setattr("turnout.signaling.placement.build_client_answer", fail)
    status, headers, problem = await edge.post()
    assert status == 500
    assert "divided by zero" not in problem["detail"]
    assert "divided by zero" in caplog.text
    assert edge.everything_asked_for() == set()
    assert dict(edge.steering.sessions) == {}
    assert headers["Access-Control-Allow-Origin"] == "*"
