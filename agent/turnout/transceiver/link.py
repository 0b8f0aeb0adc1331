"""The giver's end of a connection between two transceivers. Used by handover.py."""

import array
import asyncio
import hmac
import json
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

from turnout.errors import WireError

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
# 16 sources, the latest datagram of each, and what came of them: 40 kB.
MESSAGE_BYTES = 1 << 17
# What a message is, by its first byte.
SESSION, DATAGRAM, TAKEN, REFUSED = b"S", b"D", b"A", b"R"
# The sides of a connection.
GIVER, TAKER = "giver", "taker"
_WAITING_MOST = 10_000
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid

Record = dict[str, Any]


class Link:
    """Our end of a connection to the transceiver that takes our sessions."""

    def __init__(self, opened: socket.socket, greeting: Record) -> None:
        self.greeting = greeting
        self.ticket: str = greeting["ticket"]
        self.room: int = greeting["room"]
        self.lock = asyncio.Lock()
        self.is_closed = False
        self.unused_at = 0.0
        self._socket = opened
        self._waiting: deque[tuple[bytes, list[socket.socket]]] = deque()

    @classmethod
    async def open(cls, door: str, secret: str) -> "Link":
        """Connect and read the greeting. Raises OSError (TimeoutError), WireError.

        Each side proves that it knows the secret, which itself is never said: a name that is free
        again can be taken by anybody, who would get all that is sent there.
        """
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            opened.connect(f"\0{door}")
            check_same_user(opened)
            opened.send(build_proof(secret, GIVER).encode())
            async with asyncio.timeout(ANSWER_SECONDS):
                message = await asyncio.get_running_loop().sock_recv(opened, MESSAGE_BYTES)
            return cls(opened, _parse_greeting(message, secret))
        except BaseException:
            opened.close()
            raise

    def send(self, message: bytes, sockets: Sequence[socket.socket] = ()) -> bool:
        """Send in order, at once or as soon as there is room; False if there is too much already.

        The sockets go along and are closed here.
        """
        if self.is_closed or (len(self._waiting) >= _WAITING_MOST and not sockets):
            return False
        self._waiting.append((message, list(sockets)))
        if len(self._waiting) == 1:
            self._flush()
        return True

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            message, sockets = self._waiting[0]
            rights = array.array("i", [one.fileno() for one in sockets])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if sockets else []
            try:
                self._socket.sendmsg([message], ancillary)
            except BlockingIOError:
                loop.add_writer(self._socket, self._flush)
                return
            except OSError as error:
                logger.warning("hand-off: the other transceiver is away: %s", error)
                self.close()
                return
            self._waiting.popleft()
            for one in sockets:
                one.close()
        loop.remove_writer(self._socket)

    async def answer(self) -> Record:
        """Return what became of the session sent last. Raises OSError, WireError, TimeoutError."""
        if self.is_closed:
            raise ConnectionResetError("the connection is closed")
        async with asyncio.timeout(ANSWER_SECONDS):
            message = await asyncio.get_running_loop().sock_recv(self._socket, MESSAGE_BYTES)
        if message[:1] not in {TAKEN, REFUSED}:
            raise ConnectionResetError("the other transceiver closed the connection")
        answer = _parse_record(message[1:])
        self.ticket, self.room = answer["ticket"], answer["room"]
        return {**answer, "taken": message[:1] == TAKEN}

    def close(self) -> None:
        """Close it, and what still waits in it."""
        if self.is_closed:
            return
        self.is_closed = True
        asyncio.get_running_loop().remove_writer(self._socket)
        self._socket.close()
        while self._waiting:
            _, sockets = self._waiting.popleft()
            for one in sockets:
                one.close()


def build_proof(secret: str, side: str) -> str:
    """Build what shows that a side, GIVER or TAKER, knows a door's secret."""
    return hmac.digest(secret.encode(), side.encode(), "sha256").hex()


def check_same_user(opened: socket.socket) -> None:
    """Raise PermissionError unless the process at the other end is of our user."""
    raw = opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    if uid != os.geteuid():
        raise PermissionError(f"process {pid} is of user {uid}, we are of {os.geteuid()}")


def _parse_greeting(message: bytes, secret: str) -> Record:
    greeting = _parse_record(message)
    if not hmac.compare_digest(str(greeting.get("proof")), build_proof(secret, TAKER)):
        raise WireError("who listens there does not know its secret")
    return greeting


def _parse_record(message: bytes) -> Record:
    try:
        record = json.loads(message)
    except ValueError as error:
        raise WireError(f"{message[:80]!r} is no greeting or answer") from error
    if not isinstance(record, dict) or not {"ticket", "room"} <= record.keys():
        raise WireError(f"{message[:80]!r} has no ticket")
    return record
