"""The two programs under BPF_PROG_TEST_RUN, with maps that a test fills and reads."""

import ipaddress
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

import packets

from reference.table import FlowKey, FlowTable, hash_flow
from turnout.kernel import bpf
from turnout.kernel.compile import Compiled
from turnout.kernel.maps import KernelMap, Maps
from turnout.kernel.sweep import SweepProgram
from turnout.wire.hmac_midstate import sha1_midstates
from turnout.wire.siphash import siphash24

EDGE_KEY = bytes(range(16))
FLOW_KEYS = [0x9E3779B97F4A7C15 * odd % 2**64 for odd in range(3, 15, 2)]
# Limits by the tick, small enough for a test to reach.
CHECK_BUDGET, PREFIX_FAILURES, FLOW_PACKETS, SESSION_FLOWS = 20, 5, 400, 8
TICK_NS = 1 << 30
PLACES, TAG_SHIFT = 7, 25
XDP_DROP, XDP_PASS = 1, 2
TC_ACT_UNSPEC, TC_ACT_SHOT = -1, 2
ACTIVE, DRAINING, DOWN = 1, 2, 0
LOOPBACK = 1
# struct __sk_buff, in linux/bpf.h.
SK_BUFF_BYTES, SK_BUFF_GSO_SEGS, SK_BUFF_GSO_SIZE = 192, 164, 176

