"""The WHIP door (RFC 9725): a client's offer in, an answer with one address and one port out.

The walk of a session begins here: pick an owner, let its transceiver answer, make the kernel steer
the answer's ufrag, and only then let the answer leave. The edge serves this application on --http.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web

from turnout.errors import KernelError, SignalingError, SteeringError, UfragInUse, WireError
from turnout.signaling.answer import build_client_answer, parse_upstream_answer
from turnout.signaling.problem import build_problem_middleware, problem
from turnout.signaling.upstream import Upstream, session_location
from turnout.steering import Owner, Session, Steering, mint_session_id
from turnout.wire.sdp import CONTENT_TYPE, SessionDescription

log = logging.getLogger(__name__)

OFFER_MOST_BYTES = 64 * 1024
# Mux-only media servers may pick 4-character ufrags: one in 35 collides among 1,000 sessions, so
# four answers in a row that collide mean something else.
UFRAG_ATTEMPTS = 4
OWNER_ATTEMPTS = 2
PREFLIGHT_MAX_AGE_S = 3600

_DOORS = "POST /whip (an SDP offer as application/sdp), DELETE /whip/<session id>"
_METHODS = {"/whip": "POST, OPTIONS"}
_SESSION_METHODS = "DELETE, OPTIONS"

Advertised = Callable[[], Sequence[tuple[str, int]]]


def build_whip(
    steering: Steering, upstreams: Mapping[int, Upstream], advertised: Advertised
) -> web.Application:
    """Build the application; `advertised` gives (address, shared port), most wanted first.

    `upstreams` is keyed by owner slot.
    """
    door = _Door(steering, upstreams, advertised)
    app = web.Application(
        middlewares=[_allow_browsers, build_problem_middleware(_DOORS)],
        client_max_size=OFFER_MOST_BYTES,
    )
    app.router.add_post("/whip", door.post)
    app.router.add_delete("/whip/{id}", door.delete)
    app.router.add_options("/whip", door.options)
    app.router.add_options("/whip/{id}", door.options)
    return app


class _Door:
    def __init__(
        self, steering: Steering, upstreams: Mapping[int, Upstream], advertised: Advertised
    ) -> None:
        self._steering = steering
        self._upstreams = upstreams
        self._advertised = advertised
        # Offers under way by slot: they are load that steering does not see yet.
        self._under_way: Counter[int] = Counter()

    async def post(self, request: web.Request) -> web.Response:
        """Take an offer, answer 201 with the session's resource and the SDP answer."""
        offer = await _read_offer(request)
        advertised = self._advertised()
        if not advertised:
            raise _unavailable("this edge has no address to advertise now; try again")
        session, answer = await self._start_session(request, offer, advertised)
        return web.Response(
            status=201,
            body=str(answer).encode(),
            content_type=CONTENT_TYPE,
            headers={"Location": session_location(session.id)},
        )

    async def delete(self, request: web.Request) -> web.Response:
        """End a session: the transceiver says goodbye, then nothing is steered any more."""
        session_id = request.match_info["id"]
        session = self._steering.sessions.get(session_id)
        if session is None or session.kind != "upstream":
            return problem(
                404, "No such session", f"session {session_id}: there is none, or it has ended"
            )
        await self._discard(session.slot, session_id)
        # The transceiver's own event may have ended it while we waited.
        if session_id in self._steering.sessions:
            self._steering.remove_session(session_id)
        log.info("session %s: ended, deleted by its client", session_id)
        return web.Response(status=200)

    async def options(self, _request: web.Request) -> web.Response:
        """Say what the endpoint takes (RFC 9725 section 4.2); also every browser's preflight."""
        return web.Response(status=204, headers={"Accept-Post": CONTENT_TYPE})

    async def _start_session(
        self, request: web.Request, offer: str, advertised: Sequence[tuple[str, int]]
    ) -> tuple[Session, SessionDescription]:
        failed: list[int] = []
        collisions = 0
        while True:
            owner = self._pick_owner(failed)
            try:
                return await self._ask(request, owner, offer, advertised)
            except UfragInUse as error:
                collisions += 1
                log.warning("owner %d: its answer cannot be used: %s", owner.slot, error)
                if collisions == UFRAG_ATTEMPTS:
                    raise _unavailable(
                        f"the media server answered {collisions} times with an ICE ufrag that "
                        "another session has; try again"
                    ) from error
            except SignalingError as error:
                if error.status < 500:
                    raise
                failed.append(owner.slot)
                log.warning("owner %d: no session: %s", owner.slot, error)
                if len(failed) == OWNER_ATTEMPTS:
                    raise _unavailable(
                        f"{OWNER_ATTEMPTS} transceivers failed; try again"
                    ) from error

    def _pick_owner(self, failed: Sequence[int]) -> Owner:
        """Return the least loaded owner that has not failed this offer.

        Offers under way count, or a burst would all go to one owner.
        """
        usable = [
            owner
            for owner in self._steering.owners.values()
            if owner.state == "active"
            and owner.kind == "transceiver"
            and owner.slot in self._upstreams
            and owner.slot not in failed
        ]
        if not usable:
            raise _unavailable("no transceiver can take a session now; try again")
        return min(usable, key=lambda owner: (self._load(owner.slot), owner.slot))

    def _load(self, slot: int) -> int:
        return len(self._steering.owner_sessions(slot)) + self._under_way[slot]

    async def _ask(
        self,
        request: web.Request,
        owner: Owner,
        offer: str,
        advertised: Sequence[tuple[str, int]],
    ) -> tuple[Session, SessionDescription]:
        """Have one owner answer, and steer its ufrag; on any error nothing of it stays behind."""
        session_id = mint_session_id()
        self._under_way[owner.slot] += 1
        try:
            reply = await self._upstreams[owner.slot].post_offer(offer, session_id)
            answer, credentials = parse_upstream_answer(reply.body)
            client_answer = build_client_answer(answer, advertised)
            _check_still_there(request)
            session = self._steering.add_session(
                credentials.ufrag,
                credentials.pwd,
                owner.slot,
                session_id=session_id,
                kind="upstream",
            )
        except BaseException as error:
            # Cancellation too: the upstream may have made the session all the same.
            await self._discard(owner.slot, session_id)
            if isinstance(error, KernelError | SteeringError) and not isinstance(error, UfragInUse):
                raise SignalingError(503, "No session", str(error)) from error
            raise
        finally:
            self._under_way[owner.slot] -= 1
        log.info("session %s: owner %d, for %s", session_id, owner.slot, request.remote)
        return session, client_answer

    async def _discard(self, slot: int, session_id: str) -> None:
        """Delete at the upstream; one that cannot be reached ends the session by itself in time."""
        try:
            await self._upstreams[slot].delete(session_location(session_id))
        except SignalingError as error:
            log.warning("session %s: not deleted at owner %d: %s", session_id, slot, error)


