"""Which installation of Turnout the processes of an edge are started from.

`turnout run` writes its own down; `turnout upgrade`, run from another one, puts that in its place,
and whatever the supervisor starts from then on is started from there.
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn, Self

from turnout.files import write_whole

_FILE = "installation.json"
# What says beside the interpreter where code is found: in a clone, and in tests.
_VARIABLES = ("PYTHONPATH", "TURNOUT_BPF")
# `python -m` looks for modules where it is started, first of all: root may stand in /tmp.
_SAFE_PATH = {"PYTHONSAFEPATH": "1"}
# What an unprivileged process gets of root's environment: there may be secrets in the rest.
_HARMLESS = re.compile(r"PATH|LANG|TZ|(LC|LD|PYTHON|SSL|OPENSSL|MALLOC|TURNOUT)_?\w+")


@dataclass(frozen=True, slots=True)
class Installation:
    """An interpreter, and the variables by which it finds the package."""

    python: str
    variables: Mapping[str, str]

    @classmethod
    def mine(cls) -> Self:
        """Return that of this process."""
        found = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        return cls(sys.executable, found)

    @classmethod
    def of(cls, runtime: Path) -> Self:
        """Return that of an instance; our own where nothing is written down."""
        try:
            values = json.loads((runtime / _FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls.mine()
        return cls(values["python"], values["variables"])

    @staticmethod
    def is_known(runtime: Path) -> bool:
        """Tell whether the instance's supervisor starts children from what is written down."""
        return (runtime / _FILE).exists()

    def write(self, runtime: Path) -> None:
        """Write it down, in one piece."""
        write_whole(runtime / _FILE, json.dumps(asdict(self)))

    def become(self) -> NoReturn:
        """Run this very command line as this installation does, in the place of this process."""
        arguments = (self.python, *sys.orig_argv[1:])
        os.execve(self.python, arguments, self.environment)  # noqa: S606 - a shell is not wanted

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that is started from it."""
        kept = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
        return kept | dict(self.variables) | _SAFE_PATH

    @property
    def bare_environment(self) -> dict[str, str]:
        """The same for a process that is not trusted with root's secrets."""
        return {
            name: value for name, value in self.environment.items() if _HARMLESS.fullmatch(name)
        }
