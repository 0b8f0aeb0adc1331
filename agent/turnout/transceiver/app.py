"""What an application of the transceiver is: it takes a session's audio and may send some."""

from collections.abc import Mapping
from socket import socket
from typing import Protocol

from turnout.transceiver.counters import Counters
from turnout.transceiver.moving import State
from turnout.wire.rtp import RtpPacket
from turnout.wire.sdp import Codec


class Call(Protocol):
    """A session as its application sees it."""

    @property
    def session_id(self) -> str:
        """32 hex digits."""

    @property
    def clock_rate(self) -> int:
        """RTP time units a second, of both directions."""

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """The audio codec and, if it was agreed on, telephone-event."""

    @property
    def counters(self) -> Counters:
        """Where the application counts what it throws away."""

    def send_rtp(
        self, payload_type: int, marker: bool, timestamp: int, payload: bytes, now: float
    ) -> None:
        """Send one packet under the session's one SSRC and next sequence number."""


class App(Protocol):
    """The application of one call. `now` is monotonic seconds."""

    def start(self) -> None:
        """Begin: the keys are there, media may come and go. Called at most once."""

    def receive_rtp(self, packet: RtpPacket, now: float) -> None:
        """Take one authenticated packet of a negotiated payload type, never the same twice."""

    def leave(self) -> tuple[State, list[socket]]:
        """Stop, without a word to anybody: another process goes on with what is returned.

        The sockets are not closed: whoever sends them does. Called in place of `close`.
        """

    def resume(self, state: State, sockets: list[socket]) -> None:
        """Go on with what `leave` returned elsewhere. Called in place of `start`."""

    def close(self) -> None:
        """Let go of everything; the call has ended, perhaps before it started."""

    def describe(self) -> Mapping[str, object]:
        """Return what `GET /status` shows of it beside the session's own."""


class AppFactory(Protocol):
    """Makes the application of each call."""

    def __call__(self, call: Call) -> App:
        """Make an application for the call, which has not started yet."""
