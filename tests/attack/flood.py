"""The attacker's process: builds a row's frames, then sends them at a rate.

Frames lie in one buffer; sendmmsg(2) on an AF_PACKET socket hands them to the device in batches,
past the queueing discipline. A batch is small: a burst would fill the edge's receive ring and what
it then loses would say nothing of the edge.
"""

import ctypes
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from attack.rows import ROWS
from system.namespaces import INTERFACE
from traffic.worker import answer

if TYPE_CHECKING:
    from attack.targets import Targets

_SOL_PACKET, _PACKET_QDISC_BYPASS = 263, 20  # linux/if_packet.h
BATCH = 32
# Held up for longer than this, the attacker does not make up for it: that would be a burst.
_BACKLOG_SECONDS = 0.1
_IOVEC_BYTES, _MMSGHDR_BYTES = 16, 64


@dataclass(frozen=True, slots=True)
class Sent:
    """What a flood came to."""

    frames: int
    refused: int  # by the device
    seconds: float

    @property
    def rate(self) -> float:
        """Packets a second."""
        return self.frames / self.seconds


class Flood:
    """Frames, ready for sendmmsg."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._count = len(frames)
        lengths = [len(frame) for frame in frames]
        self._bytes = ctypes.create_string_buffer(b"".join(frames), sum(lengths))
        base = ctypes.addressof(self._bytes)
        starts = [base + start for start in accumulate(lengths[:-1], initial=0)]
        vectors = chain.from_iterable(zip(starts, lengths, strict=True))
        self._vectors = ctypes.create_string_buffer(
            struct.pack(f"={2 * self._count}Q", *vectors), _IOVEC_BYTES * self._count
        )
        first = ctypes.addressof(self._vectors)
        # struct mmsghdr in words: name, its length, iovec, how many, control, its length, flags,
        # then what the kernel writes back.
        headers = b"".join(
            struct.pack("=8Q", 0, 0, first + _IOVEC_BYTES * number, 1, 0, 0, 0, 0)
            for number in range(self._count)
        )
        self._headers = ctypes.create_string_buffer(headers, _MMSGHDR_BYTES * self._count)

    def send(self, rate: float, seconds: float) -> Sent:
        """Send them over and over."""
        sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
        headers = ctypes.addressof(self._headers)
        sent = refused = position = 0
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
            wire.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
            wire.bind((INTERFACE, 0))
            descriptor = wire.fileno()
            began = time.monotonic()
            due_from = began
            credit = 0  # frames already sent since `due_from`
            while (now := time.monotonic()) < began + seconds:
                due = int((now - due_from) * rate) - credit
                if due < BATCH:
                    time.sleep((BATCH - due) / rate)
                    continue
                if due > max(BATCH, _BACKLOG_SECONDS * rate):
                    due_from, credit = now, 0
                batch = min(BATCH, self._count - position)
                done = sendmmsg(
                    descriptor, ctypes.c_void_p(headers + _MMSGHDR_BYTES * position), batch, 0
                )
                if done <= 0:
                    if ctypes.get_errno() not in {11, 105}:  # EAGAIN, ENOBUFS: no room
                        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
                    refused += 1
                    done = 1
                    sent -= 1
                sent += done
                credit += done
                position = (position + done) % self._count
            return Sent(sent, refused, time.monotonic() - began)


def play(pipe: Connection) -> None:
    """Build and send what the stage asks for."""
    flood: Flood | None = None
    while True:
        message = pipe.recv()
        if message[0] == "load":
            name: str = message[1]
            targets: Targets = message[2]
            frames = list(ROWS[name].build(targets))
            flood = Flood(frames) if frames else None
            answer(pipe, len(frames))
        elif message[0] == "send":
            assert flood is not None
            answer(pipe, flood.send(message[1], message[2]))
