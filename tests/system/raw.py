"""Sessions without WebRTC behind them: every datagram carries its session's number and its own.

A raw owner is a bare socket at a lane, registered over the local API; a raw client is a socket
that sends checks and RTP-shaped packets. What arrives where can so be told by content alone.
"""

import select
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from socket import socket
from typing import NamedTuple

from aioice import stun

from system.edge_process import EdgeProcess
from system.lab import SHARED_PORT, Lab
from system.namespaces import EDGE_ADDRESSES

_NUMBER = struct.Struct("!IQ")  # session, packet: 12 bytes, as long as a STUN transaction id
_RTP = struct.Struct("!BBHII")
_PATIENCE_S = 10.0


class Arrival(NamedTuple):
    """A datagram that reached an owner or a client."""

    kind: str  # "check" or "media"
    session: int
    packet: int
    source: tuple[str, int]


@dataclass(frozen=True, slots=True)
class RawSession:
    """A session of the local API, known by its number in the test."""

    number: int
    id: str
    ufrag: str
    pwd: str

    def build_check(self, packet: int, *, nominate: bool = True) -> bytes:
        """Build a Binding request as a client sends it, MESSAGE-INTEGRITY and FINGERPRINT last."""
        message = stun.Message(
            stun.Method.BINDING,
            stun.Class.REQUEST,
            transaction_id=_NUMBER.pack(self.number, packet),
            attributes={"USERNAME": f"{self.ufrag}:clnt", "PRIORITY": 1, "ICE-CONTROLLING": 1},
        )
        if nominate:
            message.attributes["USE-CANDIDATE"] = None
        message.add_message_integrity(self.pwd.encode())
        message.add_fingerprint()
        return bytes(message)

    def build_media(self, packet: int) -> bytes:
        """Build an RTP-shaped datagram."""
        header = _RTP.pack(0x80, 111, packet & 0xFFFF, packet * 960 & 0xFFFFFFFF, self.number)
        return header + _NUMBER.pack(self.number, packet)


def parse_arrival(datagram: bytes, source: tuple[str, int]) -> Arrival:
    """Read the numbers back."""
    is_media = datagram[0] == 0x80
    # A check carries the numbers as its transaction id, after type, length and cookie.
    session, packet = _NUMBER.unpack_from(datagram, _RTP.size if is_media else 8)
    return Arrival("media" if is_media else "check", session, packet, source)


@dataclass
class RawOwner:
    """An owner at `lane`: one socket for each family, and a slot in the kernel's map."""

    slot: int
    lane: int
    sockets: dict[int, socket]

    def receive(self, count: int) -> list[Arrival]:
        """Wait for so many datagrams and return them; what else is there stays unread."""
        received: list[Arrival] = []
        while len(received) < count:
            readable, _, _ = select.select(self.sockets.values(), [], [], _PATIENCE_S)
            assert readable, f"owner {self.slot} got {len(received)} datagrams of {count}"
            received += [self._read(ready) for ready in readable[: count - len(received)]]
        return received

    def drain(self) -> list[Arrival]:
        """Return what is in the sockets now."""
        received: list[Arrival] = []
        while readable := select.select(self.sockets.values(), [], [], 0)[0]:
            received += [self._read(ready) for ready in readable]
        return received

    def send(self, datagram: bytes, to: tuple[str, int]) -> None:
        """Send from the lane, as a transceiver does."""
        self.sockets[ip_address(to[0]).version].sendto(datagram, to)

    def _read(self, ready: socket) -> Arrival:
        datagram, source = ready.recvfrom(2048)
        return parse_arrival(datagram, source[:2])


@dataclass
class RawClient:
    """A client's socket towards one VIP."""

    socket: socket
    vip: tuple[str, int]

    @property
    def address(self) -> tuple[str, int]:
        """Where the edge sees it."""
        host, port = self.socket.getsockname()[:2]
        return host, port

    def send(self, datagram: bytes) -> None:
        """Send to (VIP, shared port)."""
        self.socket.sendto(datagram, self.vip)

    def receive(self) -> tuple[bytes, tuple[str, int]]:
        """Return the next datagram and its source."""
        datagram, source = self.socket.recvfrom(2048)
        return datagram, source[:2]


@contextmanager
def raw_owner(lab: Lab, lane: int) -> Iterator[RawOwner]:
    """Open and register an owner; unregister and close it at the end."""
    sockets = {family: lab.edge_socket(lane, family) for family in EDGE_ADDRESSES}
    slot = lab.edge.api("POST", "/owners", {"lane": lane})["slot"]
    try:
        yield RawOwner(slot, lane, sockets)
    finally:
        lab.edge.api("DELETE", f"/owners/{slot}")
        for opened in sockets.values():
            opened.close()


@contextmanager
def raw_client(lab: Lab, family: int = 4) -> Iterator[RawClient]:
    """Open a client's socket."""
    with lab.client_socket(family) as opened:
        yield RawClient(opened, (EDGE_ADDRESSES[family], SHARED_PORT))


def add_session(edge: EdgeProcess, number: int, owner: RawOwner) -> RawSession:
    """Register a session over the local API. Its ufrag has another length for each number."""
    ufrag = f"s{number:03d}" + "x" * (number % 40)
    pwd = f"passwordOfSession{number:05d}"
    made = edge.api("POST", "/sessions", {"ufrag": ufrag, "pwd": pwd, "owner": owner.slot})
    return RawSession(number, made["id"], ufrag, pwd)
