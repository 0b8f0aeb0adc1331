"""The sockets an edge listens on, opened before a single packet is touched.

(VIP, shared port) must be ours before anything is attached: nobody else can take the port then,
and what the kernel leaves to it is counted instead of answered with port-unreachable. A port that
is taken ends the start with the name of its flag.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

from turnout.errors import TurnoutError
from turnout.metrics import Tally
from turnout.settings import Address, Endpoint, Settings

# An IPv6 address cannot be bound while duplicate address detection runs, about 1 s after it came.
ADDRESS_PATIENCE_S = 5.0
_DATAGRAMS_A_WAKE_UP = 64


def wait_for_vips(settings: Settings) -> None:
    """Return when every VIP can be bound. Raises TurnoutError naming one that cannot."""
    for vip in settings.vips:
        _bind_patiently(vip, 0, "").close()


def open_shared_ports(settings: Settings, doors: ExitStack) -> list[socket.socket]:
    """Bind (VIP, shared port) for every VIP. Raises TurnoutError."""
    hint = "another edge or a TURN server? --shared-port takes another one"
    return [
        doors.enter_context(_bind_patiently(vip, settings.shared_port, hint))
        for vip in settings.vips
    ]


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


async def discard_datagrams(sockets: list[socket.socket], tally: Tally) -> None:
    """Count and throw away what arrives on the shared port, for ever."""
    loop = asyncio.get_running_loop()
    for one in sockets:
        loop.add_reader(one, _reader(one, tally))
    try:
        await loop.create_future()
    finally:
        for one in sockets:
            loop.remove_reader(one)


def _reader(one: socket.socket, tally: Tally) -> Callable[[], None]:
    def discard() -> None:
        for _ in range(_DATAGRAMS_A_WAKE_UP):
            try:
                one.recv(1)
            except BlockingIOError:
                return
            tally.shared_port_datagrams += 1

    return discard


def _bind_patiently(vip: Address, port: int, hint: str) -> socket.socket:
    family = socket.AF_INET if vip.version == 4 else socket.AF_INET6
    deadline_s = time.monotonic() + ADDRESS_PATIENCE_S
    bound = socket.socket(family, socket.SOCK_DGRAM)
    bound.setblocking(False)
    while True:
        try:
            bound.bind((str(vip), port))
        except OSError as error:
            tentative = vip.version == 6 and error.errno == errno.EADDRNOTAVAIL
            if tentative and time.monotonic() < deadline_s:
                time.sleep(0.1)
                continue
            bound.close()
            reason = {
                errno.EADDRINUSE: f"UDP port {port} is taken ({hint})",
                errno.EADDRNOTAVAIL: "no interface of this host has that address",
            }.get(error.errno or 0, error.strerror)
            raise TurnoutError(f"vip {vip}: {reason}") from error
        return bound
