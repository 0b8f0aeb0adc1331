"""A pinned program that is attached nowhere: BPF_PROG_TEST_RUN runs it on a frame of ours.

The base of sweep.py and handoff.py.
"""

from typing import ClassVar, Self

from turnout.closing import Closing
from turnout.errors import KernelError
from turnout.kernel import bpf
from turnout.kernel.pins import Pins


class PinnedProgram(Closing):
    """The program called `name`, open."""

    name: ClassVar[str]

    def __init__(self, program: int) -> None:
        """Take over its descriptor."""
        self._program = bpf.Fd(program)

    @classmethod
    def open(cls, pins: Pins) -> Self:
        """Open what the loader pinned; KernelError when it has not run."""
        try:
            return cls(bpf.open_pin(pins.loaded_program(cls.name)))
        except OSError as error:
            raise KernelError(
                f"program {cls.name} of instance {pins.instance}: {error}; run `turnout run` first"
            ) from error

    def close(self) -> None:
        """Close the descriptor; the program stays while it is pinned."""
        self._program.close()
