"""Several CPUs at work on one small flow table, and a look at it when all have paused.

Everybody goes through the same tuples in the same order, with requests of different sessions,
media of different owners, sweeps, sessions that come and go: so they meet. Between two rounds the
table is at rest and must be right. `slowed` lets a program linger wherever a place changes hands,
by some hundred nanoseconds: what two CPUs do at one moment once a day, they do here many times a
second.
"""

import mmap
import multiprocessing
import os
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple

import packets as p

from datapath import (
    FLOW_KEYS,
    GENERATION,
    PLACES,
    TAG_SHIFT,
    TICK_NS,
    Datapath,
    flow_key,
    tag_of,
)
from fuzz.program import SK_BUFF_BYTES, Run
from reference.table import FlowKey, hash_flow
from turnout.kernel import bpf
from turnout.kernel.compile import compile_programs

FLOWS_MAX, SESSIONS_MAX = 86, 64  # 16 buckets
OWNERS, SESSIONS, TUPLES = 4, 6, 40
# All tuples belong into these: 28 places for 40 flows.
CROWDED_BUCKETS = 4
SESSION_FLOWS = 4
# Each of a tuple's sessions, and each of their owners, may have it.
SESSIONS_OF_A_TUPLE = 3
ANY_RATE = 1 << 30
XDP_MD_BYTES = 24
PATIENCE_S = 10
# struct flow_bucket and struct flow, in bpf/abi.h.
BUCKET_BYTES, FLOW_BYTES = 64, 40

# Verifier: one helper call, that takes longer the more it has to copy. A loop is too much for it.
_LINGER = """
struct linger_room {
	__u8 from[16384];
	__u8 to[16384];
};
BPF_ARRAY(linger_room, struct linger_room, 1);

static __always_inline void linger(void)
{
	__u64 bytes = bpf_get_prandom_u32() & 16383;
	int zero = 0;
	struct linger_room *room = linger_room.lookup(&zero);

	if (room)
		bpf_probe_read_kernel(room->to, bytes, room->from);
}

"""
_SWAP = "\treturn __sync_val_compare_and_swap(entry, old, new) == old;\n"
_SLOW_SWAP = """
	int swapped;

	linger();
	swapped = __sync_val_compare_and_swap(entry, old, new) == old;
	linger();
	return swapped;
"""
_PUBLISH = "\t*(volatile __u64 *)&place->bucket->entry[bounded(place->at)] = entry;\n"
_CHOOSE_PLACE = "\tlook_for_room(one, p->tick, 0, &room_one);\n"
_REPLACE = "/* 1 if the entry was what we thought it was. */\n"


class Flow(NamedTuple):
    """One published entry with its details."""

    place: int
    entry: int
    key: FlowKey
    session_id: int


@dataclass(frozen=True, slots=True)
class Edge:
    """What the workers share."""

    datapath: Datapath
    ports: list[int]
    flows: mmap.mmap
    details: mmap.mmap


def replaced(source: str, there: str, instead: str) -> str:
    """Return the source with one piece of it replaced, which must be there exactly once."""
    found = source.count(there)
    assert found == 1, f"{there!r} is {found} times in bpf/, not once"
    return source.replace(there, instead)


def slowed(source: str) -> str:
    """Return a program that lingers before and after it changes an entry."""
    source = replaced(source, _SWAP, _SLOW_SWAP)
    source = replaced(source, _PUBLISH, "\tlinger();\n" + _PUBLISH)
    source = replaced(source, _CHOOSE_PLACE, "\tlinger();\n" + _CHOOSE_PLACE)
    return replaced(source, _REPLACE, _LINGER + _REPLACE)


@contextmanager
def open_edge(source: str) -> Iterator[Edge]:
    """Compile, and share the table's memory with the kernel."""
    with ExitStack() as stack:
        compiled = stack.enter_context(
            compile_programs(FLOWS_MAX, SESSIONS_MAX, source, ["TURNOUT_TEST_CLOCK"])
        )
        datapath = Datapath(compiled)
        stack.callback(datapath.close)
        flows, details = (
            stack.enter_context(bpf.mapped(compiled.maps[name], size))
            for name, size in (
                ("flows", datapath.buckets * BUCKET_BYTES),
                ("flow_details", datapath.buckets * PLACES * FLOW_BYTES),
            )
        )
        yield Edge(datapath, crowded_ports(datapath), flows, details)


