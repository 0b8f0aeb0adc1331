"""A transceiver's control socket without media: it answers offers and tells its events."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import web

from turnout.transceiver.answer import LocalDescription, build_answer
from turnout.wire.problem import CONTENT_TYPE as PROBLEM
from turnout.wire.problem import build_problem
from turnout.wire.sdp import IceCredentials, SessionDescription
from turnout.wire.sdpfrag import IceFragment

PWD = "transceiverpassword0000"
DEADLINE_S = 10.0


@dataclass
class FakeTransceiver:
    """Speaks the control protocol on a UNIX socket; `fault` makes POST /whip do one thing wrong."""

    path: Path
    lane: int = 20000
    incarnation: int = 1
    fault: str = ""
    ufrags: list[str] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    patched: list[str] = field(default_factory=list)
    hand_off_reply: tuple[int, Any] = (500, {})
    offers: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    _streams: list[asyncio.Queue[dict[str, Any] | None]] = field(default_factory=list)
    _runner: web.AppRunner | None = None
    _numbers: Iterable[int] = field(default_factory=count)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/whip", self._post)
        app.router.add_patch("/whip/{id}", self._patch)
        app.router.add_delete("/whip/{id}", self._delete)
        app.router.add_get("/events", self._events)
        app.router.add_post("/hand-off", self._hand_off)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()

    async def stop(self) -> None:
        """End as a killed process does: the streams break off, the socket refuses."""
        if self._runner is not None:
            self.end_streams()
            self.release.set()
            await self._runner.cleanup()
            self._runner = None

    def end_streams(self) -> None:
        for stream in self._streams:
            stream.put_nowait(None)

    def tell(self, **event: Any) -> None:
        for stream in self._streams:
            stream.put_nowait(event)

    def end_session(self, session_id: str, reason: str = "bye") -> None:
        del self.sessions[session_id]
        self.tell(event="session_ended", id=session_id, reason=reason)

    async def _post(self, request: web.Request) -> web.Response:
        self.offers += 1
        self.asked.set()
        session_id = request.headers["Turnout-Session"]
        if self.fault == "refuse":
            return web.Response(
                status=422,
                body=build_problem(422, "Unsupported DTLS role", "offer a=setup:actpass"),
                content_type=PROBLEM,
            )
        if self.fault == "break":
            return web.Response(status=500, text="oops")
        if self.fault == "hang up":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        ufrag = self.ufrags.pop(0) if self.ufrags else f"ufrag{next(iter(self._numbers)):04}"
        self.sessions[session_id] = ufrag
        if self.fault == "wait":
            await self.release.wait()
        offer = SessionDescription.parse(await request.text())
        answer, _ = build_answer(offer, self._describe(ufrag))
        text = "hello" if self.fault == "garbage" else str(answer)
        if self.fault == "long":
            text = "a" * (2 << 20)
        if self.fault == "no ufrag":
            text = text.replace("a=ice-ufrag", "a=x-ufrag")
        return web.Response(
            status=201,
            body=text.encode(),
            content_type="application/sdp",
            headers={"Location": f"/whip/{session_id}"},
        )

    async def _patch(self, request: web.Request) -> web.Response:
        assert request.headers["If-Match"] == "*"
        session_id = request.match_info["id"]
        self.patched.append(await request.text())
        if session_id not in self.sessions or self.fault == "forgetful":
            return web.Response(status=404)
        if self.fault in {"break", "refuse"}:
            return web.Response(status=500, text="oops")
        if self.fault == "same":
            return web.Response(status=204)
        ufrag = self.ufrags.pop(0) if self.ufrags else f"again{next(iter(self._numbers)):04}"
        text = "hello"
        if self.fault != "garbage":
            ours = IceFragment(IceCredentials(ufrag, PWD), mid="0", is_lite=True)
            text = str(ours) if self.fault != "no ufrag" else "a=end-of-candidates\r\n"
        return web.Response(text=text, content_type="application/trickle-ice-sdpfrag")

    async def _delete(self, request: web.Request) -> web.Response:
        session_id = request.match_info["id"]
        self.deleted.append(session_id)
        if self.sessions.pop(session_id, None) is None:
            return web.Response(status=404)
        self.tell(event="session_ended", id=session_id, reason="deleted")
        return web.Response(status=200)

    async def _hand_off(self, request: web.Request) -> web.Response:
        """Answer what `hand_off_reply` says, or nothing."""
        body = await request.json()
        assert body["until"] > asyncio.get_running_loop().time()
        if self.fault == "hang up":
            assert request.transport is not None
            request.transport.abort()
        status, reply = self.hand_off_reply
        return web.json_response(reply, status=status)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        stream: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._streams.append(stream)
        hello: dict[str, Any] | None = {
            "event": "hello",
            "incarnation": self.incarnation,
            "lane": self.lane,
            "sessions": [
                {"id": session_id, "ufrag": ufrag, "pwd": PWD}
                for session_id, ufrag in self.sessions.items()
            ],
        }
        event = hello
        while event is not None:
            await response.write(json.dumps(event).encode() + b"\n")
            event = await stream.get()
        self._streams.remove(stream)
        return response

    def _describe(self, ufrag: str) -> LocalDescription:
        return LocalDescription(
            ufrag=ufrag,
            pwd=PWD,
            fingerprint_sha256=":".join(["AB"] * 32),
            candidates=[("192.0.2.2", self.lane), ("fd00::2", self.lane)],
            session_id=1,
            ssrc=1,
            cname="echo",
        )


@asynccontextmanager
async def running(transceiver: FakeTransceiver) -> AsyncIterator[FakeTransceiver]:
    await transceiver.start()
    try:
        yield transceiver
    finally:
        await transceiver.stop()


@asynccontextmanager
async def background(*coroutines: Any) -> AsyncIterator[None]:
    """Run endless coroutines beside the block; what one of them raises is raised."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def until(condition: Any) -> None:
    """Return when the condition holds; fails past a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is polled has no event to wait for
            await asyncio.sleep(0.005)
