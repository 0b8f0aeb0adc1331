"""Drains: an owner takes no new sessions, those it has live on, and at a deadline they are ended.

Steering refuses the new ones; here is the deadline, the end of what remains then, and the memory of
both, in a file of the runtime directory, for the agent that comes after this one. A drain belongs
to one generation of its owner: who comes back in the slot is not drained. The local API starts
and lifts drains; the edge runs the task.
"""

import asyncio
import contextlib
import json
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from turnout.errors import SignalingError, SteeringError, UnknownSession
from turnout.files import write_whole
from turnout.signaling.ended import EndedSessions
from turnout.signaling.offer_taker import OfferTaker, session_location
from turnout.steering import Session, Steering

log = logging.getLogger(__name__)

STEP_S = 0.5
# Sessions that are ended at once: a transceiver that hangs costs each of them its timeout.
ENDED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class Drain:
    """A drain of one owner. It stands, done or not, until it is lifted or the owner goes."""

    slot: int
    generation: int
    deadline_s: float  # monotonic: since the boot, the same for every process
    ended: str = ""  # empty or deadline, once it is done
    sessions_ended: int = 0  # by the deadline


_KINDS = {"slot": int, "generation": int, "deadline_s": float, "ended": str, "sessions_ended": int}


class Drains:
    """The drains of one edge by slot."""

    def __init__(
        self,
        steering: Steering,
        takers: Mapping[int, OfferTaker],
        ended: EndedSessions,
        path: Path,
    ) -> None:
        """Go on with the drains that `path` holds, where their owners are still the same.

        `takers` are the media servers that are told of the end of a session, by slot.
        """
        self._steering = steering
        self._takers = takers
        self._ended = ended
        self._path = path
        self._drains: dict[int, Drain] = {}
        self.ended: Counter[str] = Counter()
        self.sessions_ended = 0
        for drain in _read(path):
            if self._holds(drain):
                self._drains[drain.slot] = drain
                steering.set_drained(drain.slot, is_drained=True)

    def start(self, slot: int, seconds: float) -> dict[str, Any]:
        """Drain an owner, or give its drain another deadline. Returns its description.

        Raises UnknownOwner; SteeringError for an owner that is down.
        """
        owner = self._steering.owners.get(slot)
        if owner is not None and owner.state == "down":
            raise SteeringError(f"owner {slot}: it is down and has no sessions to wait for")
        self._steering.set_drained(slot, is_drained=True)
        generation = self._steering.owners[slot].generation
        drain = Drain(slot, generation, time.monotonic() + seconds)
        log.info("owner %d: drains for up to %.0f s, %d sessions", slot, seconds, self._left(slot))
        self._keep(drain)
        if self._left(slot) == 0:
            drain = self._finish(drain, "empty")
        return self._describe(drain)

    def lift(self, slot: int) -> dict[str, Any]:
        """Have an owner take sessions again. Raises UnknownOwner, SteeringError if none drains it.

        What the deadline has ended stays ended.
        """
        drain = self._drains.get(slot)
        if drain is None:
            self._steering.set_drained(slot, is_drained=False)
            raise SteeringError(f"owner {slot}: nobody drains it")
        drain = self._forget(drain, "undrained")
        self._steering.set_drained(slot, is_drained=False)
        log.info("owner %d: is drained no more, %d sessions", slot, self._left(slot))
        return self._describe(drain)

    def describe(self) -> list[dict[str, Any]]:
        """Return every drain: slot, sessions and seconds left, how it ended ("": not yet)."""
        return [self._describe(drain) for _, drain in sorted(self._drains.items())]

    async def run(self) -> None:
        """End drains that are empty or whose time is up, for ever."""
        while True:
            await self.step(time.monotonic())
            await asyncio.sleep(STEP_S)

    async def step(self, now: float) -> None:
        """Look at every drain once; `now` is monotonic seconds."""
        for drain in list(self._drains.values()):
            if not self._holds(drain):
                log.info(
                    "owner %d: its drain is over, the owner that was drained has gone", drain.slot
                )
                self._forget(drain, "owner_gone")
            elif drain.ended:
                continue
            elif self._left(drain.slot) == 0:
                self._finish(drain, "empty")
            elif now >= drain.deadline_s and self._has_spoken(drain.slot):
                await self._end_sessions(drain)

    def _holds(self, drain: Drain) -> bool:
        owner = self._steering.owners.get(drain.slot)
        return owner is not None and owner.generation == drain.generation

    def _left(self, slot: int) -> int:
        steering = self._steering
        return len(steering.owner_sessions(slot)) + len(steering.unconfirmed_of(slot))

    def _has_spoken(self, slot: int) -> bool:
        """Tell whether an owner with a media server of its own has named its sessions.

        After an agent's start that takes a moment; one that never does is soon seen to be down.
        """
        return slot not in self._takers or slot in self._steering.confirmed

    async def _end_sessions(self, drain: Drain) -> None:
        sessions = self._steering.owner_sessions(drain.slot)
        log.warning(
            "owner %d: its drain is over, %d sessions end", drain.slot, self._left(drain.slot)
        )
        count = 0
        for first in range(0, len(sessions), ENDED_AT_ONCE):
            part = sessions[first : first + ENDED_AT_ONCE]
            count += sum(await asyncio.gather(*map(self._end, part)))
            if self._drains.get(drain.slot) is not drain:
                break  # lifted, or another deadline
        else:
            for session_id in self._steering.unconfirmed_of(drain.slot):
                self._steering.remove_session(session_id)
                count += 1
            self._finish(replace(drain, sessions_ended=count), "deadline")
        self.sessions_ended += count

    async def _end(self, session: Session) -> bool:
        """End a session as if its client had asked for it, and tell the client that it did not.

        False if it lives on: it was handed over meanwhile.
        """
        taker = self._takers.get(session.slot)
        if taker is not None and session.kind == "upstream":
            try:
                await taker.delete(session_location(session.id))
            except SignalingError as error:
                log.warning("session %s: not deleted: %s", session.id, error)
        known = self._steering.sessions.get(session.id)
        if known is not None and known.slot != session.slot:
            return False
        # The transceiver's own event may have ended it while we waited.
        with contextlib.suppress(UnknownSession):
            self._steering.remove_session(session.id)
        self._ended.remember(session.id, "drained")
        log.info("session %s: ended, its owner was drained", session.id)
        return True

    def _finish(self, drain: Drain, reason: str) -> Drain:
        log.info("owner %d: drained, %s", drain.slot, reason)
        self.ended[reason] += 1
        return self._keep(replace(drain, ended=reason))

    def _forget(self, drain: Drain, reason: str) -> Drain:
        if not drain.ended:
            self.ended[reason] += 1
        del self._drains[drain.slot]
        self._write()
        return drain if drain.ended else replace(drain, ended=reason)

    def _keep(self, drain: Drain) -> Drain:
        self._drains[drain.slot] = drain
        self._write()
        return drain

    def _describe(self, drain: Drain) -> dict[str, Any]:
        return {
            "slot": drain.slot,
            "sessions": self._left(drain.slot),
            "seconds_left": 0 if drain.ended else self._seconds_left(drain),
            "ended": drain.ended,
            "sessions_ended": drain.sessions_ended,
        }

    def _seconds_left(self, drain: Drain) -> int:
        return max(0, math.ceil(drain.deadline_s - time.monotonic()))

    def _write(self) -> None:
        write_whole(self._path, json.dumps([asdict(drain) for drain in self._drains.values()]))


def _parse(record: dict[str, Any]) -> Drain:
    drain = Drain(**record)
    if not all(isinstance(getattr(drain, name), kind) for name, kind in _KINDS.items()):
        raise TypeError(f"{record!r:.200} is no drain")
    return drain


def _read(path: Path) -> list[Drain]:
    try:
        return [_parse(record) for record in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        log.warning("%s cannot be read, nobody is drained any more: %s", path, error)
        return []