def reset(edge: Edge) -> dict[str, int]:
    """Set up owners and sessions, and an empty table; returns the counters as they are then."""
    datapath = edge.datapath
    datapath.reset()
    datapath.set(session_flows=SESSION_FLOWS, flow_packets=0, check_budget=ANY_RATE)
    for owner in range(OWNERS):
        datapath.add_owner(1 + owner, p.LANE + owner)
    for number in range(SESSIONS):
        datapath.add_session(ufrag(number), session_id(number, 0), slot_of(number))
    return datapath.maps.counters.sum_per_cpu(0)


def crowded_ports(datapath: Datapath) -> list[int]:
    """Return ports whose flows stand in the first few buckets."""
    ports = []
    for port in range(1024, 65536):
        places = datapath.table.places(hash_flow(tuple(FLOW_KEYS), flow_key(port=port)))
        if max(places) < CROWDED_BUCKETS * PLACES:
            ports.append(port)
    assert len(ports) > TUPLES
    return ports[:TUPLES]


def ufrag(number: int) -> str:
    return f"session{number}"


def session_id(number: int, life: int) -> int:
    """Return the id of a session; `life`: how often its ufrag was given to another one."""
    return 1 + number + (life << 16)


def slot_of(number: int) -> int:
    return 1 + number % OWNERS


def sessions_of(tuple_number: int) -> list[int]:
    return [(tuple_number + other) % SESSIONS for other in range(SESSIONS_OF_A_TUPLE)]


def pass_ticks(datapath: Datapath, ticks: int) -> None:
    """Move the clock on from where whoever has left it."""
    datapath.tick = datapath.now_ns() // TICK_NS
    datapath.pass_ticks(ticks)


def look(edge: Edge) -> tuple[list[Flow], int]:
    """Return the flows that stand published and how many places stand claimed."""
    flows, claimed = [], 0
    for place in range(edge.datapath.buckets * PLACES):
        bucket, at = divmod(place, PLACES)
        (entry,) = struct.unpack_from("<Q", edge.flows, bucket * BUCKET_BYTES + at * 8)
        client, port, vip, _, session = struct.unpack_from(
            "<16s2sHIQ", edge.details, place * FLOW_BYTES
        )
        if not entry:
            continue
        if not entry >> 16 & 0xFF:
            claimed += 1
            continue
        key = FlowKey(client, int.from_bytes(port, "big"), vip)
        flows.append(Flow(place, entry, key, session))
    return flows, claimed


def faults(edge: Edge, before: dict[str, int]) -> list[str]:
    """Return what is wrong with the table, at rest; `before`: the counters of the empty one."""
    flows, claimed = look(edge)
    found = [f"{claimed} places stand claimed"] if claimed else []
    tags = [flow.entry >> TAG_SHIFT for flow in flows]
    found += [f"{flow} stands twice" for flow in flows if tags.count(flow.entry >> TAG_SHIFT) > 1]
    for flow in flows:
        flow_hash = hash_flow(tuple(FLOW_KEYS), flow.key)
        if tag_of(flow_hash) != flow.entry >> TAG_SHIFT << TAG_SHIFT:
            found.append(f"{flow} has another flow's details")
            continue
        if flow.place not in edge.datapath.table.places(flow_hash):
            found.append(f"{flow} stands in a bucket that is not its own")
        allowed = sessions_of(edge.ports.index(flow.key.port))
        owner = flow.entry & 0xFFFF, flow.entry >> 16 & 0xFF
        if owner not in {(slot_of(number), GENERATION) for number in allowed}:
            found.append(f"{flow} is of an owner that nobody named")
        elif flow.session_id and slot_of((flow.session_id - 1) % (1 << 16)) != owner[0]:
            found.append(f"{flow} is of another owner than its session")
    now = edge.datapath.maps.counters.sum_per_cpu(0)
    moved = {name: now[name] - before[name] for name in now}
    made = moved["flow__learned"] + moved["flow__healed"]
    gone = [f"flow__{how}" for how in ("evicted", "capped")] + ["swept__ended", "swept__idle"]
    counted = made - sum(moved[name] for name in gone)
    if counted != len(flows):
        found.append(f"{len(flows)} flows stand there, by the counters {counted}: {moved}")
    return found


