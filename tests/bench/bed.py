"""What the rows are run on: programs and tables of both kinds, filled, and made ready for a row."""

import math
import mmap
import random
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import packets

from bench import frames
from bench.programs import TABLE, Programs, memory_bytes
from bench.rows import FAMILIES, Row
from bench.timing import Timed
from datapath import mapped, outside_interface
from turnout.closing import Closing
from turnout.kernel import bpf
from turnout.kernel.compile import flow_buckets
from turnout.wire.hmac_midstate import sha1_midstates

OWNERS = 8  # BENCH_OWNERS in mains.c
GENERATION, ACTIVE, SESSION = 1, 1, 0x1111
UNLIMITED = (1 << 32) - 1
BUCKET_PLACES = 7
# Where checks are learned: far more room than a run needs, as much as a default table has.
ROOM = 1 << 17
# What a table is made for over what is put into it: filled to the brim, each kind refuses some.
SLACK = 1.25


@dataclass(frozen=True, slots=True)
class Table:
    """One flow table: its maps, in the place of bcc's, and the programs on it, by name."""

    made_for: int
    buckets: int
    maps: dict[int, int]
    programs: dict[str, bpf.Fd]

    @property
    def bytes_a_flow(self) -> float:
        """The kernel's memory for it over the flows it was made for."""
        return sum(memory_bytes(fd) for fd in self.maps.values()) / self.made_for


class Bed(Closing):
    """Everything that is loaded. A table is made and filled when a row first asks for it."""

    def __init__(self, *, families_share_tables: bool = False) -> None:
        """`families_share_tables`: half as many programs to load, flows of both side by side."""
        self._share = families_share_tables
        self._open = ExitStack()
        self._interface = outside_interface()
        self._programs: dict[str, Programs] = {}
        self._tables: dict[tuple[str, int, int], Table] = {}
        self._settings: dict[str, dict[str, Any]] = {}

    def programs(self, kind: str) -> Programs:
        """Return the programs of a kind, compiled once, with the small maps written."""
        if kind not in self._programs:
            programs = self._open.enter_context(Programs(kind))
            self._programs[kind] = programs
            self._settings[kind] = write_maps(programs)
        return self._programs[kind]

    def table(self, kind: str, version: int, flows: int) -> Table:
        """Return a table with that many flows of a family in it; of 0 one to learn in."""
        versions = FAMILIES if self._share or not flows else (version,)
        key = (kind, versions[0], flows)
        if key not in self._tables:
            made_for = math.ceil(flows * len(versions) * SLACK) or ROOM
            self._tables[key] = table = self._make_table(kind, made_for)
            for one in versions if flows else ():
                refused = self._fill(kind, table, one, flows)
                if refused:
                    text = f"a table for {made_for} flows refused {refused} of {flows} ({kind})"
                    raise RuntimeError(text)
        return self._tables[key]

    def refused(self, flows: int) -> int:
        """Return how many of so many flows a table made for no more does not take."""
        return self._fill(TABLE, self._make_table(TABLE, flows), FAMILIES[0], flows)

    def timed(self, row: Row, version: int) -> Timed:
        """Make a row ready to be timed."""
        programs = self.programs(row.kind)
        table = self.table(row.kind, version, row.flows)
        program = self._load(row.kind, table, row.program)
        counters = programs.map("counters")
        context = b"" if row.program == "egress" else self._context_of(row.frame)
        before: dict[str, int] = {}
        verdicts: set[int] = set()

        def prepare() -> None:
            self._point(row.kind, table, row.flows, learn=row.learn)
            if not row.flows:
                self._empty(table)
            before.update(counters.sum_per_cpu(0))
            verdicts.clear()

        def run(repeat: int) -> None:
            done = bpf.run_program(program, row.frame, context=context, repeat=repeat)
            verdicts.add(done.verdict)

        def verify(sent: int) -> None:
            after = counters.sum_per_cpu(0)
            moved = {name: after[name] - before[name] for name in after}
            verify_run(row, sent, {name: by for name, by in moved.items() if by}, verdicts)

        return Timed(row.packets, prepare, run, verify)

    def _load(self, kind: str, table: Table, program: str) -> bpf.Fd:
        if program not in table.programs:
            table.programs[program] = self.programs(kind).load(program, table.maps)
        return table.programs[program]

    def _context_of(self, frame: bytes) -> bytes:
        """Return the struct xdp_md of a frame that came in from outside."""
        return struct.pack("<6I", 0, len(frame), 0, self._interface, 0, 0)

    def _point(self, kind: str, table: Table, flows: int, *, learn: bool = False) -> None:
        """Tell the programs which table they are on and how many clients there are."""
        settings = self._settings[kind] | {"flow_buckets": table.buckets}
        self.programs(kind).map("settings").update(0, settings)
        self.programs(kind).map("bench").update(
            0,
            {
                "random": random.getrandbits(64),
                "sequence": 0,
                "ufrag_hash": frames.UFRAG_HASH,
                "shift": 64 - max(flows, 2).bit_length() + 1,
                "learn": learn,
            },
        )

    def _make_table(self, kind: str, made_for: int) -> Table:
        buckets = flow_buckets(made_for)
        sizes = {
            "flows": buckets,
            "flow_details": buckets * BUCKET_PLACES,
            "lru_flows": made_for,
        }
        return Table(made_for, buckets, self.programs(kind).table(sizes), {})

    def _fill(self, kind: str, table: Table, version: int, flows: int) -> int:
        """Put the clients of a family into a table; return how many it refused."""
        self._point(kind, table, flows)
        counters = self.programs(kind).map("counters")
        before = counters.sum_per_cpu(0)["flow__learned"]
        frame = frames.rtp(version)
        fill = self._load(kind, table, "bench_fill")
        bpf.run_program(fill, frame, context=self._context_of(frame), repeat=flows)
        put: int = counters.sum_per_cpu(0)["flow__learned"] - before
        return flows - put

    def _empty(self, table: Table) -> None:
        """Zero the buckets; what is in flow_details then means nothing."""
        fd, info = next(
            (fd, info) for fd in table.maps.values() if (info := bpf.map_info(fd)).name == "flows"
        )
        size = info.value_size * info.max_entries
        with mmap.mmap(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE) as buckets:
            buckets[:size] = bytes(size)

    def close(self) -> None:
        """Free it all."""
        self._open.close()


