"""What live clients send and get back: every datagram has a number and its sender's mark.

A stream is one sequence of numbers: the media of client n is stream n, its checks are stream
n + CHECKS, what a newcomer sends is NEWCOMER. The mark tells ours from what an attacker forges: he
could read it on the wire, but has no use for it. Used by clients.py, lanes.py and callers.py.
"""

import struct
from typing import NamedTuple

CHECKS = 1 << 16
NEWCOMER = 0xFFFF_FFFF
MEDIA_BYTES = 132  # 20 ms of Opus in SRTP, roughly

_RTP = struct.Struct("!BBHII")
_BODY = struct.Struct("!4sIIQ")
_TRANSACTION = struct.Struct("!4sII")  # 12 bytes, as long as STUN's transaction id
# Where the mark stands.
MEDIA_MARK, CHECK_MARK = slice(12, 16), slice(8, 12)
_PADDING = bytes(MEDIA_BYTES - _RTP.size - _BODY.size)


class Numbered(NamedTuple):
    """A datagram of ours. `sent_ns` is 0 for a check."""

    stream: int
    number: int
    sent_ns: int


def build_media(mark: bytes, stream: int, number: int, sent_ns: int) -> bytes:
    """Build an RTP-shaped datagram."""
    header = _RTP.pack(0x80, 111, number & 0xFFFF, number * 960 & 0xFFFFFFFF, stream)
    return header + _BODY.pack(mark, stream, number, sent_ns) + _PADDING


def build_transaction(mark: bytes, stream: int, number: int) -> bytes:
    """Build the transaction id of a check."""
    return _TRANSACTION.pack(mark, stream, number)


def parse(mark: bytes, datagram: bytes) -> Numbered | None:
    """Read the numbers back, None if it is none of ours."""
    if len(datagram) == MEDIA_BYTES and datagram[0] == 0x80:
        found, stream, number, sent_ns = _BODY.unpack_from(datagram, _RTP.size)
    elif len(datagram) >= 20 and datagram[0] < 2:
        (found, stream, number), sent_ns = _TRANSACTION.unpack_from(datagram, 8), 0
    else:
        return None
    return Numbered(stream, number, sent_ns) if found == mark else None


class Gaps:
    """How long each stream has been silent at most."""

    def __init__(self) -> None:
        self._last_ns: dict[int, int] = {}
        self._longest_ns: dict[int, int] = {}

    def note(self, stream: int, now_ns: int) -> None:
        """Note an arrival."""
        last_ns = self._last_ns.get(stream, now_ns)
        self._last_ns[stream] = now_ns
        if now_ns - last_ns > self._longest_ns.get(stream, 0):
            self._longest_ns[stream] = now_ns - last_ns

    def silent_ns(self, now_ns: int) -> dict[int, int]:
        """Return how long each stream has been silent by now."""
        return {stream: now_ns - last_ns for stream, last_ns in self._last_ns.items()}

    def take(self, now_ns: int) -> dict[int, int]:
        """Return each stream's longest silence since the last time, one that goes on included."""
        longest = self._longest_ns
        self._longest_ns = {}
        return {
            stream: max(longest.get(stream, 0), silent_ns)
            for stream, silent_ns in self.silent_ns(now_ns).items()
        }


class Ledger:
    """Which numbers of which streams have come."""

    def __init__(self) -> None:
        self._seen: dict[int, bytearray] = {}
        self.repeated = 0

    def note(self, stream: int, number: int) -> None:
        """Note one arrival."""
        seen = self._seen.setdefault(stream, bytearray())
        if number >= len(seen):
            seen.extend(bytes(number + 1000 - len(seen)))
        self.repeated += seen[number]
        seen[number] = 1

    def missing(self, first: dict[int, int], last: dict[int, int]) -> dict[int, int]:
        """Return by stream how many of the numbers from `first` to below `last` have not come."""
        missing = {}
        for stream, end in last.items():
            begin = first.get(stream, 0)
            came = sum(self._seen.get(stream, b"")[begin:end])
            if lost := end - begin - came:
                missing[stream] = lost
        return missing
