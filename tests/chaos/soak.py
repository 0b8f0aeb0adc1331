"""Sessions set up and ended for as long as one likes: what it takes at the end is what it took.

`scripts/chaos --soak 30m --setups 20`. It counts memory, descriptors and map entries after a while
of it, and again at the end, both times when all that was set up has ended. Before the first count
there are twice as many set-ups a second as after: a process keeps the most that it ever needed, and
what it needs more than that is a leak. Half of the WHIP sessions are not deleted: their transceiver
ends them after 30 s. Meanwhile it says every half minute what each process has in memory, and in
the end how that grew.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos.laboratory import open_stage
from chaos.stage import Conditions, Stage
from results import Result, print_results
from turnout.flows import FlowTable
from turnout.kernel.maps import Maps
from turnout.kernel.pins import Pins
from turnout.ownership import kernel_session_id

# A short soak warms up for half of its time, a long one for two minutes.
WARM_UP_MOST_SECONDS = 120.0
WARM_UP_TIMES = 2
KEPT = 0.5
# What memory moves by without being lost: what the collector has not seen yet, arenas that are not
# full. A leak of 60 bytes a session shows after half an hour.
MEMORY_SLACK_KIB = 1024
# The agent remembers the last 10,000 sessions that ended by themselves (signaling/ended.py), 200
# bytes each: at seven a second they are together after 24 minutes.
AGENT_REMEMBERS_KIB = 2048
# A client's idle connection, a look at the API.
DESCRIPTOR_SLACK = 8
_LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Soak:
    """How long, and how many set-ups a second."""

    seconds: float
    setups: float
    flows: int = 20
    calls: int = 2


Memory = dict[str, int]  # private memory in KiB by process


@dataclass(frozen=True, slots=True)
class Footprint:
    """What an edge takes."""

    memory_kib: Memory
    descriptors: dict[str, int]
    entries: dict[str, int]  # of maps

    def __str__(self) -> str:
        descriptors = ", ".join(f"{name} {count}" for name, count in self.descriptors.items())
        entries = ", ".join(f"{name} {count}" for name, count in self.entries.items())
        return f"memory: {_tell(self.memory_kib)}; descriptors: {descriptors}; entries: {entries}"


class _Look:
    """Has sessions set up and says meanwhile what memory is."""

    def __init__(self, stage: Stage, say: Callable[[str], None]) -> None:
        self._stage = stage
        self._say = say
        self.looks: list[tuple[float, Memory]] = []  # seconds since the first set-up

    def set_up(self, name: str, a_second: float, seconds: float) -> list[Result]:
        began = time.monotonic()
        with self._stage.setting_up(a_second, KEPT) as outcome:
            while (passed := time.monotonic() - began) < seconds:
                time.sleep(min(_LOOK_SECONDS, seconds - passed))
                at, memory = time.monotonic() - began, _weigh(self._stage)
                self.looks.append((at, memory))
                self._say(f"        {at:5.0f} s: {_tell(memory)}")
        (setups,) = outcome
        value = f"{setups.made} made, {setups.failed} failed: {setups.errors[:3] or 'none'}"
        return [Result(f"{name}: set-ups", value, "0 failed", not setups.failed)]


def soak(plan: Soak, results: list[Result], say: Callable[[str], None]) -> None:
    """Do it; results are added as they come."""
    conditions = Conditions(flows=plan.flows, calls=plan.calls)
    with open_stage(conditions, say) as stage:
        warm_up = min(WARM_UP_MOST_SECONDS, plan.seconds / 2)
        say(f"== {warm_up:g} s to warm up")
        warming_up = _Look(stage, say)
        results += warming_up.set_up("warming up", WARM_UP_TIMES * plan.setups, warm_up)
        before = _look_when_quiet(stage)
        say(f"        {before}")
        say(f"== {plan.seconds:g} s of {plan.setups:g} set-ups a second")
        began = time.monotonic()
        soaking = _Look(stage, say)
        _, measured = stage.run(
            lambda _: results.extend(soaking.set_up("soak", plan.setups, plan.seconds))
        )
        after = _look_when_quiet(stage)
        say(f"        {after}")
        found = [
            Result("soak: seconds", round(time.monotonic() - began)),
            Result(
                "soak: packets lost",
                f"{measured.lost} of {measured.sent}",
                "0",
                not measured.unexplained,
            ),
            Result(
                "soak: call packets lost",
                f"{measured.calls_lost} of {measured.calls_sent}",
                "0",
                not measured.calls_unexplained,
            ),
            *compare(before, after),
            *tell_growth(soaking.looks),
        ]
        print_results(found)
        results += found


def compare(before: Footprint, after: Footprint) -> list[Result]:
    """Judge what it takes now by what it took."""
    results = []
    memory_slack = dict.fromkeys(after.memory_kib, MEMORY_SLACK_KIB)
    memory_slack["agent"] += AGENT_REMEMBERS_KIB
    descriptor_slack = dict.fromkeys(after.descriptors, DESCRIPTOR_SLACK)
    for what, then, now, slacks in (
        ("private memory, KiB", before.memory_kib, after.memory_kib, memory_slack),
        ("descriptors", before.descriptors, after.descriptors, descriptor_slack),
        ("entries", before.entries, after.entries, dict.fromkeys(after.entries, 0)),
    ):
        for name, count in now.items():
            slack = slacks[name]
            most = then[name] + slack
            bound = f"{then[name]} + {slack}" if slack else f"{then[name]}"
            results.append(Result(f"soak: {what} of {name}", count, bound, count <= most))
    return results


def tell_growth(looks: list[tuple[float, Memory]]) -> list[Result]:
    """Say how the memory of each process grew over the second half of the looks.

    It is told, not judged: of a short soak it says little.
    """
    looks = looks[len(looks) // 2 :]
    if len(looks) < 2:
        return []
    minutes = [seconds / 60 for seconds, _ in looks]
    growth = {
        name: statistics.linear_regression(minutes, [memory[name] for _, memory in looks]).slope
        for name in looks[0][1]
    }
    return [
        Result(f"soak: growth of {name} in the second half, KiB a minute", round(slope, 1))
        for name, slope in growth.items()
    ]


def look(stage: Stage) -> Footprint:
    """Count everything now."""
    # A call has a flow for each pair that its client has tried; those that it does not use go.
    calls = {kernel_session_id(call.session) for call in stage.calls()}
    with Maps.open(Pins(bpffs=stage.edge.bpffs, instance=stage.edge.instance)) as maps:
        entries = {
            "sessions": sum(1 for _ in maps.sessions.items()),
            "flows": sum(flow["session_id"] not in calls for flow in FlowTable(maps).read()),
            "lanes": sum(1 for _, lane in maps.lanes.items() if lane["generation"]),
        }
    return Footprint(
        memory_kib=_weigh(stage),
        descriptors={name: _descriptors(pid) for name, pid in stage.edge.pids().items()},
        entries=entries,
    )


def _look_when_quiet(stage: Stage) -> Footprint:
    """Wait until what was set up has ended and was swept, then count."""
    flows, calls = stage.conditions.flows, stage.conditions.calls

    def is_quiet() -> bool:
        entries = look(stage).entries
        time.sleep(1)
        return entries["sessions"] <= flows + calls and entries["flows"] <= flows

    stage.until(is_quiet, "only what goes on is left")
    return look(stage)


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _weigh(stage: Stage) -> Memory:
    return {name: _private_kib(pid) for name, pid in stage.edge.pids().items()}


def _tell(memory: Memory) -> str:
    return ", ".join(f"{name} {kib / 1024:.2f} MiB" for name, kib in memory.items())


def _private_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    fields = (line.split() for line in lines)
    return sum(int(one[1]) for one in fields if one[0] in {"Private_Clean:", "Private_Dirty:"})
