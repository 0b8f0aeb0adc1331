"""What a script that judges something ends with: a table for people, one line of JSON for machines.

The line is {"ok", "results": [{"name", "value", "bound", "met"}], "waived": [{"name", "reason"}]};
`bound` is "" for what is only told. A bound that is not met but waived, with the measurement that
shows why it cannot be, does not make the run fail. Used by vm, live, attack, chaos and
bench.
"""

import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import NoReturn


@dataclass(frozen=True, slots=True)
class Result:
    """One line: what was measured, what it may be, and whether it is."""

    name: str
    value: object
    bound: str = ""
    met: bool = True


@dataclass(frozen=True, slots=True)
class Waiver:
    """The name of a Result that need not be met, and what was measured that shows why."""

    name: str
    reason: str


def print_results(results: Sequence[Result], waived: Sequence[Waiver] = ()) -> None:
    """Print the table, and below it why what is waived is waived."""
    width = max((len(result.name) for result in results), default=0)
    names = {waiver.name for waiver in waived}
    for result in results:
        mark = "ok" if result.met else "--" if result.name in names else "NO"
        bound = f"  (bound: {result.bound})" if result.bound else ""
        print(f"  {mark}  {result.name:<{width}}  {result.value}{bound}", flush=True)
    for waiver in waived:
        print(f"  waived: {waiver.name}: {waiver.reason}", flush=True)


def conclude(results: Sequence[Result], waived: Sequence[Waiver] = ()) -> bool:
    """Print the table and, last of all, the line of JSON; return whether every bound is met.

    Only what is not met is waived: a waiver for a bound that is met is left out.
    """
    missed = {result.name for result in results if not result.met}
    waived = [waiver for waiver in waived if waiver.name in missed]
    print()
    print_results(results, waived)
    ok = bool(results) and missed <= {waiver.name for waiver in waived}
    document = {
        "ok": ok,
        "results": [asdict(result) for result in results],
        "waived": [asdict(waiver) for waiver in waived],
    }
    print(json.dumps(document), flush=True)
    return ok


def run_to_the_end(script: str, play: Callable[[list[Result]], None]) -> int:
    """Play rows, which adds results as they come, then conclude; returns the exit status.

    They end by themselves, by Ctrl-C or SIGTERM, or by what went wrong.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    results: list[Result] = []
    try:
        play(results)
    except KeyboardInterrupt:
        results.append(Result("all rows", "interrupted", "run", met=False))
    except (AssertionError, RuntimeError) as error:
        print(f"{script}: {error}", file=sys.stderr)
        said = str(error).splitlines() or [repr(error)]
        results.append(Result("all rows", said[0], "run", met=False))
    return 0 if conclude(results) else 1


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Once: what has been put up is taken down undisturbed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
