"""The kernel's flow table, as the agent looks at it: swept, counted by owner, handed over, read.

The kernel learns, moves, heals and removes flows; a dead one that stays for a while does no harm.
So the table, which may hold a million of them, is swept a slice at a time between other work: by
the kernel, when the agent says so. Steering owns it, the edge's loop drives the sweep.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from turnout.kernel.handoff import FlowToMove
from turnout.ownership import Owner
from turnout.wire.mapped_address import parse_mapped

if TYPE_CHECKING:
    from turnout.kernel.maps import Maps, Record

# Some 2 ms, 11,000 flows, in a table that is full.
SLICE_BUCKETS = 2048

# (first bucket, how many) -> the bucket that is next: kernel/sweep.py SweepProgram.run
Sweep = Callable[[int, int], int]
# (hash of the session's ufrag, flow) -> whether it was there: kernel/handoff.py FollowProgram.run
Follow = Callable[[int, FlowToMove], bool]
# (VIP, client address, client port)
Way = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class OwnerFlows:
    """How many flows an owner has; `unclaimed`: healed ones whose session is not known yet."""

    flows: int = 0
    unclaimed: int = 0


class FlowTable:
    """The maps `flows`, `flow_details` and `owner_flows`."""

    def __init__(self, maps: "Maps") -> None:
        self._settings = maps.settings
        self._buckets = maps.flows
        self._details = maps.flow_details
        self._counts = maps.owner_flows
        self._next = 0
        self._counting: tuple[int, ...] = ()
        self._by_owner: Mapping[int, OwnerFlows] = {}

    @property
    def flows(self) -> int:
        """How many flows of living owners the last whole pass of the sweep left in the table."""
        return sum(owner.flows for owner in self._by_owner.values())

    def of_owner(self, slot: int) -> OwnerFlows:
        """Return what that pass counted for one owner."""
        return self._by_owner.get(slot, OwnerFlows())

    def sweep(self, run: Sweep, slots: Iterable[int]) -> bool:
        """Sweep the next slice; True when that was the table's last.

        `slots` are the living owners', who are counted from a pass's beginning to its end.
        """
        if self._next == 0:
            self._counting = tuple(slots)
            for slot in self._counting:
                self._counts.update(slot, {})
        self._next = run(self._next, SLICE_BUCKETS)
        if self._next < self._buckets.max_entries:
            return False
        self._next = 0
        counted = ((slot, self._counts.lookup(slot)) for slot in self._counting)
        self._by_owner = {slot: OwnerFlows(**one) for slot, one in counted if one is not None}
        return True

    def move(
        self, run: Follow, ufrag_hashes: Iterable[int], ways: Iterable[Way], before: Owner
    ) -> int:
        """Have a session's flows follow it from the owner `before`; returns how many did.

        The session's entries, one for each of the hashes, name the new one already.
        """
        record = self._settings.lookup(0) or {"vips": []}
        vips = list(map(parse_mapped, record["vips"]))
        flows = [
            FlowToMove(client, port, vips.index(ip_address(vip)), before.slot, before.generation)
            for vip, client, port in ways
            if ip_address(vip) in vips
        ]
        return sum(run(ufrag_hash, flow) for ufrag_hash in ufrag_hashes for flow in flows)

    def is_held(self, reference: int, ufrag_hash: int, session_id: int) -> bool:
        """Tell whether a flow that a session noted is still its own.

        `reference`: 1 + its index in `flow_details`, as `struct session` notes it; 0 is none.
        """
        if reference == 0:
            return False
        details = self._details.lookup(reference - 1)
        bucket, place = divmod(reference - 1, self._places)
        entries = self._buckets.lookup(bucket)
        return (
            details is not None
            and entries is not None
            and (details["ufrag_hash"], details["session_id"]) == (ufrag_hash, session_id)
            and entries["entry"][place] != 0
        )

    def read(self) -> "Iterator[Record]":
        """Yield every flow: the fields of `struct flow`, its owner's slot and generation, its age.

        `age` is the low byte of the tick of its last sign of life. For tests and for a look at a
        table; a large one takes seconds.
        """
        details = self._details.whole()
        for bucket in self._buckets.whole():
            for entry, age in zip(bucket["entry"], bucket["age"], strict=True):
                flow = next(details)
                # Generation 0: the kernel is about to write it.
                if entry >> 16 & 0xFF:
                    owner = {"slot": entry & 0xFFFF, "generation": entry >> 16 & 0xFF}
                    yield {**flow, "owner": owner, "age": age}

    @property
    def _places(self) -> int:
        """How many entries a bucket has."""
        return self._details.max_entries // self._buckets.max_entries
