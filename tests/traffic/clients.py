"""The clients of the numbered flows: 50 packets a second each, and a check every 2.5 s.

Every packet is numbered and echoed by its lane (lanes.py); what does not come back is lost, and the
time until it does is the round trip. One process for all: a thread each would measure threads.
"""

import heapq
import select
import time
from array import array
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from system.namespaces import open_socket
from traffic.checks import build_check
from traffic.datagrams import (
    CHECKS,
    Gaps,
    Ledger,
    Numbered,
    build_media,
    build_transaction,
    parse,
)
from traffic.sessions import Credentials, Tuple
from traffic.worker import answer

if TYPE_CHECKING:
    from socket import socket

MEDIA_SECONDS = 0.02
CHECK_SECONDS = 2.5  # as Chromium


@dataclass(frozen=True, slots=True)
class Flow:
    """One client: its address, where it sends to, its session."""

    source: Tuple
    target: Tuple
    session: Credentials


class Clients:
    """All of them, in one loop. chaos/talkers.py has clients with keys of their own."""

    def __init__(self, pipe: Connection, namespace: str, mark: bytes, flows: list[Flow]) -> None:
        self._pipe = pipe
        self._mark = mark
        self._flows = flows
        self._sockets: list[socket] = []
        for flow in flows:
            opened = open_socket(namespace, *flow.source)
            opened.connect(flow.target)
            opened.setblocking(False)
            self._sockets.append(opened)
        self._next: dict[int, int] = {}  # by stream, the number of the next datagram
        self._due: list[tuple[float, int]] = []  # (monotonic seconds, stream)
        self._came = Ledger()
        self._round_trips = array("Q")  # ns
        self._gaps = Gaps()
        self._unsent = 0
        self._poll = select.epoll()
        self._by_descriptor = {opened.fileno(): n for n, opened in enumerate(self._sockets)}
        for descriptor in (pipe.fileno(), *self._by_descriptor):
            self._poll.register(descriptor, select.EPOLLIN)

    def run(self) -> None:
        """Send, receive and answer, for ever."""
        while True:
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for descriptor, _ in self._poll.poll(wait):
                if descriptor == self._pipe.fileno():
                    self._obey(*self._pipe.recv())
                else:
                    self._receive(self._by_descriptor[descriptor])
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                due, stream = heapq.heappop(self._due)
                self._send(stream)
                pause = MEDIA_SECONDS if stream < CHECKS else CHECK_SECONDS
                # Held up, a client goes on from now: a burst is not what a microphone makes.
                heapq.heappush(self._due, (max(due + pause, now), stream))

    def _obey(self, verb: str, *arguments: Any) -> None:
        if verb == "check":
            for stream in range(len(self._flows)):
                self._send(stream + CHECKS)
            answer(self._pipe)
        elif verb == "start":
            now = time.monotonic()
            for stream in range(len(self._flows)):
                share = stream / len(self._flows)
                heapq.heappush(self._due, (now + share * MEDIA_SECONDS, stream))
                heapq.heappush(self._due, (now + share * CHECK_SECONDS, stream + CHECKS))
            answer(self._pipe)
        elif verb == "mark":
            self._round_trips = array("Q")
            answer(self._pipe, dict(self._next))
        elif verb == "numbers":
            answer(self._pipe, dict(self._next))
        elif verb == "gaps":
            answer(self._pipe, self._gaps.take(time.monotonic_ns()))
        elif verb == "unsent":
            answer(self._pipe, self._unsent)
        elif verb == "silent":
            answer(self._pipe, self._gaps.silent_ns(time.monotonic_ns()))
        elif verb == "so far":
            answer(self._pipe, (dict(self._next), self._round_trips))
        elif verb == "missing":
            answer(self._pipe, self._came.missing(*arguments))

    def _send(self, stream: int) -> None:
        number = self._next.get(stream, 0)
        if stream < CHECKS:
            datagram = self._build_media(stream, number)
        else:
            datagram = self._build_check(stream, number)
        try:
            self._sockets[stream % CHECKS].send(datagram)
        except OSError:  # no room on the way out, or an ICMP error about an earlier one
            self._unsent += 1
        else:
            self._next[stream] = number + 1

    def _build_media(self, stream: int, number: int) -> bytes:
        return build_media(self._mark, stream, number, time.monotonic_ns())

    def _build_check(self, stream: int, number: int) -> bytes:
        session = self._flows[stream - CHECKS].session
        transaction = build_transaction(self._mark, stream, number)
        return build_check(session.ufrag, session.pwd, transaction)

    def _read(self, client: int, datagram: bytes) -> Numbered | None:  # noqa: ARG002 - talkers'
        """Return what is numbered in it, if anything."""
        return parse(self._mark, datagram)

    def _receive(self, client: int) -> None:
        ready = self._sockets[client]
        while True:
            try:
                datagram = ready.recv(2048)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # ICMP about a datagram that is missed anyway
            numbered = self._read(client, datagram)
            if numbered is None:
                continue
            self._came.note(numbered.stream, numbered.number)
            if numbered.sent_ns:
                now_ns = time.monotonic_ns()
                self._round_trips.append(now_ns - numbered.sent_ns)
                self._gaps.note(numbered.stream, now_ns)


def play(pipe: Connection, namespace: str, mark: bytes, flows: list[Flow]) -> None:
    """Open the sockets, say so, and go on until the stage ends us."""
    clients = Clients(pipe, namespace, mark, flows)
    answer(pipe)
    clients.run()
