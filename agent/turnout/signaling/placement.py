"""Where a session is placed: an owner is picked, its media server answers, the kernel steers.

The heart of the WHIP door, without HTTP: whip.py brings an offer and takes the answer away.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from turnout.errors import KernelError, SignalingError, SteeringError, UfragInUse
from turnout.signaling.answer import build_client_answer, parse_upstream_answer
from turnout.signaling.offer_taker import OfferTaker, session_location
from turnout.steering import Owner, Session, Steering, mint_session_id
from turnout.wire.sdp import SessionDescription

log = logging.getLogger(__name__)

# Mux-only media servers may pick 4-character ufrags: one in 35 collides among 1,000 sessions, so
# four answers in a row that collide mean something else.
UFRAG_ATTEMPTS = 4
OWNER_ATTEMPTS = 2

Advertised = Callable[[], Sequence[tuple[str, int]]]


class Placement:
    """Places offers on owners; `upstreams` is keyed by owner slot."""

    def __init__(
        self, steering: Steering, upstreams: Mapping[int, OfferTaker], advertised: Advertised
    ) -> None:
        self._steering = steering
        self._upstreams = upstreams
        self._advertised = advertised
        # Offers under way by slot: they are load that steering does not see yet.
        self._under_way: Counter[int] = Counter()

    def advertised(self) -> Sequence[tuple[str, int]]:
        """Return what clients are told, most wanted first. Raises SignalingError (503)."""
        advertised = self._advertised()
        if not advertised:
            raise unavailable("this edge has no address to advertise now; try again")
        return advertised

    async def place(
        self, offer: str, is_gone: Callable[[], bool]
    ) -> tuple[Session, SessionDescription]:
        """Start a session; the kernel steers it when this returns, with the client's answer.

        `is_gone` tells whether the client has hung up: its session would wait for nobody. Raises
        SignalingError: below 500 the offer is to blame.
        """
        advertised = self.advertised()
        try:
            self._steering.check_room()
        except SteeringError as error:
            raise unavailable(str(error)) from error
        failed: list[int] = []
        collisions = 0
        while True:
            owner = self._pick_owner(failed)
            try:
                return await self._ask(owner, offer, advertised, is_gone)
            except UfragInUse as error:
                collisions += 1
                log.warning("owner %d: its answer cannot be used: %s", owner.slot, error)
                if collisions == UFRAG_ATTEMPTS:
                    raise unavailable(
                        f"the media server answered {collisions} times with an ICE ufrag that "
                        "another session has; try again"
                    ) from error
            except SignalingError as error:
                if error.status < 500:
                    raise
                failed.append(owner.slot)
                log.warning("owner %d: no session: %s", owner.slot, error)
                if len(failed) == OWNER_ATTEMPTS:
                    raise unavailable(f"{OWNER_ATTEMPTS} transceivers failed; try again") from error

    def _pick_owner(self, failed: Sequence[int]) -> Owner:
        """Return the owner that is least loaded for its weight and has not failed this offer.

        Offers under way count, or a burst would all go to one owner.
        """
        usable = [
            owner
            for owner in self._steering.owners.values()
            if owner.state == "active"
            and owner.kind in {"transceiver", "upstream"}
            and owner.slot in self._upstreams
            and owner.slot not in failed
        ]
        if not usable and self._steering.drained.issuperset(self._upstreams):
            raise unavailable("this edge is drained: it takes no new sessions; try again")
        if not usable:
            raise unavailable("no transceiver can take a session now; try again")
        return min(usable, key=lambda owner: (self._load(owner.slot), owner.slot))

    def _load(self, slot: int) -> float:
        """Return what the owner would carry with one session more, by its weight."""
        sessions = len(self._steering.owner_sessions(slot)) + self._under_way[slot] + 1
        return sessions / self._upstreams[slot].weight

    async def _ask(
        self,
        owner: Owner,
        offer: str,
        advertised: Sequence[tuple[str, int]],
        is_gone: Callable[[], bool],
    ) -> tuple[Session, SessionDescription]:
        """Have one owner answer, and steer its ufrag; on any error nothing of it stays behind."""
        session_id = mint_session_id()
        self._under_way[owner.slot] += 1
        try:
            reply = await self._upstreams[owner.slot].post_offer(offer, session_id)
            answer, credentials = parse_upstream_answer(reply.body)
            client_answer = build_client_answer(answer, advertised)
            _check_still_there(is_gone)
            session = self._steering.add_session(
                credentials.ufrag,
                credentials.pwd,
                owner.slot,
                session_id=session_id,
                kind="upstream",
            )
        except BaseException as error:
            # Cancellation too: the upstream may have made the session all the same.
            await self.discard(owner.slot, session_id)
            if isinstance(error, KernelError | SteeringError) and not isinstance(error, UfragInUse):
                raise SignalingError(503, "No session", str(error)) from error
            raise
        finally:
            self._under_way[owner.slot] -= 1
        return session, client_answer

    async def discard(self, slot: int, session_id: str) -> None:
        """Delete at the upstream; one that cannot be reached ends the session by itself in time."""
        try:
            await self._upstreams[slot].delete(session_location(session_id))
        except SignalingError as error:
            log.warning("session %s: not deleted at owner %d: %s", session_id, slot, error)


def unavailable(detail: str) -> SignalingError:
    """Return the error for a client that should come again."""
    return SignalingError(503, "No transceiver available", detail)


def _check_still_there(is_gone: Callable[[], bool]) -> None:
    if is_gone():  # nobody will read this
        raise SignalingError(499, "Client gone", "the client hung up before it had an answer")
