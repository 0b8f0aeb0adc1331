"""`python -m chaos [--only ROW,ROW] [--seconds S] [--flows N] [--list]`, or `--soak TIME`.

Everything happens in network namespaces that it makes and removes. Each row is one event, beside
numbered packets every 20 ms in each flow and real calls, which must not notice; a soak is calls set
up and ended all the time. The last line is JSON (tests/results.py). Called by scripts/chaos.
"""

import argparse
import sys
from dataclasses import replace

from chaos.judge import Line, describe, judge, table
from chaos.laboratory import open_stage
from chaos.measured import Measured
from chaos.row import Row
from chaos.rows import QUIET, ROWS
from chaos.soak import Soak, soak
from chaos.stage import Conditions, Stage
from results import Result, print_results, run_to_the_end, say

_UNITS = {"s": 1, "m": 60, "h": 3600}


def run_rows(rows: list[Row], conditions: Conditions, results: list[Result]) -> list[Line]:
    """Run the rows, the quiet one first; results are added as they come."""
    lines: list[Line] = []

    def run(stage: Stage, row: Row, quiet: Measured | None = None) -> Measured:
        say(f"== {row.name}: {row.title}")
        found, measured = stage.run(row.happen)
        lines.append(Line(row.name, measured))
        judged = judge(row, found, measured, quiet or measured)
        print_results(judged)
        for text in describe(measured):
            say(f"        {text}")
        results.extend(judged)
        return measured

    with open_stage(conditions, say) as stage:
        quiet = run(stage, rows[0])
        for row in rows[1:]:
            if row.among is None:
                run(stage, row, quiet)
                continue
            with row.among(stage):
                calm = replace(QUIET, name=f"{row.name}, quiet")
                run(stage, row, run(stage, calm))
    return lines


def main() -> int:
    """Do it; return the exit status."""
    options = _parse()
    if options.list:
        for row in ROWS.values():
            print(f"{row.name:<20}{row.title}")
        return 0
    return run_to_the_end("scripts/chaos", lambda results: _play(options, results))


def _play(options: argparse.Namespace, results: list[Result]) -> None:
    if options.soak:
        soak(Soak(options.soak, options.setups), results, say)
        return
    names = [name for name in options.only if name != "quiet"]
    conditions = Conditions(options.seconds, options.flows, chromium=True)
    rows = [ROWS["quiet"], *(ROWS[name] for name in names)]
    lines = run_rows(rows, conditions, results)
    say("")
    for text in table(lines):
        say(text)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="Let things happen to it.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row, at least (10)")
    parser.add_argument("--flows", type=int, default=200, help="numbered flows (default 200)")
    parser.add_argument("--only", metavar="ROW,ROW", help="these rows, and the quiet one first")
    parser.add_argument("--list", action="store_true", help="say what the rows are, and end")
    parser.add_argument("--soak", metavar="TIME", help="no rows: set-ups for 60s, 30m, 2h")
    parser.add_argument("--setups", type=float, default=20.0, help="a second, in a soak (20)")
    options = parser.parse_args()
    options.only = options.only.split(",") if options.only else list(ROWS)
    for name in options.only:
        if name not in ROWS:
            parser.error(f"{name!r} is no row; --list says which there are")
    if options.soak:
        number, unit = options.soak[:-1], options.soak[-1]
        if unit not in _UNITS or not number.isdecimal():
            parser.error(f"--soak {options.soak}: a number with s, m or h behind it")
        options.soak = float(number) * _UNITS[unit]
    return options


if __name__ == "__main__":
    sys.exit(main())