async def _read_offer(request: web.Request) -> str:
    if request.content_type != CONTENT_TYPE:
        sent = request.headers.get("Content-Type", "none")
        raise SignalingError(
            415,
            "Unsupported media type",
            f"Content-Type {sent!r}: send the SDP offer as {CONTENT_TYPE}",
        )
    body = await request.read()
    try:
        offer = body.decode()
        SessionDescription.parse(offer)
    except UnicodeDecodeError as error:
        raise SignalingError(400, "Bad offer", f"the body is not UTF-8: {error}") from error
    except WireError as error:
        raise SignalingError(400, "Bad offer", str(error)) from error
    return offer


def _check_still_there(request: web.Request) -> None:
    """Raise SignalingError if the client has hung up: its session would wait for nobody."""
    if request.transport is None or request.transport.is_closing():
        raise SignalingError(499, "Client gone", "the client hung up before it had an answer")


def _unavailable(detail: str) -> SignalingError:
    return SignalingError(503, "No transceiver available", detail)


@web.middleware
async def _allow_browsers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Let a page of any origin call (CORS); there are no cookies here that it could ride on."""
    response = await handler(request)
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = "*"
    headers["Access-Control-Expose-Headers"] = "Location, ETag, Link, Retry-After"
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = _METHODS.get(request.path, _SESSION_METHODS)
        # Reflected, because "*" would not cover Authorization.
        asked = request.headers.get("Access-Control-Request-Headers", "Content-Type")
        headers["Access-Control-Allow-Headers"] = asked
        headers["Access-Control-Max-Age"] = str(PREFLIGHT_MAX_AGE_S)
    return response
