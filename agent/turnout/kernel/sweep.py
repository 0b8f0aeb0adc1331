"""Runs the pinned `sweep` program, which takes dead flows out of the kernel's table.

The program is attached nowhere: BPF_PROG_TEST_RUN runs it on a frame that is its cursor, as often
as asked. Each run looks at a few buckets with soft interrupts off, so packets wait for some
microseconds at most. Called by the edge, through flows.py.
"""

import struct
from types import TracebackType
from typing import Self

from turnout.errors import KernelError
from turnout.kernel import bpf
from turnout.kernel.pins import Pins

BUCKETS_A_RUN = 16  # bpf/sweep.h SWEEP_BUCKETS
_CURSOR = struct.Struct("<I12x")  # bpf/sweep.h struct sweep_cursor


class SweepProgram:
    """The program, open."""

    def __init__(self, program: int) -> None:
        """Take over its descriptor."""
        self._program = bpf.Fd(program)

    @classmethod
    def open(cls, pins: Pins) -> Self:
        """Open what the loader pinned; KernelError when it has not run."""
        try:
            return cls(bpf.open_pin(pins.loaded_program("sweep")))
        except OSError as error:
            msg = f"program sweep of instance {pins.instance}: {error}; run `turnout run` first"
            raise KernelError(msg) from error

    def run(self, bucket: int, buckets: int) -> int:
        """Sweep so many buckets or a few more, from `bucket` on; return the one that is next."""
        repeat = -(-buckets // BUCKETS_A_RUN)
        done = bpf.run_program(self._program, _CURSOR.pack(bucket), repeat=repeat)
        (following,) = _CURSOR.unpack(done.data)
        return int(following)

    def close(self) -> None:
        """Close the descriptor; the program stays while it is pinned."""
        self._program.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