class Worker:
    """One that sends requests and media, sweeps, ends and begins sessions, lets time pass."""

    def __init__(self, edge: Edge, number: int, steps: memoryview) -> None:
        self._edge = edge
        self._number = number
        self._steps = steps
        self._lives = 0
        self._ingress = Run(bpf.Fd(os.dup(edge.datapath.ingress)), XDP_MD_BYTES)
        self._egress = Run(bpf.Fd(os.dup(edge.datapath.egress)), SK_BUFF_BYTES)
        pairs = [(at, number) for at in range(TUPLES) for number in sessions_of(at)]
        self._checks = {pair: self._build_check(*pair) for pair in pairs}
        self._media = {pair: self._build_media(*pair) for pair in pairs}

    def _build_check(self, at: int, number: int) -> bytes:
        return bytes(p.ip4(p.check(f"{ufrag(number)}:c"), sport=self._edge.ports[at]))

    def _build_media(self, at: int, number: int) -> bytes:
        lane = p.LANE + slot_of(number) - 1
        return bytes(p.from_lane(p.RTP, lane=lane, dport=self._edge.ports[at]))

    def work(self, round_number: int, steps: int) -> None:
        """Do one round: at each step all choose the same tuple, each its own session and action."""
        shared = random.Random(round_number)
        own = random.Random(f"{round_number}/{self._number}")
        for step in range(1, steps + 1):
            at = shared.randrange(TUPLES)
            pair = at, own.choice(sessions_of(at))
            what = own.random()
            self._meet(round_number << 32 | step)
            if what < 0.2:
                self._disturb(own)
            elif what < 0.6:
                frame = self._checks[pair]
                interface = self._edge.datapath.outside
                struct.pack_into("<6I", self._ingress.context, 0, 0, len(frame), 0, interface, 0, 0)
                self._ingress(frame)
            else:
                self._egress(self._media[pair])

    def _meet(self, step: int) -> None:
        """Wait until all have come to this step."""
        self._steps[self._number] = step
        while min(self._steps) < step:
            os.sched_yield()

    def _disturb(self, own: random.Random) -> None:
        datapath, number, what = self._edge.datapath, own.randrange(SESSIONS), own.random()
        if what < 0.2:
            datapath.maps.sessions.delete(datapath.session_key(ufrag(number)))
        elif what < 0.5:
            self._lives += 1
            life = self._lives * len(self._steps) + self._number
            datapath.add_session(ufrag(number), session_id(number, life), slot_of(number))
        elif what < 0.6:
            pass_ticks(datapath, own.choice([1, 6, 28]))
        else:
            datapath.sweeper.run(0, datapath.buckets)


def run_worker(edge: Edge, number: int, steps: memoryview, orders: Connection) -> None:
    """Do a round for each order (round, steps), answer, until one is None."""
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {allowed[number % len(allowed)]})
    worker = Worker(edge, number, steps)
    orders.send(None)
    while order := orders.recv():
        worker.work(*order)
        orders.send(None)


@contextmanager
def workers(edge: Edge, count: int) -> Iterator[Callable[[int, int], None]]:
    """Start so many processes; what is yielded has all of them do one round."""
    context = multiprocessing.get_context("fork")
    steps = memoryview(mmap.mmap(-1, 8 * count)).cast("Q")
    pipes = [context.Pipe() for _ in range(count)]
    started = [
        context.Process(target=run_worker, args=(edge, number, steps, theirs), daemon=True)
        for number, (_, theirs) in enumerate(pipes)
    ]

    def wait_for_all() -> None:
        for ours, _ in pipes:
            assert ours.poll(PATIENCE_S), f"a worker gave no answer for {PATIENCE_S} s"
            ours.recv()

    for process in started:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    try:
        wait_for_all()

        def do_round(number: int, steps: int) -> None:
            for ours, _ in pipes:
                ours.send((number, steps))
            wait_for_all()

        yield do_round
    finally:
        for ours, _ in pipes:
            with suppress(BrokenPipeError):
                ours.send(None)
        for process in started:
            process.join(PATIENCE_S)
            process.kill()
