"""An ICE restart at the WHIP door (RFC 9725 section 4.3.3): new credentials, the same session.

A restart that fails anywhere leaves the session as it was: the client goes on with the credentials
it has.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

from turnout.errors import KernelError, SignalingError, SteeringError, UnknownSession, WireError
from turnout.signaling.offer_taker import OfferTaker
from turnout.steering import Session, Steering
from turnout.wire.sdp import build_host_candidates
from turnout.wire.sdpfrag import IceFragment

log = logging.getLogger(__name__)

_TAG = re.compile(r'(W/)?"([^"]*)"')


def build_etag(session: Session) -> str:
    """Build the entity-tag of a session's ICE generation (RFC 9725 section 4.3.1).

    Made of what the transceiver knows, so that it outlives the agent.
    """
    digest = hashlib.sha256(f"{session.id}:{session.newest_ufrag}".encode()).hexdigest()
    return f'"{digest[:16]}"'


def matches_any(if_match: str) -> bool:
    """Tell whether If-Match is the asterisk; RFC 9725's own example puts it in quotes."""
    return if_match.strip() in {"*", '"*"'}


def matches_etag(if_match: str, etag: str) -> bool:
    """Tell whether If-Match names the tag; a weak one never does (RFC 9110 section 13.1.1)."""
    return any(not weak and f'"{tag}"' == etag for weak, tag in _TAG.findall(if_match))


class Restarts:
    """Restarts ICE, one at a time for each session."""

    def __init__(self, steering: Steering, upstreams: Mapping[int, OfferTaker]) -> None:
        self._steering = steering
        self._upstreams = upstreams
        # Of two at once the later must be the later everywhere: at the upstream and in the map.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def restart(
        self, session: Session, fragment: IceFragment, advertised: Sequence[tuple[str, int]]
    ) -> IceFragment | None:
        """Restart ICE with the client's new credentials; returns what the client is told.

        None if they are those it has: then nothing was restarted. The kernel steers the new ufrag
        when this returns. Raises SignalingError.
        """
        if fragment.credentials is None:
            raise SignalingError(
                400,
                "Bad fragment",
                "If-Match: * restarts ICE, and that needs a=ice-ufrag and a=ice-pwd, both new",
            )
        lock = self._locks.setdefault(session.id, asyncio.Lock())
        async with lock:
            text = await self._ask(session.id, session.slot, str(fragment))
            if text is None:
                return None
            return self._steer(session.id, text, advertised)

    async def _ask(self, session_id: str, slot: int, fragment: str) -> str | None:
        while True:
            try:
                return await self._upstreams[slot].restart(session_id, fragment)
            except SignalingError as error:
                session = self._steering.sessions.get(session_id)
                if error.status != 410 or session is None or session.slot == slot:
                    raise
                slot = session.slot  # it was handed over meanwhile

    async def trickle(self, session: Session, fragment: IceFragment) -> None:
        """Pass the client's candidates on, to who can use them. Raises SignalingError."""
        await self._upstreams[session.slot].trickle(session.id, str(fragment))

    def _steer(
        self, session_id: str, text: str, advertised: Sequence[tuple[str, int]]
    ) -> IceFragment:
        try:
            answer = IceFragment.parse(text)
        except WireError as error:
            raise _failed(502, f"the media server's fragment: {error}") from error
        if answer.credentials is None:
            raise _failed(502, "the media server's fragment has no ICE credentials")
        try:
            self._steering.add_restart(session_id, *answer.credentials)
        except UnknownSession as error:
            raise SignalingError(410, "Session ended", f"{error}; POST a new offer") from error
        except (KernelError, SteeringError) as error:
            raise _failed(503, str(error)) from error
        log.info("session %s: ICE restarts, ufrag %s", session_id, answer.credentials.ufrag)
        return IceFragment(
            credentials=answer.credentials,
            candidates=tuple(build_host_candidates(advertised)),
            is_complete=True,
            is_lite=answer.is_lite,
            mid=answer.mid,
        )


def _failed(status: int, reason: str) -> SignalingError:
    return SignalingError(status, "ICE not restarted", f"{reason}; the call goes on as it was")