def verify_run(row: Row, sent: int, moved: dict[str, int], verdicts: set[int]) -> None:
    """Raise when a run was not what the row says: each packet counted so, with that verdict."""
    wrong = {name: moved.get(name, 0) for name in row.counted if moved.get(name, 0) != sent}
    lost = {name: by for name, by in moved.items() if "drop__" in name and name not in row.counted}
    if wrong or lost or verdicts != {row.verdict}:
        raise RuntimeError(
            f"{row.name}: of {sent} packets these counters moved: {moved}, verdicts {verdicts}; "
            f"expected {row.counted} and {row.verdict}"
        )


def write_maps(programs: Programs) -> dict[str, Any]:
    """Write owners, lanes and the session as an agent would; return the settings to write."""
    owner = {"lane": frames.LANE, "generation": GENERATION, "state": ACTIVE}
    for slot in range(1, OWNERS + 1):
        programs.map("owners").update(slot, owner)
    identity = {"slot": 1, "generation": GENERATION}
    programs.map("lanes").update(frames.LANE, identity)
    inner, outer = sha1_midstates(frames.PASSWORD.encode())
    session = {
        "session_id": SESSION,
        "owner": identity,
        "hmac_inner": list(inner),
        "hmac_outer": list(outer),
    }
    programs.map("sessions").update(frames.UFRAG_HASH, session)
    return {
        "edge_key": list(struct.unpack("<QQ", frames.EDGE_KEY)),
        "vips": [mapped(packets.VIP4), mapped(packets.VIP6), *[bytes(16)] * 6],
        "vip_mask": 0b11,
        "shared_port": packets.SHARED_PORT,
        "lane_first": frames.LANE,
        "lane_last": frames.LANE,
        "flow_keys": [random.getrandbits(64) for _ in range(6)],
        # As many as can be: the limits are looked at, and never reached.
        "check_budget": UNLIMITED,
        "prefix_failures": UNLIMITED,
        "flow_packets": UNLIMITED,
        "session_flows": 8,
    }
