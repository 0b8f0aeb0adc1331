"""The application `echo`: what a client says goes back to it."""

from collections.abc import Mapping
from socket import socket

from turnout.transceiver.app import Call
from turnout.transceiver.moving import State, put_slots, take_slots
from turnout.transceiver.timeline import TimeLine
from turnout.wire.rtp import RtpPacket


class Echo:
    """Sends every packet back in the order of arrival, on one time line of our own."""

    __slots__ = ("_call", "_time_line")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._time_line = TimeLine(call.clock_rate)

    def start(self) -> None:
        """Nothing is needed before the first packet."""

    def receive_rtp(self, packet: RtpPacket, now: float) -> None:
        """Send the packet back."""
        timestamp = self._time_line.map(packet, now)
        self._call.send_rtp(packet.payload_type, packet.marker, timestamp, packet.payload, now)

    def leave(self) -> tuple[State, list[socket]]:
        """Return the time line."""
        return take_slots(self._time_line), []

    def resume(self, state: State, sockets: list[socket]) -> None:  # noqa: ARG002 - see app.App
        """Go on with it."""
        self._time_line = put_slots(TimeLine, state)

    def close(self) -> None:
        """Nothing is held."""

    def describe(self) -> Mapping[str, object]:
        """Return nothing: the session says it all."""
        return {}
