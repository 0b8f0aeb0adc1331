"""`python -m attack [--seconds S] [--rate N] [--only ROW,ROW] [--list]`: attacks an edge.

Everything happens in network namespaces that it makes and removes; nothing of the machine's own
network is touched. Each row is one attack for some seconds, beside calls that must not notice. The
last line is JSON (tests/results.py). Called by scripts/attack.
"""

import argparse
import sys

from attack.campaign import Campaign, run_rows
from attack.judge import PACKETS_A_SECOND
from attack.rows import ROWS
from results import run_to_the_end, say

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
    rows = [ROWS["quiet"], *(ROWS[name] for name in names if name != "quiet")]
    campaign = Campaign(rate=options.rate, seconds=options.seconds)
    return run_to_the_end("scripts/attack", lambda results: run_rows(rows, campaign, results, say))


if __name__ == "__main__":
    sys.exit(main())
