"""The application `echo`: what a client says goes back to it."""

import secrets

from turnout.transceiver.app import Call
from turnout.wire.rtp import RtpPacket


class Echo:
    """Sends every packet back in the order of arrival, on one time line of our own."""

    __slots__ = ("_call", "_offset", "_sent_at", "_source", "_timestamp")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._source: int | None = None
        self._offset = 0
        self._timestamp = secrets.randbits(32)
        self._sent_at = 0.0

    def receive_rtp(self, packet: RtpPacket, now: float) -> None:
        """Send the packet back."""
        if packet.ssrc != self._source:
            self._follow(packet, now)
        timestamp = packet.timestamp + self._offset & 0xFFFFFFFF
        self._timestamp = timestamp
        self._sent_at = now
        self._call.send_rtp(packet.payload_type, packet.marker, timestamp, packet.payload, now)

    def _follow(self, packet: RtpPacket, now: float) -> None:
        """Take the client's new source: its time line goes on where ours is by now."""
        elapsed = 0 if self._source is None else int((now - self._sent_at) * self._call.clock_rate)
        # Two packets never share a time stamp: a receiver would take them for one frame.
        start = self._timestamp + max(elapsed, 1)
        self._offset = start - packet.timestamp
        self._source = packet.ssrc

    def close(self) -> None:
        """Nothing is held."""
