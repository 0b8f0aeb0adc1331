"""The program against the reference, on all CPUs: the same sequences, and no difference.

A worker a CPU: compiles, loads, takes one sequence after the other. What differs is made short,
printed, and written as a vector, which tests/datapath/test_differential.py runs from then on.
"""

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING

from fuzz.generate import generate
from fuzz.minimise import minimise
from fuzz.pair import Pair
from fuzz.program import Program, compile_for_test, stay_on_cpu
from fuzz.steps import Step, show_steps, write_steps
from results import Result

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

VECTORS = Path(__file__).parents[1] / "vectors" / "steering"
COMPARE_ALL_PACKETS = 1000
RATE_MIN = 3000
# Of so many packets each counter must be moved once.
MOVED_ONCE_IN = 20_000
# Counters that need not move, and why.
UNMOVED = {"returned__failed": "a helper refuses a store into a packet that was just parsed"}


@dataclass(slots=True)
class Finding:
    """Where a sequence went apart: the steps up to there, and the differences."""

    seed: str
    steps: list[Step]
    differences: list[str]


@dataclass(slots=True)
class Share:
    """What a worker has done since it said so last; `seconds` of its CPU's time."""

    worker: int
    packets: int = 0
    seconds: float = 0.0
    moved: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    ended: bool = False


def run_steps(
    pair: Pair, steps: Iterable[Step], every: int = COMPARE_ALL_PACKETS
) -> tuple[list[Step], list[str]]:
    """Run a sequence; return the steps done and the differences that ended it.

    All state is compared after `every` packets, and at the end.
    """
    pair.reset()
    done: list[Step] = []
    compared = pair.packets
    for step in steps:
        done.append(step)
        found = pair.apply(step)
        if not found and pair.packets - compared >= every:
            compared = pair.packets
            found = pair.compare_all()
        if found:
            return done, found
    return done, pair.compare_all()


def shorten(pair: Pair, finding: Finding, seconds: float = 60.0) -> Finding:
    """Return the finding with as few steps as are needed to show some difference."""
    steps = minimise(finding.steps, lambda some: bool(run_steps(pair, some)[1]), seconds)
    done, differences = run_steps(pair, steps, every=1)
    if not differences:  # it hangs on what an earlier sequence left in the kernel
        return finding
    return Finding(finding.seed, done, differences)


@dataclass(frozen=True, slots=True)
class Task:
    """What one of `workers` processes is to do: so many packets, or until it is time."""

    worker: int
    workers: int
    seed: int
    packets: int
    until: float


def work(task: Task, out: "Queue[Share]") -> None:
    """Run sequences worker, worker + workers, ... and report each."""
    stay_on_cpu(task.worker)
    with compile_for_test() as compiled:
        program = Program(compiled)
        pair = Pair(program)
        number, left = task.worker, task.packets
        while left > 0 and time.monotonic() < task.until:
            started, before, moved = time.process_time(), pair.packets, Counter(pair.moved)
            name = f"{task.seed}/{number}"
            steps, differences = run_steps(pair, generate(name))
            share = Share(task.worker, pair.packets - before, time.process_time() - started)
            share.moved = Counter(pair.moved)
            share.moved.subtract(moved)
            if differences:
                share.findings.append(shorten(pair, Finding(name, steps, differences)))
            left -= share.packets
            number += task.workers
            out.put(share)
            if share.findings:
                break
        program.close()
    out.put(Share(task.worker, ended=True))


def run(packets: int, seconds: float | None, seed: int) -> list[Result]:
    """Fuzz on all CPUs; return the rows. Findings are printed and written."""
    workers = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    out: Queue[Share] = context.Queue()
    started = time.monotonic()
    until = started + (seconds or 1e9)
    share = -(-packets // workers)
    tasks = [Task(worker, workers, seed, share, until) for worker in range(workers)]
    processes = [context.Process(target=work, args=(task, out), daemon=True) for task in tasks]
    for process in processes:
        process.start()
    total = _collect(out, processes, packets, started)
    for process in processes:
        process.join()
    for finding in total.findings:
        keep(finding)
    passed = time.monotonic() - started
    told = Result("packets a second, all together", round(total.packets / passed))
    return [*rows(total, enough=packets if seconds is None else 0), told]


def _collect(
    out: "Queue[Share]",
    processes: Sequence[multiprocessing.process.BaseProcess],
    packets: int,
    started: float,
) -> Share:
    """Sum up what the workers report, with a line now and then."""
    total, running, told = Share(-1), set(range(len(processes))), started
    while running:
        try:
            share = out.get(timeout=5)
        except Empty:
            for number in list(running):
                if not processes[number].is_alive() and processes[number].exitcode:
                    msg = f"worker {number} ended with {processes[number].exitcode}"
                    raise RuntimeError(msg) from None
            continue
        if share.ended:
            running.discard(share.worker)
        total.packets += share.packets
        total.seconds += share.seconds
        total.moved.update(share.moved)
        total.findings += share.findings
        if time.monotonic() - told > 10:
            told = time.monotonic()
            rate = total.packets / max(total.seconds, 1e-9)
            print(
                f"  {total.packets} of {packets} packets, {rate:.0f} a second a core, "
                f"{len(total.findings)} differences",
                flush=True,
            )
    return total


def keep(finding: Finding) -> Path:
    """Print a finding and write it as a vector."""
    VECTORS.mkdir(parents=True, exist_ok=True)
    path = VECTORS / f"found-{finding.seed.replace('/', '-')}.json"
    why = "; ".join(finding.differences)
    write_steps(path, why, finding.steps)
    print(
        f"\nsequence {finding.seed} differs after {len(finding.steps)} steps, kept as {path.name}:"
    )
    print(show_steps(finding.steps[-40:]))
    for difference in finding.differences:
        print(f"  -> {difference}", flush=True)
    return path


def rows(total: Share, enough: int) -> list[Result]:
    """Return what was reached, with bounds."""
    rate = total.packets / max(total.seconds, 1e-9)
    print("\n  counter                      moved by")
    for name, count in sorted(total.moved.items(), key=lambda item: item[1]):
        print(f"  {name:<28} {count}")
    least = total.packets // MOVED_ONCE_IN
    rare = [
        f"{n} {count}" for n, count in total.moved.items() if count < least and n not in UNMOVED
    ]
    return [
        Result("packets", total.packets, f">= {enough}" if enough else "", total.packets >= enough),
        Result(
            "packets a second of a core's time", round(rate), f">= {RATE_MIN}", rate >= RATE_MIN
        ),
        Result("differences", len(total.findings), "0", not total.findings),
        Result(f"counters that moved less than {least} times", ", ".join(rare) or 0, "0", not rare),
    ]
