"""What an application of the transceiver is: it takes a session's audio and may send some."""

from typing import Protocol

from turnout.wire.rtp import RtpPacket


class Call(Protocol):
    """A connected session as its application sees it."""

    @property
    def clock_rate(self) -> int:
        """RTP time units a second, of both directions."""

    def send_rtp(
        self, payload_type: int, marker: bool, timestamp: int, payload: bytes, now: float
    ) -> None:
        """Send one packet under the session's one SSRC and next sequence number."""


class App(Protocol):
    """The application of one call. `now` is monotonic seconds."""

    def receive_rtp(self, packet: RtpPacket, now: float) -> None:
        """Take one authenticated packet of a negotiated payload type, never the same twice."""

    def close(self) -> None:
        """Let go of everything; the call has ended."""


class AppFactory(Protocol):
    """Makes the application of each call."""

    def __call__(self, call: Call) -> App:
        """Start an application for the call."""
