"""The sockets an edge listens on, opened before a single packet is touched.

(VIP, shared port) must be ours before anything is attached: nobody else can take the port then,
and what the kernel leaves to it is counted instead of answered with port-unreachable. A port that
is taken ends the start with the name of its flag.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Collection
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from turnout.errors import TurnoutError
from turnout.settings import Address, Endpoint, Settings

if TYPE_CHECKING:
    from turnout.metrics import Tally  # and with it what only the agent needs

# An IPv6 address cannot be bound while duplicate address detection runs, about 1 s after it came.
ADDRESS_PATIENCE_S = 5.0
_DATAGRAMS_A_WAKE_UP = 64
# IP_FREEBIND and IPV6_FREEBIND (linux/in.h, linux/in6.h), by IP version.
_FREEBIND = {4: (socket.IPPROTO_IP, 15), 6: (socket.IPPROTO_IPV6, 78)}


def wait_for_vips(settings: Settings) -> None:
    """Return when the host has every VIP. Raises TurnoutError naming one that it has not."""
    for vip in settings.vips:
        _wait_for(vip)


def open_listener(flag: str, endpoint: Endpoint, doors: ExitStack) -> socket.socket:
    """Listen on a TCP address. Raises TurnoutError naming the flag that gives another."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (endpoint.host, endpoint.port), family=family, dualstack_ipv6=endpoint.host == "::"
        )
    except OSError as error:
        reason = {
            errno.EADDRINUSE: "another process listens there",
            errno.EADDRNOTAVAIL: "this host does not have that address",
        }.get(error.errno or 0, error.strerror)
        raise TurnoutError(f"{flag} {endpoint}: {reason}; give another with {flag}") from error
    return doors.enter_context(listener)


class SharedPorts:
    """The sockets at (VIP, shared port): what the kernel leaves to them is counted, not read.

    They are bound whether the host has the address just now or not, and outlive its going: so the
    port is ours at every moment, and an address that comes back needs nothing from us.
    """

    def __init__(self, port: int, tally: "Tally") -> None:
        self._port = port
        self._tally = tally
        self._sockets: dict[Address, socket.socket] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for vip in list(self._sockets):
            self.close(vip)

    @property
    def vips(self) -> Collection[Address]:
        """The VIPs whose port is ours."""
        return self._sockets.keys()

    def open(self, vip: Address) -> None:
        """Bind the shared port of a VIP. Raises TurnoutError if somebody else has it."""
        if vip in self._sockets:
            return
        family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
        bound = socket.socket(family, socket.SOCK_DGRAM)
        bound.setblocking(False)
        try:
            bound.setsockopt(*_FREEBIND[vip.version], 1)
            bound.bind((str(vip), self._port))
        except OSError as error:
            bound.close()
            hint = "another edge or a TURN server? --shared-port takes another one"
            raise _cannot_bind(vip, self._port, error, hint) from error
        self._sockets[vip] = bound
        if self._loop is not None:
            self._loop.add_reader(bound, self._discard, bound)

    def close(self, vip: Address) -> None:
        """Give the shared port of a VIP back."""
        bound = self._sockets.pop(vip)
        if self._loop is not None:
            self._loop.remove_reader(bound)
        bound.close()

    async def discard(self) -> None:
        """Count and throw away what arrives, for ever."""
        self._loop = asyncio.get_running_loop()
        for bound in self._sockets.values():
            self._loop.add_reader(bound, self._discard, bound)
        try:
            await self._loop.create_future()
        finally:
            for bound in self._sockets.values():
                self._loop.remove_reader(bound)
            self._loop = None

    def _discard(self, bound: socket.socket) -> None:
        for _ in range(_DATAGRAMS_A_WAKE_UP):
            try:
                bound.recv(1)
            except BlockingIOError:
                return
            self._tally.shared_port_datagrams += 1


def _wait_for(vip: Address) -> None:
    family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
    deadline_s = time.monotonic() + ADDRESS_PATIENCE_S
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        while True:
            try:
                probe.bind((str(vip), 0))
            except OSError as error:
                tentative = vip.version == 6 and error.errno == errno.EADDRNOTAVAIL
                if tentative and time.monotonic() < deadline_s:
                    time.sleep(0.1)
                    continue
                raise _cannot_bind(vip, 0, error, "") from error
            return


def _cannot_bind(vip: Address, port: int, error: OSError, hint: str) -> TurnoutError:
    reason = {
        errno.EADDRINUSE: f"UDP port {port} is taken ({hint})",
        errno.EADDRNOTAVAIL: "no interface of this host has that address",
    }.get(error.errno or 0, error.strerror)
    return TurnoutError(f"vip {vip}: {reason}")
