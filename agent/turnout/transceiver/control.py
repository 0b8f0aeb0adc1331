"""The transceiver's control interface: HTTP on a UNIX socket. Started by __main__.py.

POST /whip takes an SDP offer, DELETE /whip/<id> ends a session, GET /events streams what happens
as lines of JSON, GET /status tells everything. Errors are application/problem+json (RFC 9457).
"""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from turnout.errors import SignalingError
from turnout.transceiver.session import Session
from turnout.transceiver.worker import Worker
from turnout.wire import problem
from turnout.wire.problem import build_problem
from turnout.wire.sdp import CONTENT_TYPE

OFFER_BYTES_MOST = 64 << 10
ALIVE_SECONDS = 1.0
# A follower that is so many events behind is cut off: it comes back and gets a fresh hello.
_EVENTS_BEHIND_MOST = 10_000
_SESSION_ID = re.compile(r"[0-9a-f]{32}")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is; `incarnation` is random, made at the start, below 2**63."""

    slot: int
    incarnation: int


class Control:
    """The HTTP application over one worker."""

    def __init__(self, worker: Worker, identity: Identity) -> None:
        self._worker = worker
        self._identity = identity
        self._followers: set[asyncio.Queue[Event | None]] = set()
        worker.on_ended = self._publish_ended
        self.application = web.Application(
            client_max_size=OFFER_BYTES_MOST, middlewares=[_answer_errors]
        )
        self.application.add_routes(
            [
                web.post("/whip", self._post_whip),
                web.delete("/whip/{id}", self._delete_whip),
                web.get("/events", self._get_events),
                web.get("/status", self._get_status),
            ]
        )

    async def _post_whip(self, request: web.Request) -> web.Response:
        if request.content_type != CONTENT_TYPE:
            raise SignalingError(
                415, "Not an offer", f"the body is {request.content_type}: send {CONTENT_TYPE}"
            )
        session_id = request.headers.get("Turnout-Session")
        if session_id is not None and not _SESSION_ID.fullmatch(session_id):
            raise SignalingError(
                400,
                "Bad session id",
                f"Turnout-Session is {session_id!r}: it takes 32 lower-case hex digits",
            )
        try:
            offer = (await request.read()).decode()
        except UnicodeDecodeError as error:
            raise SignalingError(400, "Bad offer", f"SDP is UTF-8: {error}") from error
        session, answer = self._worker.create_session(offer, session_id)
        return web.Response(
            status=201,
            text=answer,
            content_type=CONTENT_TYPE,
            headers={"Location": f"/whip/{session.id}"},
        )

    async def _delete_whip(self, request: web.Request) -> web.Response:
        session_id = request.match_info["id"]
        if not self._worker.end_session(session_id, "deleted"):
            raise SignalingError(404, "No such session", f"session {session_id} is not live here")
        return web.Response()

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        # No await from the snapshot to the subscription: nothing is missed, nothing told twice.
        hello = self._hello()
        queue: asyncio.Queue[Event | None] = asyncio.Queue(_EVENTS_BEHIND_MOST)
        self._followers.add(queue)
        try:
            await response.write(_line(hello))
            while True:
                event: Event | None = {"event": "alive"}
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ALIVE_SECONDS):
                        event = await queue.get()
                if event is None:
                    break
                await response.write(_line(event))
        except ConnectionResetError:
            pass  # the follower has gone
        finally:
            self._followers.discard(queue)
        return response

    def _hello(self) -> Event:
        live = [
            {"id": session.id, "ufrag": credentials.local_ufrag, "pwd": credentials.local_pwd}
            for session in self._worker.sessions.values()
            for credentials in session.ice.credentials.values()
        ]
        return {
            "event": "hello",
            "incarnation": self._identity.incarnation,
            "lane": self._worker.lane,
            "sessions": live,
        }

    def _publish_ended(self, session: Session, reason: str) -> None:
        event = {"event": "session_ended", "id": session.id, "reason": reason}
        for queue in list(self._followers):
            try:
                queue.put_nowait(event)
            except asyncio.QueueFull:
                self._cut_off(queue)

    def _cut_off(self, queue: asyncio.Queue[Event | None]) -> None:
        self._followers.discard(queue)
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)

    async def _get_status(self, _request: web.Request) -> web.Response:
        now = asyncio.get_running_loop().time()
        worker = self._worker
        return web.json_response(
            {
                "slot": self._identity.slot,
                "lane": worker.lane,
                "incarnation": self._identity.incarnation,
                "pid": os.getpid(),
                "sessions": [session.describe(now) for session in worker.sessions.values()],
                "counters": worker.counters.as_dict(),
            }
        )

    @contextlib.asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator[None]:
        """Serve on the UNIX socket at `path` while the context lasts."""
        runner = web.AppRunner(self.application, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            # A predecessor's may be there; aiohttp replaces it. One supervisor runs one of a slot.
            await web.UnixSite(runner, path).start()
            yield
        finally:
            for queue in list(self._followers):
                self._cut_off(queue)
            await runner.cleanup()


def _line(event: Event) -> bytes:
    return json.dumps(event).encode() + b"\n"


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except SignalingError as error:
        return _problem(error.status, error.title, error.detail)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        detail = error.text or error.reason
        if error.status == 413:
            detail = f"an offer may have {OFFER_BYTES_MOST} bytes"
        return _problem(error.status, error.reason, detail)


def _problem(status: int, title: str, detail: str) -> web.Response:
    body = build_problem(status, title, detail)
    return web.Response(status=status, body=body, content_type=problem.CONTENT_TYPE)
