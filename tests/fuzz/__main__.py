"""`python -m fuzz`: everything that is fuzzed, part after part; called by scripts/fuzz.

Each part is a function that returns results; the last line is one of JSON (results.py).
"""

import argparse
import importlib
import os
import sys
import time

from results import Result, conclude

PARTS = ("differential", "seeded", "host", "transceiver", "doors")
PACKETS = 2_000_000
# For the parts that are bounded by time only.
SECONDS = 60.0


def run_part(name: str, options: argparse.Namespace) -> list[Result]:
    """Run one part; import it only then: not every part needs what the others do."""
    module = importlib.import_module(f"fuzz.{name}")
    rows: list[Result]
    if name == "differential":
        rows = module.run(options.packets, options.seconds, options.seed)
    elif name == "seeded":
        rows = module.run(options.seed)
    else:
        rows = module.run(options.seconds or SECONDS, options.seed)
    return rows


def main() -> int:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--packets", type=int, default=PACKETS, help="of the differential part")
    parser.add_argument("--seconds", type=float, help="end each part after so long; not `seeded`")
    parser.add_argument("--seed", type=int, help="run the same again; default: of this moment")
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts only")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: BPF programs")
    if options.seed is None:
        options.seed = int(time.time())
    print(f"seed {options.seed}", flush=True)
    results: list[Result] = []
    for part in options.only or PARTS:
        print(f"\n== {part}", flush=True)
        results += run_part(part, options)
    return 0 if conclude(results) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("scripts/fuzz: interrupted")
