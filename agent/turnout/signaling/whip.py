"""The WHIP door (RFC 9725): a client's offer in, an answer with one address and one port out.

The walk of a session begins here: placement.py picks an owner, lets its transceiver answer and
makes the kernel steer; only then the answer leaves. restart.py does the same for an ICE restart.
The edge serves this application on --http.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

import aiohttp
from aiohttp import web

from turnout.errors import SignalingError, WireError
from turnout.signaling.ended import EndedSessions
from turnout.signaling.guard import allow_browsers, build_guard, client_of
from turnout.signaling.offer_taker import OfferTaker, session_location
from turnout.signaling.page import add_page
from turnout.signaling.placement import Advertised, Placement
from turnout.signaling.policy import WhipPolicy, build_links
from turnout.signaling.problem import build_problem_middleware
from turnout.signaling.restart import Restarts, build_etag, matches_any, matches_etag
from turnout.steering import Session, Steering
from turnout.wire import sdpfrag
from turnout.wire.sdp import CONTENT_TYPE, SessionDescription
from turnout.wire.sdpfrag import IceFragment

log = logging.getLogger(__name__)

BODY_PATIENCE_S = 30.0

_DOORS = (
    "POST /whip (an SDP offer as application/sdp), PATCH /whip/<session id> (a fragment as "
    "application/trickle-ice-sdpfrag), DELETE /whip/<session id>"
)
# What a path takes, in Allow and for a browser's preflight.
_METHODS = "GET, HEAD, OPTIONS, POST"
_SESSION_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH"


def build_whip(
    steering: Steering,
    upstreams: Mapping[int, OfferTaker],
    advertised: Advertised,
    policy: Callable[[], WhipPolicy] = WhipPolicy,
    ended: EndedSessions | None = None,
) -> web.Application:
    """Build the application; `advertised` gives (address, shared port), most wanted first.

    `upstreams` is keyed by owner slot. `policy` returns what holds now. `ended` is where upstreams
    leave the sessions that ended on their side.
    """
    door = _Door(steering, upstreams, advertised, policy, ended or EndedSessions())
    app = web.Application(
        middlewares=[
            allow_browsers,
            build_problem_middleware(_DOORS),
            build_guard(policy, _is_of_the_page),
        ],
    )
    app.router.add_post("/whip", door.post)
    app.router.add_get("/whip", door.get)
    app.router.add_options("/whip", door.options)
    app.router.add_patch("/whip/{id}", door.patch)
    app.router.add_delete("/whip/{id}", door.delete)
    app.router.add_get("/whip/{id}", door.get_session)
    app.router.add_options("/whip/{id}", door.options_session)
    add_page(app)
    return app


def _is_of_the_page(path: str) -> bool:
    return path == "/" or path.startswith("/page/")


class _Door:
    def __init__(
        self,
        steering: Steering,
        upstreams: Mapping[int, OfferTaker],
        advertised: Advertised,
        policy: Callable[[], WhipPolicy],
        ended: EndedSessions,
    ) -> None:
        self._steering = steering
        self._policy = policy
        self._ended = ended
        self._placement = Placement(steering, upstreams, advertised)
        self._restarts = Restarts(steering, upstreams)

    async def post(self, request: web.Request) -> web.Response:
        """Take an offer, answer 201 with the session's resource and the SDP answer."""
        offer = await _read_offer(request, self._policy().sdp_bytes)
        session, answer = await self._placement.place(offer, lambda: _is_gone(request))
        policy = self._policy()
        client = client_of(request, policy)
        log.info("session %s: owner %d, for %s", session.id, session.slot, client)
        response = web.Response(status=201, body=str(answer).encode(), content_type=CONTENT_TYPE)
        # Relative (RFC 9110 section 10.2.2): scheme and host are those the client asked, which
        # behind a proxy only the client knows.
        response.headers["Location"] = session_location(session.id)
        response.headers["ETag"] = build_etag(session)
        response.headers["Accept-Patch"] = sdpfrag.CONTENT_TYPE
        for link in build_links(policy.ice_servers):
            response.headers.add("Link", link)
        return response

    async def patch(self, request: web.Request) -> web.Response:
        """Take candidates of the client (204), or restart ICE (200 with our new half)."""
        session = self._find(request)
        _check_content_type(request, sdpfrag.CONTENT_TYPE)
        wanted = request.headers.get("If-Match")
        if wanted is None:
            raise SignalingError(
                428,
                "If-Match is missing",
                "name the ICE session with If-Match: the ETag of the latest 201 or 200 for "
                "candidates, * for an ICE restart",
            )
        is_restart = matches_any(wanted)
        if not is_restart and not matches_etag(wanted, build_etag(session)):
            raise SignalingError(
                412,
                "Another ICE session",
                f"If-Match is {wanted[:80]}, the session's ETag is {build_etag(session)}: ICE was "
                "restarted meanwhile; restart it again with If-Match: *",
            )
        fragment = await _read_fragment(request, self._policy().sdp_bytes)
        if is_restart:
            advertised = self._placement.advertised()
            answer = await self._restarts.restart(session, fragment, advertised)
            if answer is not None:
                return web.Response(
                    body=str(answer).encode(),
                    content_type=sdpfrag.CONTENT_TYPE,
                    headers={"ETag": build_etag(self._find(request))},
                )
        else:
            await self._restarts.trickle(session, fragment)
        return web.Response(status=204)

    async def delete(self, request: web.Request) -> web.Response:
        """End a session: the transceiver says goodbye, then nothing is steered any more."""
        session = self._find(request)
        slot = -1
        # While we wait its own event may end it, and it may be handed over.
        while (known := self._steering.sessions.get(session.id)) and known.slot != slot:
            slot = known.slot
            await self._placement.discard(slot, session.id)
        if session.id in self._steering.sessions:
            self._steering.remove_session(session.id)
        self._ended.forget(session.id)
        log.info("session %s: ended, deleted by its client", session.id)
        return web.Response(status=200)

    async def get(self, _request: web.Request) -> web.Response:
        """Answer GET and HEAD with nothing: there is no representation (RFC 9725 section 4.1)."""
        return web.Response(status=204)

    async def get_session(self, request: web.Request) -> web.Response:
        """Answer the same for a session that lives."""
        self._find(request)
        return web.Response(status=204)

    async def options(self, _request: web.Request) -> web.Response:
        """Say what the endpoint takes (RFC 9725 section 4.2); also every browser's preflight."""
        return web.Response(headers={"Allow": _METHODS, "Accept-Post": CONTENT_TYPE})

    async def options_session(self, _request: web.Request) -> web.Response:
        """Say what a session takes; not whether there is one: a preflight has no token."""
        return web.Response(
            headers={"Allow": _SESSION_METHODS, "Accept-Patch": sdpfrag.CONTENT_TYPE}
        )

    def _find(self, request: web.Request) -> Session:
        """Return the session a request is about. Raises SignalingError (404, 410)."""
        session_id = request.match_info["id"]
        session = self._steering.sessions.get(session_id)
        if session is not None and session.kind == "upstream":
            return session
        reason = self._ended.why(session_id)
        if reason is not None:
            raise SignalingError(
                410, "Session ended", f"session {session_id} has ended: {reason}; POST a new offer"
            )
        raise SignalingError(
            404, "No such session", f"session {session_id}: there is none, or it has ended"
        )


