"""Where a flow stands: two buckets of seven places, named by a keyed hash; and meters of rates.

Time is the tick, 2**30 ns. An age is the tick's low byte, so silence is known up to 247 ticks, and
an age that is up to 8 ticks ahead of the clock (another CPU's) counts as no silence.
"""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

PLACES = 7
METERS = 8192
WORD = (1 << 64) - 1
FIRST_BUCKET_ROOM = 5
MOVABLE_TICKS = 6
EVICTABLE_TICKS = 28
IDLE_TICKS = 112
AHEAD_TICKS = 8


class FlowKey(NamedTuple):
    """Who sends to which VIP; the VIP by its index in the settings."""

    client: bytes
    port: int
    vip: int


class OwnerId(NamedTuple):
    """A transceiver, and which of those that had its slot."""

    slot: int
    generation: int


@dataclass(slots=True)
class Flow:
    """One place that is taken.

    `proven`: the owner has sent media to the tuple, so there is a client. `session` 0: healed,
    whose it is nobody has said. `displaced`: lower half of the id of the living session that lost
    the tuple to this one.
    """

    tag: int
    key: FlowKey
    owner: OwnerId
    age: int
    proven: bool = False
    session: int = 0
    ufrag_hash: int = 0
    displaced: int = 0


def hash_flow(keys: tuple[int, ...], key: FlowKey) -> int:
    """Multiply, add, and mix as MurmurHash3 ends."""
    port = key.port >> 8 | (key.port & 0xFF) << 8  # as it stands in a little-endian memory
    words = (*struct.unpack("<4I", key.client), port | key.vip << 16)
    h: int = sum(k * word for k, word in zip(keys, words, strict=False)) + keys[5] & WORD
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ h >> 33) * multiplier & WORD
    return h ^ h >> 33


def tag_of(flow_hash: int) -> int:
    """Return the 39 bits by which a place knows its flow; never 0, which is an empty place."""
    return flow_hash & (1 << 39) - 1 or 1


def silent_ticks(tick: int, age: int) -> int:
    """Return how long ago a sign of life was."""
    return max((tick + AHEAD_TICKS - age) % 256 - AHEAD_TICKS, 0)


@dataclass(slots=True)
class FlowTable:
    """`flows` by place: bucket * 7 + place in it. `touched`: places looked at or written."""

    buckets: int
    flows: dict[int, Flow] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)

    def places(self, flow_hash: int) -> list[int]:
        """Return the fourteen places where a flow may stand, in order."""
        first = (flow_hash >> 32) * self.buckets >> 32
        second = (flow_hash * 0x9E3779B97F4A7C15 % 2**64 >> 32) * self.buckets >> 32
        if second == first:
            second = first ^ 1
        return [bucket * PLACES + i for bucket in (first, second) for i in range(PLACES)]

    def find(self, flow_hash: int) -> int | None:
        """Return the first place with the hash's tag."""
        places, tag = self.places(flow_hash), tag_of(flow_hash)
        self.touched.update(places)
        for place in places:
            if place in self.flows and self.flows[place].tag == tag:
                return place
        return None

    def make_room(self, flow_hash: int, tick: int) -> int | None:
        """Return the place for a flow that is not there; None if all fourteen are alive.

        The first empty place of the first bucket if that has much room, else of the emptier one; or
        the place of the flow longest silent, which is to be replaced: proven or not, 30 s apart.
        """
        places = self.places(flow_hash)
        empty = [[p for p in half if p not in self.flows] for half in (places[:7], places[7:])]
        if len(empty[0]) >= FIRST_BUCKET_ROOM:
            return empty[0][0]
        if any(empty):
            return max(empty, key=len)[0]
        oldest = max(places, key=lambda place: self._idleness(place, tick))
        return oldest if self._idleness(oldest, tick) >= EVICTABLE_TICKS else None

    def _idleness(self, place: int, tick: int) -> int:
        return self.silence(place, tick) + (not self.flows[place].proven) * EVICTABLE_TICKS

    def silence(self, place: int, tick: int) -> int:
        """Return for how many ticks a flow has shown no sign of life."""
        return silent_ticks(tick, self.flows[place].age)

    def put(self, place: int, flow: Flow) -> None:
        """Let a flow stand there, whoever stood there before."""
        self.flows[place] = flow
        self.touched.add(place)

    def remove(self, place: int) -> None:
        """Empty the place."""
        del self.flows[place]
        self.touched.add(place)


class Meters(dict[int, tuple[int, int, int]]):
    """Rates by hash: index -> whom (24 bits), in which tick (16 bits), how many.

    Of those that meet at an index one is counted, and the others count it down.
    """

    def count(self, flow_hash: int, tick: int) -> int:
        """Return how many were charged to the hash in this tick."""
        whom, when, many = self.get(flow_hash % METERS, (0, 0, 0))
        return many if (whom, when) == self._label(flow_hash, tick) else 0

    def charge(self, flow_hash: int, tick: int) -> None:
        """Count one more."""
        label = self._label(flow_hash, tick)
        whom, when, many = self.get(flow_hash % METERS, (0, 0, 0))
        if (whom, when) == label:
            many = min(many + 1, 0xFFFFFF)
        elif many and when == label[1]:
            many -= 1
        else:
            (whom, when), many = label, 1
        self[flow_hash % METERS] = (whom, when, many)

    @staticmethod
    def _label(flow_hash: int, tick: int) -> tuple[int, int]:
        return flow_hash >> 16 & 0xFFFFFF, tick & 0xFFFF
