"""The two programs under BPF_PROG_TEST_RUN, with maps that a test fills and reads."""

import ipaddress
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any

import packets

from turnout.kernel import bpf
from turnout.kernel.compile import Compiled
from turnout.kernel.maps import Maps
from turnout.wire.siphash import siphash24

EDGE_KEY = bytes(range(16))
XDP_DROP, XDP_PASS = 1, 2
TC_ACT_UNSPEC, TC_ACT_SHOT = -1, 2
ACTIVE, DRAINING, DOWN = 1, 2, 0
LOOPBACK = 1
# struct __sk_buff, in linux/bpf.h.
SK_BUFF_BYTES, SK_BUFF_GSO_SEGS, SK_BUFF_GSO_SIZE = 192, 164, 176

SESSION, OTHER_SESSION = 0x1111, 0x2222
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


def flow_key(client: str = packets.CLIENT4, port: int = packets.CLIENT_PORT) -> dict[str, Any]:
    vip = 0 if ipaddress.ip_address(client).version == 4 else 1
    return {"client": mapped(client), "client_port": socket.htons(port), "vip": vip}


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
        self.maps = Maps.of_descriptors(dict(compiled.maps))
        self.ingress = compiled.load("ingress")
        self.egress = compiled.load("egress")
        self.outside = outside_interface()

    def close(self) -> None:
        self.ingress.close()
        self.egress.close()
        self.maps.close()

    def reset(self) -> None:
        maps = self.maps
        for table in (maps.flows, maps.sessions):
            for key in list(table.keys()):
                table.delete(key)
        vips = [mapped(packets.VIP4), mapped(packets.VIP6), *[bytes(16)] * 6]
        maps.settings.update(
            0,
            {
                "edge_key": list(struct.unpack("<QQ", EDGE_KEY)),
                "vips": vips,
                "vip_mask": 0b11,
                "shared_port": packets.SHARED_PORT,
                "lane_first": 20000,
                "lane_last": 20999,
            },
        )
        self.add_owner(SLOT, packets.LANE)
        self.add_owner(OTHER_SLOT, packets.OTHER_LANE)

    def add_owner(
        self, slot: int, lane: int, *, generation: int = GENERATION, state: int = ACTIVE
    ) -> None:
        owner = {"lane": lane, "generation": generation, "state": state}
        self.maps.owners.update(slot, owner)
        self.maps.lanes.update(lane, owner_id(slot, generation))

    def add_session(self, ufrag: str, session: int = SESSION, slot: int = SLOT) -> int:
        """Returns the key of the entry."""
        key = siphash24(EDGE_KEY, ufrag.encode())
        self.maps.sessions.update(key, {"session_id": session, "owner": owner_id(slot)})
        return key

    def add_flow(
        self,
        client: str = packets.CLIENT4,
        *,
        session: int = SESSION,
        ufrag_hash: int = 0,
        slot: int = SLOT,
        generation: int = GENERATION,
        silent_seconds: float = 0,
    ) -> None:
        self.maps.flows.update(
            flow_key(client),
            {
                "session_id": session,
                "ufrag_hash": ufrag_hash,
                "owner": owner_id(slot, generation),
                "alive_ns": time.monotonic_ns() - int(silent_seconds * 1e9),
            },
        )

    def flow(self, client: str = packets.CLIENT4) -> dict[str, Any] | None:
        return self.maps.flows.lookup(flow_key(client))

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