async def _read_offer(request: web.Request, most: int) -> str:
    _check_content_type(request, CONTENT_TYPE)
    offer = await _read_text(request, "Bad offer", most)
    try:
        SessionDescription.parse(offer)
    except WireError as error:
        raise SignalingError(400, "Bad offer", str(error)) from error
    return offer


async def _read_fragment(request: web.Request, most: int) -> IceFragment:
    text = await _read_text(request, "Bad fragment", most)
    try:
        return IceFragment.parse(text)
    except WireError as error:
        raise SignalingError(400, "Bad fragment", str(error)) from error


def _check_content_type(request: web.Request, wanted: str) -> None:
    if request.content_type != wanted:
        sent = request.headers.get("Content-Type", "none")
        raise SignalingError(
            415, "Unsupported media type", f"Content-Type {sent!r}: send the body as {wanted}"
        )


async def _read_text(request: web.Request, title: str, most: int) -> str:
    if "Content-Encoding" in request.headers:
        encoding = request.headers["Content-Encoding"]
        raise SignalingError(415, title, f"Content-Encoding {encoding!r}: send the body as it is")
    too_large = SignalingError(
        413,
        "Too large",
        f"the body is larger than {most} bytes, which is the most that is taken (limits.sdp_bytes)",
    )
    if (request.content_length or 0) > most:
        raise too_large
    body = b""
    try:
        async with asyncio.timeout(BODY_PATIENCE_S):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        raise SignalingError(
            408, "Too slow", f"the body did not arrive within {BODY_PATIENCE_S:g} s; send it again"
        ) from error
    except (ConnectionError, aiohttp.ClientPayloadError, web.RequestPayloadError) as error:
        raise SignalingError(400, title, f"the body did not arrive: {error}") from error
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise SignalingError(400, title, f"the body is not UTF-8: {error}") from error


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
