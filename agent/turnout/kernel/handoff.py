"""Runs the pinned `follow` program, which moves one flow to its session's new owner.

Attached nowhere, like `sweep`: BPF_PROG_TEST_RUN runs it on a frame that names the flow. Called by
the edge, through steering.py.
"""

import struct
from dataclasses import dataclass

from turnout.kernel import bpf
from turnout.kernel.pinned_program import PinnedProgram
from turnout.wire.mapped_address import build_mapped

# bpf/handoff.h struct hand_off: ufrag_hash, key (client, port, vip), from (slot, generation),
# followed.
_HAND_OFF = struct.Struct("=Q16s2sHHBxI4x")


@dataclass(frozen=True, slots=True)
class FlowToMove:
    """A flow, and the owner it is to be taken from. `vip`: index in the kernel's settings."""

    client: str
    client_port: int
    vip: int
    slot: int
    generation: int


class FollowProgram(PinnedProgram):
    """The program, open."""

    name = "follow"

    def run(self, ufrag_hash: int, flow: FlowToMove) -> bool:
        """Give the flow the owner that its session has; False if there is no such flow."""
        frame = _HAND_OFF.pack(
            ufrag_hash,
            build_mapped(flow.client),
            flow.client_port.to_bytes(2, "big"),
            flow.vip,
            flow.slot,
            flow.generation,
            0,
        )
        done = bpf.run_program(self._program, frame)
        return bool(_HAND_OFF.unpack(done.data)[-1])
