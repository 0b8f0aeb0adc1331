"""One time line of ours for RTP that comes from sources of another's: used by the applications."""

import secrets

from turnout.wire.rtp import RtpPacket


class TimeLine:
    """Maps the time stamps of one source after another to a line without breaks."""

    __slots__ = ("_clock_rate", "_offset", "_sent_at", "_source", "_timestamp")

    def __init__(self, clock_rate: int) -> None:
        self._clock_rate = clock_rate
        self._source: int | None = None
        self._offset = 0
        self._timestamp = secrets.randbits(32)
        self._sent_at = 0.0

    def map(self, packet: RtpPacket, now: float) -> int:
        """Return the packet's time stamp on our line."""
        if packet.ssrc != self._source:
            self._follow(packet, now)
        self._timestamp = packet.timestamp + self._offset & 0xFFFFFFFF
        self._sent_at = now
        return self._timestamp

    def _follow(self, packet: RtpPacket, now: float) -> None:
        """Take a new source: its time line goes on where ours is by now."""
        elapsed = 0 if self._source is None else int((now - self._sent_at) * self._clock_rate)
        # Two packets never share a time stamp: a receiver would take them for one frame.
        start = self._timestamp + max(elapsed, 1)
        self._offset = start - packet.timestamp
        self._source = packet.ssrc
