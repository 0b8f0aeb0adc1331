"""`python -m attack [--seconds S] [--rate N] [--only ROW,ROW] [--list]`: attacks an edge.

Everything happens in network namespaces that it makes and removes; nothing of the machine's own
network is touched. Each row is one attack for some seconds, beside calls that must not notice. The
last line is JSON (tests/results.py). Called by scripts/attack.
"""

import argparse
import signal
import sys
from types import FrameType
from typing import NoReturn

from attack.campaign import Campaign, run_rows
from attack.judge import PACKETS_A_SECOND
from attack.rows import ROWS
from results import Result, conclude
from traffic.worker import WorkerFailed

# A little more than what has to be achieved.
RATE = PACKETS_A_SECOND * 1.15


def main() -> int:
    """Do it; return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/attack", description="Attack an edge.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row (default 10)")
    parser.add_argument(
        "--rate", type=float, default=RATE, help=f"packets a second (default {RATE:.0f})"
    )
    parser.add_argument("--only", metavar="ROW,ROW", help="these rows, and the quiet one first")
    parser.add_argument("--list", action="store_true", help="say what the rows are, and end")
    options = parser.parse_args()
    if options.list:
        for row in ROWS.values():
            print(f"{row.name:<24}{row.title}")
        return 0
    names = options.only.split(",") if options.only else list(ROWS)
    for name in names:
        if name not in ROWS:
            parser.error(f"{name!r} is no row; --list says which there are")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    results: list[Result] = []
    try:
        rows = [ROWS["quiet"], *(ROWS[name] for name in names if name != "quiet")]
        run_rows(rows, Campaign(rate=options.rate, seconds=options.seconds), results, say)
    except KeyboardInterrupt:
        results.append(Result("all rows", "interrupted", "run", met=False))
    except (WorkerFailed, AssertionError, RuntimeError) as error:
        print(f"scripts/attack: {error}", file=sys.stderr)
        results.append(Result("all rows", str(error).splitlines()[0], "run", met=False))
    return 0 if conclude(results) else 1


def say(text: str) -> None:
    """Print one line of progress."""
    print(text, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Once: what has been put up is taken down undisturbed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
