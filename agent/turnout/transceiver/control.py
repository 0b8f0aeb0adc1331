"""The transceiver's control interface: HTTP on a UNIX socket. Started by __main__.py.

POST /whip takes an SDP offer, PATCH /whip/<id> restarts ICE, DELETE /whip/<id> ends a session,
GET /events streams what happens as lines of JSON, GET /status tells everything, PUT /settings
changes VIPs and log level. POST /door lets another transceiver in that hands its sessions over, as
POST /hand-off has it do. Errors are application/problem+json (RFC 9457).
"""

import asyncio
import contextlib
import json
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiohttp import web

from turnout.errors import SignalingError, WireError
from turnout.logs import LOG_LEVELS, set_log_level
from turnout.transceiver.handover import HandOvers
from turnout.transceiver.session import Session
from turnout.transceiver.worker import Worker, no_session
from turnout.wire import problem, sdpfrag
from turnout.wire.problem import build_problem
from turnout.wire.sdp import CONTENT_TYPE
from turnout.wire.sdpfrag import IceFragment

# The most that `limits.sdp_bytes` may be. The edge's door, the one way to here, holds what it is.
OFFER_BYTES_MOST = 1 << 20
ALIVE_SECONDS = 1.0
# A follower that is so many events behind is cut off: it comes back and gets a fresh hello.
_EVENTS_BEHIND_MOST = 10_000
_BACKLOG = 128
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

    def __init__(self, worker: Worker, identity: Identity, hand_overs: HandOvers) -> None:
        self._worker = worker
        self._hand_overs = hand_overs
        self._identity = identity
        self._followers: set[asyncio.Queue[Event | None]] = set()
        worker.on_ended = self._publish_ended
        worker.on_restarted = self._publish_restarted
        self.application = web.Application(
            client_max_size=OFFER_BYTES_MOST, middlewares=[_answer_errors]
        )
        self.application.add_routes(
            [
                web.post("/whip", self._post_whip),
                web.patch("/whip/{id}", self._patch_whip),
                web.delete("/whip/{id}", self._delete_whip),
                web.post("/door", self._post_door),
                web.post("/hand-off", self._post_hand_off),
                web.get("/events", self._get_events),
                web.get("/status", self._get_status),
                web.put("/settings", self._put_settings),
            ]
        )

    async def _post_whip(self, request: web.Request) -> web.Response:
        offer = await _read_text(request, CONTENT_TYPE)
        session_id = request.headers.get("Turnout-Session")
        if session_id is not None and not _SESSION_ID.fullmatch(session_id):
            raise SignalingError(
                400,
                "Bad session id",
                f"Turnout-Session is {session_id!r}: it takes 32 lower-case hex digits",
            )
        session, answer = self._worker.create_session(offer, session_id)
        return web.Response(
            status=201,
            text=answer,
            content_type=CONTENT_TYPE,
            headers={"Location": f"/whip/{session.id}"},
        )

    async def _patch_whip(self, request: web.Request) -> web.Response:
        """Restart ICE. Which generation the client means is for signaling to know, not for us."""
        text = await _read_text(request, sdpfrag.CONTENT_TYPE)
        try:
            remote = IceFragment.parse(text).credentials
        except WireError as error:
            raise SignalingError(400, "Bad fragment", str(error)) from error
        if remote is None:
            raise SignalingError(
                400, "Bad fragment", "an ICE restart needs a=ice-ufrag and a=ice-pwd"
            )
        ours = self._worker.restart_ice(request.match_info["id"], remote)
        if ours is None:
            return web.Response(status=204)
        return web.Response(text=str(ours), content_type=sdpfrag.CONTENT_TYPE)

    async def _delete_whip(self, request: web.Request) -> web.Response:
        session_id = request.match_info["id"]
        if not self._worker.end_session(session_id, "deleted"):
            raise no_session(session_id)
        return web.Response()

    async def _post_door(self, _request: web.Request) -> web.Response:
        return web.json_response(self._hand_overs.open_door(), status=201)

    async def _post_hand_off(self, request: web.Request) -> web.Response:
        """Hand sessions to the transceiver behind a door; see HandOvers.give."""
        try:
            body = await request.json()
            door, secret = str(body["door"]), str(body["secret"])
            sessions = [str(session_id) for session_id in body["sessions"]]
            until = float(body["until"])
        except (ValueError, TypeError, KeyError) as error:
            wanted = '{"door": NAME, "secret": TEXT, "sessions": [ID, ...], "until": SECONDS}'
            raise SignalingError(400, "Bad hand-off", f"{error!r}: send {wanted}") from error
        return web.json_response(await self._hand_overs.give(door, secret, sessions, until=until))

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
        self._publish({"event": "session_ended", "id": session.id, "reason": reason})

    def _publish_restarted(self, session: Session) -> None:
        ufrag = session.ice.newest.local_ufrag
        self._publish({"event": "ice_restarted", "id": session.id, "ufrag": ufrag})

    def _publish(self, event: Event) -> None:
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
                "handshakes": len(worker.handshakes),
                "counters": worker.counters.as_dict(),
            }
        )

    async def _put_settings(self, request: web.Request) -> web.Response:
        """Take what changes while we live; see `_read_settings`."""
        vips, log_level, handshakes = await _read_settings(request)
        try:
            self._worker.set_vips(vips)
        except OSError as error:
            raise SignalingError(409, "VIP cannot be served", str(error)) from error
        set_log_level(log_level)
        held = self._worker.handshakes
        held.most = handshakes or held.most
        return web.json_response(
            {"vips": self._worker.vips, "log_level": log_level, "handshakes": held.most}
        )

    @contextlib.asynccontextmanager
    async def serve(self, listener: socket.socket) -> AsyncIterator[None]:
        """Serve on what `listen_at` opened while the context lasts; it is closed then."""
        runner = web.AppRunner(self.application, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield
        finally:
            for queue in list(self._followers):
                self._cut_off(queue)
            await runner.cleanup()


def listen_at(path: Path) -> socket.socket:
    """Open the UNIX socket at `path`, for this user alone if umask says so. Raises OSError.

    A predecessor's may be there and is replaced: one supervisor runs one transceiver of a slot.
    """
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


async def _read_text(request: web.Request, content_type: str) -> str:
    if request.content_type != content_type:
        raise SignalingError(
            415,
            "Unsupported media type",
            f"the body is {request.content_type}: send {content_type}",
        )
    try:
        return (await request.read()).decode()
    except UnicodeDecodeError as error:
        raise SignalingError(400, "Bad body", f"SDP is UTF-8: {error}") from error


async def _read_settings(request: web.Request) -> tuple[list[str], str, int]:
    """Read {"vips": [...], "log_level": "info", "handshakes": 100}; 0 where the last is left out.

    Raises SignalingError (400).
    """
    try:
        body = await request.json()
        vips = [str(ip_address(vip)) for vip in body["vips"]]
        log_level = body["log_level"]
        handshakes = body.get("handshakes", 0)
        wrong = not vips or log_level not in LOG_LEVELS
        if wrong or type(handshakes) is not int or handshakes < 0:
            raise ValueError(  # noqa: TRY301
                f"{len(vips)} vips, log_level {log_level!r}, handshakes {handshakes!r}"
            )
    except (ValueError, TypeError, KeyError) as error:
        wanted = (
            f'{{"vips": [ADDRESS, ...], "log_level": one of {", ".join(LOG_LEVELS)}, '
            '"handshakes": 1 or more}'
        )
        raise SignalingError(400, "Bad settings", f"{error!r}: send {wanted}") from error
    return vips, log_level, handshakes


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
