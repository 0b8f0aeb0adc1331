"""`[[upstream]]`: a WHIP server that is not ours, played over real HTTP, behind the real door."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from turnout.settings.tables import UpstreamSettings
from turnout.signaling import media_server as module
from turnout.signaling.ended import EndedSessions
from turnout.signaling.media_server import MediaServer
from turnout.signaling.whip import build_whip
from turnout.transceiver.answer import LocalDescription, build_answer
from turnout.wire.sdp import IceCredentials, SessionDescription
from turnout.wire.sdpfrag import IceFragment
from unit.memory_maps import MemoryMaps, build_steering
from unit.signaling.fake_transceiver import background, until

OFFER = (Path(__file__).parents[2] / "vectors" / "offers" / "chromium-audio.sdp").read_bytes()
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
PWD = "mediaserverpassword0000"
LANE, SLOT = 20500, 4095


@dataclass
class Foreign:
    """A media server's WHIP endpoint; its sessions are /r/1, /r/2 and so on."""

    ufrags: list[str] = field(default_factory=list)
    port: int = LANE
    health: int = 204
    status: int = 201
    offers: int = 0
    live: set[str] = field(default_factory=set)
    deleted: list[str] = field(default_factory=list)
    patched: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def build(self) -> web.Application:
        app = web.Application()
        app.router.add_options("/whip", self.options)
        app.router.add_post("/whip", self.post)
        app.router.add_patch("/r/{id}", self.patch)
        app.router.add_delete("/r/{id}", self.delete)
        return app

    async def options(self, _request: web.Request) -> web.Response:
        return web.Response(status=self.health)

    async def post(self, request: web.Request) -> web.Response:
        if self.status != 201:
            return web.Response(status=self.status, text="no audio of mine")
        self.offers += 1
        ufrag = self.ufrags.pop(0) if self.ufrags else f"ufrag{self.offers}"
        local = LocalDescription(
            ufrag=ufrag,
            pwd=PWD,
            fingerprint_sha256=":".join(["AB"] * 32),
            candidates=[("10.0.0.1", self.port)],
            session_id=1,
            ssrc=1,
            cname="c",
        )
        answer, _ = build_answer(SessionDescription.parse(await request.text()), local)
        self.live.add(str(self.offers))
        headers = {**SDP, "Location": f"/r/{self.offers}", "ETag": f'"e{self.offers}"'}
        return web.Response(status=201, text=str(answer), headers=headers)

    async def patch(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        if name not in self.live:
            return web.Response(status=404)
        self.patched.append((name, request.headers["If-Match"]))
        if request.headers["If-Match"] != "*":
            return web.Response(status=204)
        fresh = IceCredentials(f"again{len(self.patched)}", PWD)
        body = IceFragment(
            credentials=fresh, candidates=(), is_complete=True, is_lite=True, mid="0"
        )
        return web.Response(text=str(body), headers=FRAGMENT)

    async def delete(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        self.deleted.append(name)
        self.live.discard(name)
        return web.Response(status=200)


@dataclass
class Edge:
    """The WHIP door with one foreign upstream behind it."""

    foreign: Foreign
    runtime: Path
    maps: MemoryMaps = field(default_factory=MemoryMaps)
    ended: EndedSessions = field(default_factory=EndedSessions)

    def __post_init__(self) -> None:
        self.steering = build_steering(self.maps)
        self.server = self.build_server()
        app = build_whip(
            self.steering,
            {SLOT: self.server},
            lambda: [("203.0.113.7", 3478)],
            ended=self.ended,
        )
        self.http: TestClient[Any, Any] = TestClient(TestServer(app))

    def build_server(self) -> MediaServer:
        row = UpstreamSettings(name="other", lane=LANE, whip=self.foreign.url, weight=3)
        return MediaServer(SLOT, row, self.steering, self.runtime)

    @property
    def state(self) -> str:
        return self.steering.owners[SLOT].state

    async def post(self) -> tuple[int, Mapping[str, str], Any]:
        async with self.http.post("/whip", data=OFFER, headers=SDP) as reply:
            if reply.status == 201:
                return 201, reply.headers, await reply.text()
            return reply.status, reply.headers, await reply.json()


@pytest.fixture
async def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    monkeypatch.setattr(module, "HEALTH_PAUSE_S", 0.02)
    foreign = Foreign()
    async with TestServer(foreign.build()) as listening:
        foreign.url = str(listening.make_url("/whip"))
        edge = Edge(foreign, tmp_path)
        async with background(edge.server.run(edge.ended.remember)), edge.http:
            await until(lambda: edge.server.is_up)
            yield edge


async def test_offer_is_answered_by_the_upstream_with_our_address_and_resource(edge: Edge) -> None:
    status, headers, answer = await edge.post()
    assert status == 201
    (session,) = edge.steering.sessions.values()
    assert headers["Location"] == f"/whip/{session.id}"
    assert (session.ufrag, session.pwd, session.slot) == ("ufrag1", PWD, SLOT)
    assert "203.0.113.7 3478 typ host" in answer
    assert "10.0.0.1" not in answer
    async with edge.http.delete(headers["Location"]) as reply:
        assert reply.status == 200
    assert edge.foreign.deleted == ["1"]
    assert not edge.steering.sessions


async def test_ufrag_in_use_is_deleted_upstream_and_asked_again_up_to_3_times(edge: Edge) -> None:
    assert (await edge.post())[0] == 201
    edge.foreign.ufrags = ["ufrag1"] * 3
    assert (await edge.post())[0] == 201
    assert edge.foreign.deleted == ["2", "3", "4"]
    edge.foreign.ufrags = ["ufrag1"] * 9
    status, headers, problem = await edge.post()
    assert status == 503
    assert headers["Retry-After"]
    assert "ufrag" in problem["detail"]
    assert len(edge.foreign.ufrags) == 5
    assert edge.foreign.live == {"1", "5"}
    assert len(edge.steering.sessions) == 2


async def test_answer_that_names_another_port_is_refused_and_deleted(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    edge.foreign.port = 40123
    status, _, _ = await edge.post()
    assert status == 503
    assert "names UDP port 40123; it has to listen on its lane 20500" in caplog.text
    assert edge.foreign.deleted == ["1"]
    assert not edge.steering.sessions


async def test_refusal_of_an_offer_keeps_its_status_and_words(edge: Edge) -> None:
    edge.foreign.status = 422
    status, _, problem = await edge.post()
    assert (status, problem["detail"]) == (422, "no audio of mine")


async def test_patch_is_passed_on_with_the_upstream_s_own_etag(edge: Edge) -> None:
    _, headers, _ = await edge.post()
    fragment = str(
        IceFragment(credentials=None, candidates=(), is_complete=True, is_lite=False, mid="0")
    )
    tagged = {**FRAGMENT, "If-Match": headers["ETag"]}
    async with edge.http.patch(headers["Location"], data=fragment, headers=tagged) as reply:
        assert reply.status == 204
    assert edge.foreign.patched == [("1", '"e1"')]


async def test_ice_restart_is_steered_and_outlives_the_agent(edge: Edge) -> None:
    _, headers, _ = await edge.post()
    for number in (1, 2):
        fresh = IceCredentials(f"client{number}", PWD)
        fragment = IceFragment(
            credentials=fresh, candidates=(), is_complete=True, is_lite=False, mid="0"
        )
        restart = {**FRAGMENT, "If-Match": "*"}
        async with edge.http.patch(
            headers["Location"], data=str(fragment), headers=restart
        ) as reply:
            assert reply.status == 200
            assert f"again{number}" in await reply.text()
    (session,) = edge.steering.sessions.values()
    # The first restart has replaced what was before it; the second may yet come to nothing.
    assert session.ufrags == ("again1", "again2")
    reborn = build_steering(edge.maps)
    assert reborn.unconfirmed == 2
    edge.steering = reborn
    async with background(edge.build_server().run()):
        await until(lambda: session.id in reborn.sessions)
    assert reborn.sessions[session.id].ufrags == ("again1", "again2")
    assert reborn.unconfirmed == 0


async def test_upstream_that_does_not_answer_takes_no_new_sessions_and_keeps_its_calls(
    edge: Edge,
) -> None:
    await edge.post()
    edge.foreign.health = 503
    await until(lambda: not edge.server.is_up)
    assert edge.state == "draining"
    assert (await edge.post())[0] == 503
    assert len(edge.steering.sessions) == 1
    edge.foreign.health = 405
    await until(lambda: edge.server.is_up)
    assert edge.state == "active"
    assert (await edge.post())[0] == 201


async def test_session_without_a_flow_for_60_s_is_ended_and_deleted(edge: Edge) -> None:
    _, headers, _ = await edge.post()
    await edge.post()
    first, second = edge.steering.sessions.values()
    now = asyncio.get_running_loop().time()  # the server's own task looks, too
    await edge.server.end_silent(now)
    edge.maps.add_flow(0, second.ufrag, int(second.id[:16], 16))
    await edge.server.end_silent(now + 50)
    assert len(edge.steering.sessions) == 2
    await edge.server.end_silent(now + 70, edge.ended.remember)
    assert list(edge.steering.sessions) == [second.id]
    assert edge.foreign.deleted == ["1"]
    async with edge.http.get(headers["Location"]) as reply:
        assert reply.status == 410
        assert "no packet" in (await reply.json())["detail"]
    # A flow that egress healed names no session: nobody is ended on its account.
    edge.maps.fill(0, 0)

    def heal(bucket: int, buckets: int) -> int:
        edge.maps.owner_flows.update(SLOT, {"flows": 1, "unclaimed": 1})
        return bucket + buckets

    assert edge.steering.sweep(heal)
    await edge.server.end_silent(now + 500)
    assert first.id not in edge.steering.sessions
    assert second.id in edge.steering.sessions


async def test_book_that_cannot_be_read_is_empty_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "upstream-other.json").write_text(json.dumps({"1": {"url": "http://x"}}))
    row = UpstreamSettings(name="other", lane=LANE, whip="http://127.0.0.1:1/whip")
    assert not MediaServer(SLOT, row, build_steering(MemoryMaps()), tmp_path).is_up
    assert "upstream-other.json cannot be read" in caplog.text