SESSION, OTHER_SESSION = 0x1_0000_1111, 0x2_0000_2222
SLOT, OTHER_SLOT = 1, 2
GENERATION = 7


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a program did with one packet; `counted`: only counters that moved."""

    verdict: int
    frame: bytes
    counted: dict[str, int]


def mapped(address: str) -> bytes:
    """16 bytes, IPv4 v4-mapped."""
    parsed = ipaddress.ip_address(address)
    return bytes(10) + b"\xff\xff" + parsed.packed if parsed.version == 4 else parsed.packed


def owner_id(slot: int = SLOT, generation: int = GENERATION) -> dict[str, int]:
    return {"slot": slot, "generation": generation}


def flow_key(client: str = packets.CLIENT4, port: int = packets.CLIENT_PORT) -> FlowKey:
    vip = 0 if ipaddress.ip_address(client).version == 4 else 1
    return FlowKey(mapped(client), port, vip)


def tag_of(flow_hash: int) -> int:
    """What an entry knows its flow by (bpf/flows.h)."""
    return (flow_hash << TAG_SHIFT) % 2**64 or 1 << TAG_SHIFT


def make_entry(tag: int, slot: int, generation: int, *, proven: bool) -> int:
    """An entry of a bucket, as bpf/abi.h says."""
    return tag | proven << 24 | generation << 16 | slot


def outside_interface() -> int:
    """The index of any interface that is not loopback; packets are only said to come from it."""
    for index, _ in socket.if_nameindex():
        if index != LOOPBACK:
            return index
    msg = "these tests need one network interface beside lo (any kind): ip link add type veth"
    raise RuntimeError(msg)


class Datapath:
    """Programs and maps. `reset` before each row: every map as a fresh edge with two owners."""

    def __init__(self, compiled: Compiled) -> None:
        self.descriptors = compiled.maps
        self.maps = Maps.of_descriptors(dict(compiled.maps))
        self.ingress = compiled.load("ingress")
        self.egress = compiled.load("egress")
        self.sweeper = SweepProgram(compiled.load("sweep"))
        self.follow = compiled.load("follow")
        self.outside = outside_interface()
        self.clock = KernelMap(os.dup(compiled.maps["test_clock"]))
        self.buckets = self.maps.flows.max_entries
        self.tick = 1000
        # To find places by hash.
        self.table = FlowTable(self.buckets)

    def close(self) -> None:
        for program in (self.ingress, self.egress, self.sweeper, self.follow):
            program.close()
        self.clock.close()
        self.maps.close()

    def reset(self) -> None:
        maps = self.maps
        for key in list(maps.sessions.keys()):
            maps.sessions.delete(key)
        for bucket in range(self.buckets):
            maps.flows.update(bucket, {})
        # Time only moves on: what a meter counted before is of another tick.
        self.pass_ticks(1)
        vips = [mapped(packets.VIP4), mapped(packets.VIP6), *[bytes(16)] * 6]
        maps.settings.update(
            0,
            {
                "edge_key": list(struct.unpack("<QQ", EDGE_KEY)),
                "flow_keys": FLOW_KEYS,
                "flow_buckets": self.buckets,
                "check_budget": CHECK_BUDGET,
                "prefix_failures": PREFIX_FAILURES,
                "flow_packets": FLOW_PACKETS,
                "session_flows": SESSION_FLOWS,
                "vips": vips,
                "vip_mask": 0b11,
                "shared_port": packets.SHARED_PORT,
                "lane_first": 20000,
                "lane_last": 20999,
            },
        )
        self.add_owner(SLOT, packets.LANE)
        self.add_owner(OTHER_SLOT, packets.OTHER_LANE)

    def set(self, **changed: Any) -> None:
        """Change fields of the settings."""
        settings = self.maps.settings.lookup(0)
        assert settings is not None
        self.maps.settings.update(0, settings | changed)

    def add_owner(
        self, slot: int, lane: int, *, generation: int = GENERATION, state: int = ACTIVE
    ) -> None:
        owner = {"lane": lane, "generation": generation, "state": state}
        self.maps.owners.update(slot, owner)
        self.maps.lanes.update(lane, owner_id(slot, generation))

    def pass_ticks(self, ticks: int) -> None:
        """Move the programs' clock on."""
        self.tick += ticks
        self.clock.update(0, self.tick * TICK_NS)

    def now_ns(self) -> int:
        """What the programs' clock says."""
        now: Any = self.clock.lookup(0)
        return int(now)

    def session_key(self, ufrag: str) -> int:
        """The key of a session's entry."""
        return siphash24(EDGE_KEY, ufrag.encode())

    def session(self, ufrag: str) -> dict[str, Any]:
        """A session's entry, as the programs have left it."""
        session = self.maps.sessions.lookup(self.session_key(ufrag))
        assert session is not None
        return session

    def add_session(
        self,
        ufrag: str,
        session: int = SESSION,
        slot: int = SLOT,
        *,
        password: bytes = packets.PASSWORD,
    ) -> int:
        """Returns the key of the entry."""
        key = self.session_key(ufrag)
        inner, outer = sha1_midstates(password)
        self.maps.sessions.update(
            key,
            {
                "session_id": session,
                "owner": owner_id(slot),
                "hmac_inner": list(inner),
                "hmac_outer": list(outer),
            },
        )
        return key

    def add_flow(
        self,
        client: str = packets.CLIENT4,
        *,
        port: int = packets.CLIENT_PORT,
        session: int = SESSION,
        ufrag_hash: int = 0,
        slot: int = SLOT,
        generation: int = GENERATION,
        silent_ticks: int = 0,
        proven: bool = True,
    ) -> int:
        """Put a flow into its first free place; returns the place."""
        key = flow_key(client, port)
        flow_hash = hash_flow(tuple(FLOW_KEYS), key)
        place = next(place for place in self.table.places(flow_hash) if not self.entry(place))
        bucket = self.bucket(place)
        bucket["entry"][place % PLACES] = make_entry(
            tag_of(flow_hash), slot, generation, proven=proven
        )
        bucket["age"][place % PLACES] = (self.tick - silent_ticks) % 256
        record = {"client": key.client, "client_port": socket.htons(port), "vip": key.vip}
        self.maps.flows.update(place // PLACES, bucket)
        self.maps.flow_details.update(
            place, {"key": record, "session_id": session, "ufrag_hash": ufrag_hash}
        )
        return place

    def bucket(self, place: int) -> dict[str, Any]:
        """The bucket of a place; its ages as a list."""
        bucket = self.maps.flows.lookup(place // PLACES)
        assert bucket is not None
        return bucket | {"age": list(bucket["age"])}

    def entry(self, place: int) -> int:
        entry: int = self.bucket(place)["entry"][place % PLACES]
        return entry

    def flow(
        self, client: str = packets.CLIENT4, port: int = packets.CLIENT_PORT
    ) -> dict[str, Any] | None:
        """The details of a flow with its entry's owner, proof and age; None where there is none."""
        flow_hash = hash_flow(tuple(FLOW_KEYS), flow_key(client, port))
        for place in self.table.places(flow_hash):
            entry = self.entry(place)
            if entry and entry >> TAG_SHIFT << TAG_SHIFT == tag_of(flow_hash):
                details = self.maps.flow_details.lookup(place)
                assert details is not None
                return details | {
                    "place": place,
                    "owner": owner_id(entry & 0xFFFF, entry >> 16 & 0xFF),
                    "proven": bool(entry >> 24 & 1),
                    "age": self.bucket(place)["age"][place % PLACES],
                }
        return None

    def flows(self) -> int:
        """How many flows there are."""
        return sum(
            1
            for number in range(self.buckets)
            for entry in self.bucket(number * PLACES)["entry"]
            if entry
        )

    def sweep(self) -> dict[str, int]:
        """Run the sweep over the whole table; the counters that moved."""
        before = self.maps.counters.sum_per_cpu(0)
        self.sweeper.run(0, self.buckets)
        after = self.maps.counters.sum_per_cpu(0)
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}

    def receive(self, frame: bytes, *, interface: int | None = None) -> Outcome:
        """Run the XDP program on a frame that came in on an interface, by default from outside."""
        index = self.outside if interface is None else interface
        context = struct.pack("<6I", 0, len(frame), 0, index, 0, 0)
        return self._run(self.ingress, frame, context)

    def send(self, frame: bytes, *, gso_size: int = 0) -> Outcome:
        """Run the TC program on a frame on its way out; `gso_size`: it is cut up after us."""
        context = bytearray(SK_BUFF_BYTES if gso_size else 0)
        if gso_size:
            struct.pack_into("<I", context, SK_BUFF_GSO_SEGS, -(-len(frame) // gso_size))
            struct.pack_into("<I", context, SK_BUFF_GSO_SIZE, gso_size)
        return self._run(self.egress, frame, bytes(context))

    def _run(self, program: int, frame: bytes, context: bytes) -> Outcome:
        before = self.maps.counters.sum_per_cpu(0)
        run = bpf.run_program(program, frame, context=context)
        after = self.maps.counters.sum_per_cpu(0)
        counted = {name: after[name] - before[name] for name in after}
        return Outcome(run.verdict, run.data, {n: count for n, count in counted.items() if count})
