"""In the guest: compiles, loads and pins the programs as `turnout run` does, then adopts them.

Says how long each took and how large the programs are; guest.py passes the values on.
"""

import json
from pathlib import Path

from turnout.kernel.loader import load
from turnout.kernel.pins import Pins
from vm.guest import VALUES


def main() -> None:
    """Load twice: the second time nothing is compiled."""
    pins = Pins(Path("/sys/fs/bpf"), "vm")
    fresh, again = load(pins), load(pins)
    if not fresh.compiled or again.compiled:
        raise SystemExit(f"expected to compile once, then to adopt: {fresh}, {again}")
    values: dict[str, object] = {
        "compiled, verified and pinned, s": round(fresh.seconds, 1),
        "adopted, s": round(again.seconds, 2),
    }
    values |= {f"{name}, bytes": size for name, size in fresh.program_bytes.items()}
    VALUES.write_text(json.dumps(values))
    pins.remove()


if __name__ == "__main__":
    main()
