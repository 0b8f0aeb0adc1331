"""Hot hand-off: live calls go from one of our transceivers to another, unseen by their clients.

The order matters: the transceivers move the state between them (it is never in
two places, and never in none that could be reached: what still comes to the old owner it forwards),
then the kernel's sessions entries change owner, then the flows. The local API starts it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from turnout.errors import SignalingError, SteeringError, UnknownOwner, UnknownSession
from turnout.flows import Follow
from turnout.signaling.ended import EndedSessions
from turnout.signaling.offer_taker import session_location
from turnout.signaling.upstream import Door, Upstream
from turnout.steering import Session, Steering

log = logging.getLogger(__name__)

Report = dict[str, Any]


class HandOffs:
    """Moves the sessions of one of our transceivers to others, by slot."""

    def __init__(
        self,
        steering: Steering,
        upstreams: Mapping[int, Upstream],
        follow: Follow,
        ended: EndedSessions,
    ) -> None:
        self._steering = steering
        self._upstreams = upstreams
        self._follow = follow
        self._ended = ended
        # One at a time: two that move the same calls would not know what the other has done.
        self._lock = asyncio.Lock()

    async def move_all(self, slot: int, to: int | None = None) -> Report:
        """Move every session of `slot` that can be moved, to `to` or to who has the fewest.

        Returns {"slot", "moved": how many, "stayed": [{"id", "reason"}], "lost": [the same]}: what
        stays lives on where it is, what is lost has ended. Raises UnknownOwner; SteeringError where
        there is nobody to give or take.
        """
        source = self._upstreams.get(slot)
        if slot not in self._steering.owners:
            raise UnknownOwner(f"owner {slot}: no owner has that slot")
        if source is None:
            raise SteeringError(f"owner {slot}: only this edge's own transceivers hand calls over")
        self._takers(slot, to)
        doors: dict[int, Door] = {}
        report: Report = {"slot": slot, "moved": 0, "stayed": [], "lost": []}
        async with self._lock:
            for session in self._steering.owner_sessions(slot):
                kind, reason = await self._move_or_leave(session, source, to, doors)
                if kind == "moved":
                    report["moved"] += 1
                elif kind in report:
                    report[kind].append({"id": session.id, "reason": reason})
        log.info(
            "owner %d: %d sessions handed over, %d stayed, %d lost",
            slot,
            report["moved"],
            len(report["stayed"]),
            len(report["lost"]),
        )
        return report

    def _takers(self, slot: int, to: int | None) -> list[int]:
        """Return the slots that may take sessions; raises SteeringError if there are none."""
        usable = [
            owner.slot
            for owner in self._steering.owners.values()
            if owner.state == "active" and owner.slot in self._upstreams and owner.slot != slot
        ]
        if to is not None and to not in usable:
            raise SteeringError(f"owner {to}: it is not another active transceiver of this edge")
        if not usable:
            raise SteeringError(f"owner {slot}: no other transceiver of this edge is active")
        return usable if to is None else [to]

    def _load(self, slot: int) -> int:
        return len(self._steering.owner_sessions(slot))

    async def _move_or_leave(
        self, session: Session, source: Upstream, to: int | None, doors: dict[int, Door]
    ) -> tuple[str, str]:
        """Move one to whoever takes it now; returns what `_move` does. `doors` are open ones."""
        if session.id not in self._steering.sessions:
            return "ended", ""  # while others were moved
        try:
            taker = min(self._takers(source.slot, to), key=self._load)
            if taker not in doors:
                doors[taker] = await self._upstreams[taker].open_door()
            with source.leaving(session.id):
                kind, reason = await self._move(session, source, taker, doors[taker])
        except (SignalingError, SteeringError) as error:
            return "stayed", str(error)
        if kind == "lost":
            del doors[taker]  # what was behind it is away, or does not answer
        return kind, reason

    async def _move(
        self, session: Session, source: Upstream, taker: int, door: Door
    ) -> tuple[str, str]:
        """Move one; returns moved, stayed, lost or ended, and why."""
        upstream = self._upstreams[taker]
        with upstream.expecting(session.id) as has_ended:
            try:
                outcome = await source.hand_off(door, session.id)
            except SignalingError as error:
                outcome = ("lost", str(error), ())
            kind, reason, flows = outcome
            if kind == "stayed":
                return kind, reason
            is_wanted = session.id in self._steering.sessions
            if kind == "moved" and is_wanted and not has_ended():
                followed = self._steering.hand_over(session.id, taker, flows, self._follow)
                log.info("session %s: owner %d, %d flows moved", session.id, taker, followed)
                return "moved", ""
        if kind == "lost" or not is_wanted:
            # Where it went nobody knows for sure; and a client that has deleted it wants none.
            with contextlib.suppress(SignalingError):
                await upstream.delete(session_location(session.id))
        if is_wanted:
            with contextlib.suppress(UnknownSession):
                self._steering.remove_session(session.id)
            self._ended.remember(session.id, "handed_over" if kind == "lost" else "bye")
        return ("lost", reason) if kind == "lost" else ("ended", "")
