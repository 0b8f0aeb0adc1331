"""Both implementations, given the same steps, and every way in which they differ.

After each packet: verdict, frame, counters, and the places of the flow table that the reference
looked at (the whole table where it is small). `compare_all` also looks at the rest of the table,
sessions, meters and the owners' counters.
"""

import socket
import struct
from typing import Any

from fuzz.program import ENTRY_BYTES, TC_ACT_UNSPEC, XDP_PASS, Program
from fuzz.reference_side import ReferenceSide
from fuzz.steps import (
    LOOPBACK,
    Clock,
    EndSession,
    GiveSession,
    Receive,
    Send,
    SetLane,
    SetOwner,
    SetSession,
    SetSettings,
    Step,
    Sweep,
)
from reference import Flow, Reference, Session
from turnout.wire.hmac_midstate import sha1_midstates

PLACES = 7
# Up to so many buckets all of them are compared after each packet.
SMALL_BUCKETS = 64
GSO_BYTES = 500
DETAILS = ["key.client", "key.client_port", "key.vip", "displaced", "session_id", "ufrag_hash"]


class Pair:
    """The programs and a reference that is made anew by `reset`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.moved: dict[str, int] = dict.fromkeys(program.counter_names, 0)
        self.packets = 0
        self._side = ReferenceSide()
        self._outside = next(index for index, _ in socket.if_nameindex() if index != LOOPBACK)
        self._pack, names = program.details_format
        assert names == DETAILS, names
        self._number = {name: i for i, name in enumerate(program.counter_names)}
        self._counters = program.counters()
        self._flows = bytearray()
        self._details = bytearray()
        self._midstates: dict[str, tuple[Any, Any]] = {}
        self._ports: set[int] = set()

    @property
    def reference(self) -> Reference:
        """The reference as it stands."""
        return self._side.edge

    def reset(self) -> None:
        """Empty what the last sequence has left, in the kernel too."""
        program, old = self.program, self.reference
        program.flows[:] = bytes(len(program.flows))
        program.details[:] = bytes(len(program.details))
        for key in list(program.maps["sessions"].keys()):
            program.maps["sessions"].delete(key)
        for slot in {*old.owners, *old.owner_counters, *old.owner_flows}:
            for name in ("owners", "owner_counters", "owner_flows"):
                program.maps[name].update(slot, {})
        for port in self._ports:
            program.maps["lanes"].update(port, {})
        for index in old.meters:
            program.clear_meter("meters", index)
        for index in old.prefix_meters:
            program.clear_meter("prefix_meters", index)
        self._counters = program.counters()
        program.set_clock(0)
        self._side = ReferenceSide()

    def apply(self, step: Step) -> list[str]:
        """Let it happen; return the differences."""
        before = self.reference
        self._side.apply(step)
        match step:
            case Receive() | Send():
                return self._run(step)
            case Sweep():
                return self._sweep()
            case Clock():
                self.program.set_clock(step.ns)
            case SetSettings():
                self._set_settings(step)
                if self.reference is not before:
                    self._forget_table(step.flow_buckets)
            case SetOwner():
                record = {"generation": step.generation, "lane": step.lane, "state": step.state}
                self.program.maps["owners"].update(step.slot, record)
            case SetLane():
                owner = {"slot": step.slot, "generation": step.generation}
                self.program.maps["lanes"].update(step.port, owner)
                self._ports.add(step.port)
            case SetSession():
                self._set_session(step)
            case GiveSession():
                self._give_session(step)
            case EndSession():
                self.program.maps["sessions"].delete(self._side.key(step.ufrag))
        return []

    def _run(self, step: Receive | Send) -> list[str]:
        program = self.program
        self.packets += 1
        outcome = self._side.outcome
        assert outcome is not None
        if isinstance(step, Receive):
            interface = LOOPBACK if step.interface == LOOPBACK else self._outside
            verdict, frame = program.receive(step.frame, interface)
            passed = verdict == XDP_PASS
        else:
            verdict, frame = program.send(step.frame, GSO_BYTES if step.gso else 0)
            passed = verdict == TC_ACT_UNSPEC
        found = []
        if passed is not (outcome.verdict == "pass"):
            found.append(f"verdict {verdict}, the reference says {outcome.verdict}")
        if frame != outcome.frame:
            found.append(f"frame {frame.hex()}, the reference says {outcome.frame.hex()}")
        found += self._compare_counters(outcome.counted)
        found += self._compare_places()
        return found

    def _sweep(self) -> list[str]:
        self.program.sweep(self.reference.settings.flow_buckets)
        return self._compare_counters(self._side.swept) + self._compare_places()

    def _compare_counters(self, counted: dict[str, int]) -> list[str]:
        expected, got = self._counters, self.program.counters()
        for name, count in counted.items():
            expected[self._number[name]] += count
            self.moved[name] += count
        self._counters = got
        if expected == got:
            return []
        return [
            f"{name} is {got[i]}, the reference says {expected[i]}"
            for i, name in enumerate(self.program.counter_names)
            if expected[i] != got[i]
        ]

    def _compare_places(self) -> list[str]:
        reference = self.reference
        touched = reference.table.touched
        self._draw(touched)
        if reference.settings.flow_buckets <= SMALL_BUCKETS:
            return self._compare_table()
        buckets = {place // PLACES for place in touched}
        return [difference for bucket in buckets for difference in self._compare_bucket(bucket)]

    def _compare_table(self) -> list[str]:
        program, buckets = self.program, self.reference.settings.flow_buckets
        same = program.flows[: len(self._flows)] == self._flows
        if same and program.details[: len(self._details)] == self._details:
            return []
        return [d for bucket in range(buckets) for d in self._compare_bucket(bucket)]

    def _compare_bucket(self, bucket: int) -> list[str]:
        program, size = self.program, PLACES * self.program.details_bytes
        near = slice(bucket * ENTRY_BYTES, (bucket + 1) * ENTRY_BYTES)
        far = slice(bucket * size, (bucket + 1) * size)
        same = program.flows[near] == self._flows[near]
        if same and program.details[far] == self._details[far]:
            return []
        places = range(bucket * PLACES, (bucket + 1) * PLACES)
        return [difference for place in places for difference in self._compare(place)]

    def _draw(self, places: set[int]) -> None:
        """Write places of the reference's table as they are to stand in the kernel's."""
        for place in places:
            flow = self.reference.table.flows.get(place)
            bucket, at = divmod(place, PLACES)
            offset = bucket * ENTRY_BYTES
            if flow is None:
                struct.pack_into("<Q", self._flows, offset + 8 * at, 0)
                continue
            struct.pack_into("<Q", self._flows, offset + 8 * at, _entry(flow))
            self._flows[offset + 8 * PLACES + at] = flow.age
            self._pack.pack_into(self._details, place * self.program.details_bytes, *_details(flow))

    def _compare(self, place: int) -> list[str]:
        """Compare what counts of one place: of an empty one only that it is empty."""
        bucket, at = divmod(place, PLACES)
        offset = bucket * ENTRY_BYTES
        flow = self.reference.table.flows.get(place)
        (entry,) = struct.unpack_from("<Q", self.program.flows, offset + 8 * at)
        got: list[Any] = [entry]
        want: list[Any] = [0]
        if flow:
            want = [_entry(flow), flow.age, *_details(flow)]
            got.append(self.program.flows[offset + 8 * PLACES + at])
            size = self.program.details_bytes
            got += self._pack.unpack(self.program.details[place * size : place * size + size])
        names = ["entry", "age", *DETAILS]
        return [
            f"place {place}: {name} is {_show(g)}, the reference says {_show(w)}"
            for name, g, w in zip(names, got, want, strict=False)
            if g != w
        ]

    def compare_all(self) -> list[str]:
        """Compare all state."""
        reference, maps = self.reference, self.program.maps
        found = self._compare_table()
        for key, session in reference.sessions.items():
            record = maps["sessions"].lookup(key) or {}
            found += _compare_session(key, session, record)
        if len(list(maps["sessions"].keys())) != len(reference.sessions):
            found.append("another number of sessions")
        for name, meters in (
            ("meters", reference.meters),
            ("prefix_meters", reference.prefix_meters),
        ):
            for index, (whom, when, many) in meters.items():
                got, want = self.program.meter(name, index), whom << 40 | when << 24 | many
                if got != want:
                    found.append(f"{name}[{index}] is {got:#x}, the reference says {want:#x}")
        for name, counters in (
            ("owner_counters", reference.owner_counters),
            ("owner_flows", reference.owner_flows),
        ):
            for slot, counter in counters.items():
                record = maps[name].lookup(slot) or {}
                found += [
                    f"{name}[{slot}].{field} is {count}, the reference says {counter[field]}"
                    for field, count in record.items()
                    if count != counter[field]
                ]
        return found

    def _set_settings(self, step: SetSettings) -> None:
        record = {
            "edge_key": list(struct.unpack("<QQ", step.edge_key)),
            "vips": list(step.vips),
            "vip_mask": step.vip_mask,
            "flow_keys": list(step.flow_keys),
        }
        same = ("shared_port", "lane_first", "lane_last", "flow_buckets", "session_flows")
        limits = ("check_budget", "prefix_failures", "flow_packets")
        record |= {name: getattr(step, name) for name in (*same, *limits)}
        self.program.maps["settings"].update(0, record)

    def _forget_table(self, buckets: int) -> None:
        self._flows = bytearray(buckets * ENTRY_BYTES)
        self._details = bytearray(buckets * PLACES * self.program.details_bytes)

    def _set_session(self, step: SetSession) -> None:
        if step.password not in self._midstates:
            self._midstates[step.password] = sha1_midstates(step.password.encode())
        inner, outer = self._midstates[step.password]
        owner = {"slot": step.slot, "generation": step.generation}
        record = {
            "session_id": step.id,
            "owner": owner,
            "hmac_inner": list(inner),
            "hmac_outer": list(outer),
        }
        self.program.maps["sessions"].update(self._side.key(step.ufrag), record)

    def _give_session(self, step: GiveSession) -> None:
        key = self._side.key(step.ufrag)
        record = self.program.maps["sessions"].lookup(key)
        if record is None:
            return
        record["owner"] = {"slot": step.slot, "generation": step.generation}
        self.program.maps["sessions"].update(key, record)


def _entry(flow: Flow) -> int:
    return flow.tag << 25 | flow.proven << 24 | flow.owner.generation << 16 | flow.owner.slot


def _details(flow: Flow) -> tuple[Any, ...]:
    key = flow.key
    port = socket.htons(key.port)
    return key.client, port, key.vip, flow.displaced, flow.session, flow.ufrag_hash


def _compare_session(key: int, session: Session, record: dict[str, Any]) -> list[str]:
    want = {
        "session_id": session.id,
        "owner": {"slot": session.owner.slot, "generation": session.owner.generation},
        "check_tick": session.check_tick,
        "checks": session.checks,
        "failures": session.failures,
        "flows": [0 if place is None else place + 1 for place in session.flows],
    }
    return [
        f"sessions[{key:#x}].{name} is {record.get(name)}, the reference says {value}"
        for name, value in want.items()
        if record.get(name) != value
    ]


def _show(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else f"{value:#x}"
