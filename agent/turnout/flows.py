"""The sweep of the kernel's flow table: what is over goes, a stretch at a time.

The kernel learns, moves and heals flows and treats one whose sessions entry is gone as ended;
nothing is wrong when a dead flow stays for a while. So the table, which may hold a million flows,
is walked in short steps between other work. Steering owns the sweep, the agent's loop drives it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from turnout.kernel.maps import KernelMap, Record

# A client that sends nothing at all while media flows to it is healed back by egress; a
# consent-checking one dies at 30 s (RFC 7675). Four times that is over.
IDLE_NS = 120 * 10**9
# About 10 us an entry in Python: some 20 ms of the agent's loop.
STEP_FLOWS = 2048


class Living(Protocol):
    """Who tells which sessions and owners are alive: Steering."""

    def live_session(self, ufrag_hash: int) -> int | None:
        """Return the kernel's session id behind a sessions key, or None."""

    def live_generation(self, slot: int) -> int | None:
        """Return the generation of the slot's owner, or None."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one step of the sweep looked at and removed, in flows."""

    looked_at: int = 0
    ended: int = 0  # the session has ended
    stale: int = 0  # the owner is gone or reborn
    idle: int = 0  # the client was silent for IDLE_NS
    complete: bool = False  # the step reached the end of the table


class FlowSweep:
    """A walk through `flows` that goes on where the last step stopped."""

    def __init__(self, flows: "KernelMap", living: Living) -> None:
        self._map = flows
        self._living = living
        self._walk: Iterator[tuple[Any, Record]] | None = None
        self._kept = 0
        self._left = 0
        self.flows = 0
        # Of watched owners: (slot, kernel session id) of every flow, in this pass and the last.
        self._watched: set[int] = set()
        self._found: set[tuple[int, int]] = set()
        self.found: frozenset[tuple[int, int]] = frozenset()

    def watch(self, slot: int) -> None:
        """Find out from now on which sessions of an owner have flows."""
        self._watched.add(slot)

    def step(self, now_ns: int) -> SweepReport:
        """Look at the next STEP_FLOWS flows."""
        if self._walk is None:
            self._walk = iter(self._map.items())
            self._kept = 0
            self._found = set()
            # The walk starts over when the key it stands on is evicted: no longer than a table.
            self._left = self._map.max_entries
        removed: Counter[str] = Counter()
        looked_at = 0
        complete = True
        for key, flow in self._walk:
            looked_at += 1
            reason = self._why_over(flow, now_ns)
            if reason is None:
                self._kept += 1
                if flow["owner"]["slot"] in self._watched:
                    self._found.add((flow["owner"]["slot"], flow["session_id"]))
            elif self._remove(key, now_ns):
                removed[reason] += 1
            self._left -= 1
            if self._left == 0:
                break
            if looked_at == STEP_FLOWS:
                complete = False
                break
        if complete:
            self._walk = None
            self.flows = self._kept
            self.found = frozenset(self._found)
        return SweepReport(
            looked_at, removed["ended"], removed["stale"], removed["idle"], complete=complete
        )

    def _remove(self, key: "Record", now_ns: int) -> bool:
        """Remove a flow that is over, unless the kernel gave the tuple to another meanwhile."""
        taken = self._map.take(key)
        if taken is not None and self._why_over(taken, now_ns) is None:
            self._map.insert(key, taken)
            return False
        return taken is not None

    def _why_over(self, flow: "Record", now_ns: int) -> str | None:
        if flow["ufrag_hash"]:
            session_id = self._living.live_session(flow["ufrag_hash"])
            if session_id is None or session_id != flow["session_id"]:
                return "ended"
        if self._living.live_generation(flow["owner"]["slot"]) != flow["owner"]["generation"]:
            return "stale"
        # The kernel writes alive_ns coarsely and meanwhile, so it may be a little ahead.
        if now_ns - flow["alive_ns"] > IDLE_NS:
            return "idle"
        return None
