"""The sockets at (VIP, lane), one a VIP: datagrams in and out. Built by worker.py.

VIPs come and go while sessions live. A socket has a number, which its flows carry.
"""

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Callable, Sequence

from turnout.transceiver.counters import Counters
from turnout.transceiver.flow import Address, Flow

logger = logging.getLogger(__name__)

# Datagrams read at one wake-up before timers and the control socket have their turn.
_DRAIN_MOST = 64
# More than any datagram we have use for; a longer one is cut off and dropped.
_READ_BYTES = 2048
# 20 ms of 2,000 calls are 2,000 packets of some 200 bytes, which the kernel books as 768 each.
_SOCKET_BUFFER_BYTES = 4 << 20
# SO_RCVBUFFORCE and SO_SNDBUFFORCE (linux/socket.h), which the socket module does not name.
_BUFFER_OPTIONS = ((socket.SO_RCVBUF, 33), (socket.SO_SNDBUF, 32))
# IP_FREEBIND and IPV6_FREEBIND (linux/in.h, linux/in6.h).
_FREEBIND = {
    socket.AF_INET: (socket.IPPROTO_IP, 15),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),
}


# (datagram, the socket's number, where it came from, monotonic seconds)
Receive = Callable[[bytes, int, Address, float], None]


class LaneSockets:
    """One socket for each VIP, by number; that of a VIP which is taken away is never another's."""

    def __init__(self, vips: Sequence[str], lane: int, counters: Counters) -> None:
        """Bind (VIP, lane) for every VIP; lane 0 takes what the first socket is given."""
        self.lane = lane
        self._counters = counters
        self._receive: Receive | None = None
        self._numbers = itertools.count()
        self._vips: dict[int, str] = {}
        self._sockets: dict[int, socket.socket] = {}
        for vip in vips:
            opened = _open(vip, self.lane)
            self.lane = opened.getsockname()[1]
            self._add(vip, opened)

    @property
    def vips(self) -> list[str]:
        """The VIPs that have a socket, most wanted first."""
        return list(self._vips.values())

    def vip_of(self, number: int) -> str:
        """Return the VIP of a socket."""
        return self._vips[number]

    def number_of(self, vip: str) -> int | None:
        """Return the number of a VIP's socket, None if it has none."""
        return next((number for number, known in self._vips.items() if known == vip), None)

    def start(self, receive: Receive) -> None:
        """Begin to read. Needs the running event loop."""
        self._receive = receive
        for number in self._sockets:
            self._read(number)

    def change(self, vips: Sequence[str]) -> list[int]:
        """Have a socket for each of these VIPs and no other; returns the numbers of those closed.

        What stays keeps its socket. OSError: one cannot be bound, and nothing changed.
        """
        if set(vips) == set(self.vips):
            return []
        added: list[tuple[str, socket.socket]] = []
        try:
            added += ((vip, _open(vip, self.lane)) for vip in vips if vip not in self.vips)
        except OSError:
            for _, opened in added:
                opened.close()
            raise
        gone = [number for number, vip in self._vips.items() if vip not in vips]
        for number in gone:
            self._close(number)
        for vip, opened in added:
            self._add(vip, opened)
        logger.info("VIPs are %s", ", ".join(self.vips))
        return gone

    def _add(self, vip: str, opened: socket.socket) -> None:
        number = next(self._numbers)
        self._vips[number], self._sockets[number] = vip, opened
        if self._receive is not None:
            self._read(number)

    def _read(self, number: int) -> None:
        asyncio.get_running_loop().add_reader(self._sockets[number], self._drain, number)

    def _drain(self, number: int) -> None:
        receive = self._receive
        if receive is None:
            raise RuntimeError("nobody takes what is read")
        receive_from = self._sockets[number].recvfrom
        counters = self._counters
        now = time.monotonic()
        for _ in range(_DRAIN_MOST):
            try:
                data, address = receive_from(_READ_BYTES)
            except BlockingIOError:
                return
            counters.received += 1
            receive(data, number, address, now)

    def transmit(self, flow: Flow, data: bytes) -> None:
        """Send one datagram; a socket that would block loses it, as a full link would."""
        try:
            self._sockets[flow.vip].sendto(data, flow.address)
        except BlockingIOError:
            self._counters.send_failed__would_block += 1
        except OSError as error:
            self._counters.send_failed__refused += 1
            logger.debug("sending %d bytes to %s: %s", len(data), flow, error)
        else:
            self._counters.sent += 1

    def _close(self, number: int) -> None:
        opened = self._sockets.pop(number)
        asyncio.get_running_loop().remove_reader(opened)
        opened.close()
        del self._vips[number]

    def close(self) -> None:
        """Stop reading."""
        for number in list(self._sockets):
            self._close(number)


def _open(vip: str, lane: int) -> socket.socket:
    """Bind (VIP, lane), whether the host has the address now or gets it later.

    A socket outlives its address: it hears and speaks again when the address is back.
    """
    family = socket.AF_INET6 if ":" in vip else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.setsockopt(*_FREEBIND[family], 1)
        _enlarge_buffers(opened)
        opened.bind((vip, lane))
    except OSError as error:
        opened.close()
        raise OSError(error.errno, f"{error.strerror}: UDP port {lane} of {vip}") from error
    return opened


def _enlarge_buffers(opened: socket.socket) -> None:
    for option, force in _BUFFER_OPTIONS:
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, _SOCKET_BUFFER_BYTES)
        except PermissionError:
            # Without CAP_NET_ADMIN the kernel gives at most net.core.rmem_max and wmem_max.
            opened.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
