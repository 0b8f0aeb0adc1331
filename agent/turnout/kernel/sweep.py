"""Runs the pinned `sweep` program, which takes dead flows out of the kernel's table.

The program is attached nowhere: BPF_PROG_TEST_RUN runs it on a frame that is its cursor, as often
as asked. Each run looks at a few buckets with soft interrupts off, so packets wait for some
microseconds at most. Called by the edge, through flows.py.
"""

import struct

from turnout.kernel import bpf
from turnout.kernel.pinned_program import PinnedProgram

BUCKETS_A_RUN = 16  # bpf/sweep.h SWEEP_BUCKETS
_CURSOR = struct.Struct("<I12x")  # bpf/sweep.h struct sweep_cursor


class SweepProgram(PinnedProgram):
    """The program, open."""

    name = "sweep"

    def run(self, bucket: int, buckets: int) -> int:
        """Sweep so many buckets or a few more, from `bucket` on; return the one that is next."""
        repeat = -(-buckets // BUCKETS_A_RUN)
        done = bpf.run_program(self._program, _CURSOR.pack(bucket), repeat=repeat)
        (following,) = _CURSOR.unpack(done.data)
        return int(following)
