"""The application `rtp://host:port`: each call is plain RTP on a local UDP socket of its own.

Made by __main__.py, one `Bridges` a process and one `Bridge` a call. The backend sees the client's
packets as they were before SRTP; what it sends leaves under the session's own SSRC and sequence
numbers. A webhook tells it which socket is which call. RTCP stays between client and transceiver.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from turnout.errors import WireError
from turnout.transceiver.app import Call
from turnout.transceiver.moving import State, put_slots, take_slots
from turnout.transceiver.timeline import TimeLine
from turnout.wire.rtp import RTP_HEADER_BYTES, RtpPacket, build_rtp, is_rtcp, parse_rtp

logger = logging.getLogger(__name__)

# Packets read at one wake-up before others have their turn.
_DRAIN_MOST = 32
# More than SRTP takes: a longer one is cut off here and refused there.
_READ_BYTES = 2048

Announcement = dict[str, Any]
Announce = Callable[[Announcement], None]


@dataclass(frozen=True, slots=True)
class Backend:
    """Where the calls' RTP goes."""

    family: socket.AddressFamily
    address: tuple[Any, ...]  # as connect() takes it

    @classmethod
    def find(cls, url: str) -> "Backend":
        """Resolve rtp://host:port, once. Raises OSError naming it if it cannot be."""
        split = urlsplit(url)
        try:
            found = socket.getaddrinfo(split.hostname, split.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise OSError(error.errno, f"{url}: {error.strerror}") from error
        family, _, _, _, address = found[0]
        return cls(family, address)


class Bridges:
    """Makes the bridge of each call (an app.AppFactory)."""

    def __init__(self, backend: Backend, announce: Announce) -> None:
        """`announce` gets what is to be told of a call, as plain JSON values."""
        self._backend = backend
        self._announce = announce

    def __call__(self, call: Call) -> "Bridge":
        """Return a bridge for the call."""
        return Bridge(call, self._backend, self._announce)


class Bridge:
    """One call's RTP to and from the backend; it has a socket while the call is connected."""

    __slots__ = ("_announce", "_backend", "_call", "_payload_types", "_socket", "_time_line")

    def __init__(self, call: Call, backend: Backend, announce: Announce) -> None:
        self._call = call
        self._backend = backend
        self._announce = announce
        self._payload_types = frozenset(codec.payload_type for codec in call.codecs)
        self._time_line = TimeLine(call.clock_rate)
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Open the call's socket and announce it."""
        opened = socket.socket(self._backend.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            # Connected: only the backend's packets come in, and its absence is told (ICMP).
            opened.connect(self._backend.address)
        except OSError as error:
            opened.close()
            self._call.counters.bridge__failed += 1
            logger.warning("session %s: no bridge: %s", self._call.session_id, error)
            return
        self._socket = opened
        asyncio.get_running_loop().add_reader(opened, self._drain)
        self._announce(self._build_announcement("call_started"))

    def receive_rtp(self, packet: RtpPacket, now: float) -> None:  # noqa: ARG002 - see app.App
        """Hand the client's packet to the backend: its SSRC, sequence number and time stamp."""
        opened = self._socket
        counters = self._call.counters
        if opened is None:
            counters.bridge__unsent += 1
            return
        try:
            opened.send(build_rtp(packet))
        except OSError as error:
            self._count_failure(error)
        else:
            counters.bridge__sent += 1

    def _drain(self) -> None:
        opened = self._socket
        if opened is None:
            return
        now = time.monotonic()
        for _ in range(_DRAIN_MOST):
            try:
                data = opened.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:  # what became of a packet that we sent
                self._count_failure(error)
                continue
            self._receive(data, now)

    def _count_failure(self, error: OSError) -> None:
        """Count a packet that did not reach the backend; the call goes on."""
        if isinstance(error, ConnectionRefusedError):
            self._call.counters.bridge__refused += 1
        else:
            self._call.counters.bridge__unsent += 1
        logger.debug("session %s: to the backend: %s", self._call.session_id, error)

    def _receive(self, data: bytes, now: float) -> None:
        counters = self._call.counters
        counters.bridge__received += 1
        if len(data) >= RTP_HEADER_BYTES and is_rtcp(data):
            counters.bridge__ignored_rtcp += 1
            return
        try:
            packet = parse_rtp(data)
        except WireError:
            counters.bridge__bad_rtp += 1
            return
        if packet.payload_type not in self._payload_types:
            counters.bridge__payload_type += 1
            return
        timestamp = self._time_line.map(packet, now)
        self._call.send_rtp(packet.payload_type, packet.marker, timestamp, packet.payload, now)

    def leave(self) -> tuple[State, list[socket.socket]]:
        """Return the time line, and the socket with all that waits in it."""
        opened, self._socket = self._socket, None
        if opened is not None:
            asyncio.get_running_loop().remove_reader(opened)
        return take_slots(self._time_line), [] if opened is None else [opened]

    def resume(self, state: State, sockets: list[socket.socket]) -> None:
        """Go on with them."""
        self._time_line = put_slots(TimeLine, state)
        for opened in sockets:
            self._socket = opened
            asyncio.get_running_loop().add_reader(opened, self._drain)

    def close(self) -> None:
        """Close the socket and announce the end, if the call had started."""
        if self._socket is None:
            return
        ended = self._build_announcement("call_ended")
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        self._announce(ended)

    def describe(self) -> Mapping[str, object]:
        """Return the two ends of the bridge, None before the call has started."""
        return {"rtp": self._ends()}

    def _ends(self) -> dict[str, str] | None:
        opened = self._socket
        if opened is None:
            return None
        return {
            "address": _format_address(opened.getsockname()),
            "backend": _format_address(opened.getpeername()),
        }

    def _build_announcement(self, event: str) -> Announcement:
        return {
            "event": event,
            "call": self._call.session_id,
            "rtp": self._ends(),
            "codecs": [
                {
                    "payload_type": codec.payload_type,
                    "name": codec.name,
                    "clock_rate": codec.clock_rate,
                    "channels": codec.channels,
                    "parameters": codec.parameters or "",
                }
                for codec in self._call.codecs
            ],
        }


def _format_address(address: tuple[Any, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
