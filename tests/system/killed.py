"""Runs a command of turnout that is killed (-9) at a step: MODULE:FUNCTION:before|after ARGUMENTS.

Only for tests: what an upgrade leaves at any moment must be something to go on from.
"""

import os
import signal
import sys
from importlib import import_module
from typing import Any

from turnout.cli.main import main


def kill_at(step: str) -> None:
    """Put a kill before or after the named function."""
    module, path, when = step.split(":")
    *outer, name = path.split(".")
    holder: Any = import_module(module)
    for part in outer:
        holder = getattr(holder, part)
    function = getattr(holder, name)

    def wrapped(*arguments: Any, **named: Any) -> None:
        if when == "after":
            function(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(holder, name, wrapped)


if __name__ == "__main__":
    kill_at(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
