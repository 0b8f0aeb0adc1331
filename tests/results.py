"""What a script that judges something ends with: a table for people, one line of JSON for machines.

The line is {"ok", "results": [{"name", "value", "bound", "met"}], "waived"}; `bound` is "" for what
is only told. Used by vm and live.
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


def print_results(results: Sequence[Result]) -> None:
    """Print the table."""
    width = max((len(result.name) for result in results), default=0)
    for result in results:
        mark = "ok" if result.met else "NO"
        bound = f"  (bound: {result.bound})" if result.bound else ""
        print(f"  {mark}  {result.name:<{width}}  {result.value}{bound}", flush=True)


def conclude(results: Sequence[Result]) -> bool:
    """Print the table and, last of all, the line of JSON; return whether every bound is met."""
    print()
    print_results(results)
    ok = bool(results) and all(result.met for result in results)
    document = {"ok": ok, "results": [asdict(result) for result in results], "waived": []}
    print(json.dumps(document), flush=True)
    return ok
