"""What a script that judges something ends with: a table for people, one line of JSON for machines.

The line is {"ok", "results": [{"name", "value", "bound", "met"}], "waived": [{"name", "reason"}]};
`bound` is "" for what is only told. A bound that is not met but waived, with the measurement that
shows why it cannot be, does not make the run fail. Used by vm, live, attack and bench.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass


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
