"""The sockets at (VIP, lane), one a VIP. Opened by worker.py."""

import socket
from dataclasses import dataclass

from turnout.transceiver.flow import Address, Flow

# 20 ms of 2,000 calls are 2,000 packets of some 200 bytes, which the kernel books as 768 each.
_SOCKET_BUFFER_BYTES = 4 << 20
# SO_RCVBUFFORCE and SO_SNDBUFFORCE (linux/socket.h), which the socket module does not name.
_BUFFER_OPTIONS = ((socket.SO_RCVBUF, 33), (socket.SO_SNDBUF, 32))
# IP_FREEBIND and IPV6_FREEBIND (linux/in.h, linux/in6.h).
_FREEBIND = {
    socket.AF_INET: (socket.IPPROTO_IP, 15),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),
}


@dataclass(frozen=True, slots=True)
class LaneSocket:
    """The socket at (VIP, lane) and the flows that come in by it, keyed by recvfrom's address."""

    vip: str
    socket: socket.socket
    flows: dict[Address, Flow]

    @classmethod
    def open(cls, vip: str, lane: int) -> "LaneSocket":
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
        return cls(vip, opened, {})


def _enlarge_buffers(opened: socket.socket) -> None:
    for option, force in _BUFFER_OPTIONS:
        try:
            opened.setsockopt(socket.SOL_SOCKET, force, _SOCKET_BUFFER_BYTES)
        except PermissionError:
            # Without CAP_NET_ADMIN the kernel gives at most net.core.rmem_max and wmem_max.
            opened.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
