"""What somebody on the path sees: the clients' checks, taken from the bridge's port as they pass.

The rows that replay use these bytes, not ones that were built to be alike.
"""

import socket
import struct
from ipaddress import ip_address
from typing import NamedTuple

from attack.frames import UDP
from system.namespaces import run_in_namespace
from traffic.checks import BINDING_REQUEST, COOKIE, USERNAME
from traffic.sessions import Tuple

_ETH_P_ALL = 0x0003
_SNAP = 2048


class Seen(NamedTuple):
    """A check and the tuple that it came from."""

    source: Tuple
    ufrag: str
    check: bytes


class Capture:
    """An open tap; what was seen is read at the end: 8 MB of room suffice for a set-up."""

    def __init__(self, namespace: str, interface: str) -> None:
        self._tap = run_in_namespace(namespace, lambda: _open(interface))

    def read(self) -> list[Seen]:
        """Return the checks that have passed, and close the tap."""
        seen: list[Seen] = []
        with self._tap:
            while True:
                try:
                    frame = self._tap.recv(_SNAP)
                except BlockingIOError:
                    return seen
                if found := parse_check(frame):
                    seen.append(found)


def parse_check(frame: bytes) -> Seen | None:
    """Return the Binding request with USERNAME first that a plain frame carries, if it does."""
    version = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(frame[12:14])
    if version == 4 and frame[23] == UDP:
        source, start = ip_address(frame[26:30]), 34
    elif version == 6 and frame[20] == UDP:
        source, start = ip_address(frame[22:38]), 54
    else:
        return None
    port, _, length = struct.unpack_from("!HHH", frame, start)
    check = frame[start + 8 : start + length]
    if len(check) < 24 or struct.unpack_from("!HxxI", check) != (BINDING_REQUEST, COOKIE):
        return None
    kind, size = struct.unpack_from("!HH", check, 20)
    if kind != USERNAME:
        return None
    ufrag = check[24 : 24 + size].decode().partition(":")[0]
    return Seen((str(source), port), ufrag, check)


def _open(interface: str) -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    tap.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    tap.bind((interface, 0))
    tap.setblocking(False)
    return tap
