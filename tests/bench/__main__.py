"""`python -m bench SUBCOMMAND`: the benchmarks (called by scripts/bench).

Each prints a table and, last of all, one line of JSON (see results.py).
"""

import argparse
import platform
import re
import sys
from pathlib import Path

from bench import steer_cost
from results import conclude
from turnout.errors import TurnoutError

ROUNDS = 21
QUICK_ROUNDS = 1

STEER_COST = """\
Measures what the kernel programs cost: nanoseconds a packet, by BPF_PROG_TEST_RUN, which runs a
program on a frame in memory again and again. No interface is touched, nothing is attached.

Rows: an empty program and a bare XDP_TX; the floor (our parser, match and classes, the port
rewritten to a constant, one counter, no table); an established flow, always the same (hot) and any
of many at random, on Turnout's table and on the kernel's LRU hash; a check of a known flow; checks
that are learned, so verified with HMAC-SHA1 first; junk; what is not ours; the way out. IPv4, IPv6.

Every row is run once a round, one after the other, so that what drifts drifts for all; a figure is
the median over the rounds with its quartiles, and a ratio is formed within each round. Where the
benchmark must write another client into the frame, what that costs is measured as a row of its own
("alone") and subtracted. Caches are shared: let nothing else run on the machine meanwhile."""


def main() -> int:
    """Run what is asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Benchmarks of Turnout. Each explains itself: scripts/bench SUBCOMMAND --help.",
        allow_abbrev=False,
    )
    subcommands = parser.add_subparsers(dest="subcommand", required=True)
    add_steer_cost(subcommands)
    options = parser.parse_args()
    print(describe_machine(), flush=True)
    try:
        rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        results = steer_cost.measure(rounds, quick=options.quick)
    except (TurnoutError, OSError, RuntimeError) as error:
        sys.exit(f"scripts/bench: {error}")
    met = conclude(results, steer_cost.WAIVED)
    return 0 if met or not options.check else 1


def add_steer_cost(subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subcommands.add_parser(
        "steer-cost",
        help="ns a packet in the kernel programs",
        description=STEER_COST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 when a bound is not met and not waived"
    )
    parser.add_argument("--rounds", type=positive, help=f"how many (default: {ROUNDS})")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="some seconds, to see that it runs: small tables, nothing is judged",
    )


def positive(text: str) -> int:
    """Read a number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: one round at least")
    return number


def describe_machine() -> str:
    """Name kernel and CPU."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    cpu = model[1] if model else platform.machine()
    return f"== Linux {platform.release()}, {cpu}"


if __name__ == "__main__":
    sys.exit(main())
