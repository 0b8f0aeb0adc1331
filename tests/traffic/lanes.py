"""The owner of the numbered flows: sockets at two lanes that account for all that arrives.

It answers as a media server would that trusts its edge: media is echoed, a check gets a success.
What carries no mark of ours is the attacker's; how much of it came through, and of which class, is
what the rows are judged by.
"""

import select
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from socket import socket

from system.namespaces import EDGE_ADDRESSES, open_socket
from traffic.checks import build_success
from traffic.datagrams import CHECK_MARK, MEDIA_MARK, NEWCOMER, Ledger, parse
from traffic.worker import answer

_DRAIN_MOST = 256  # datagrams of one socket before the others have their turn


@dataclass(slots=True)
class Arrivals:
    """What reached the lanes since it was asked for last."""

    ours: int = 0
    repeated: int = 0  # of ours, a second time: replayed
    alien: Counter[str] = field(default_factory=Counter)  # by class
    unanswered: int = 0  # the host refused to send the answer


class Lanes:
    """The sockets, in one loop."""

    def __init__(
        self, pipe: Connection, namespace: str, mark: bytes, ports: tuple[int, ...]
    ) -> None:
        self._pipe = pipe
        self._mark = mark
        self._came = Ledger()
        self._arrivals = Arrivals()
        self._aliens: Counter[bytes] = Counter()  # by first byte
        self._sockets: dict[int, socket] = {}
        self._poll = select.epoll()
        self._poll.register(pipe.fileno(), select.EPOLLIN)
        for port in ports:
            for address in EDGE_ADDRESSES.values():
                opened = open_socket(namespace, address, port)
                opened.setblocking(False)
                self._sockets[opened.fileno()] = opened
                self._poll.register(opened.fileno(), select.EPOLLIN)

    def run(self) -> None:
        """Receive, echo and answer, for ever."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._pipe.fileno():
                    self._obey(*self._pipe.recv())
                else:
                    self._drain(self._sockets[descriptor])

    def _obey(self, verb: str, *arguments: dict[int, int]) -> None:
        if verb == "missing":
            answer(self._pipe, self._came.missing(*arguments))
        elif verb == "arrivals":
            self._arrivals.repeated = self._came.repeated
            self._came.repeated = 0
            for first, count in self._aliens.items():
                self._arrivals.alien[_class_of(first)] += count
            answer(self._pipe, self._arrivals)
            self._arrivals = Arrivals()
            self._aliens.clear()

    def _drain(self, ready: socket) -> None:
        for _ in range(_DRAIN_MOST):
            try:
                datagram, source = ready.recvfrom(2048)
            except BlockingIOError:
                return
            # The attacker's share may be most of it: it is told apart by one comparison.
            if self._mark not in (datagram[MEDIA_MARK], datagram[CHECK_MARK]):
                self._aliens[datagram[:1]] += 1
                continue
            numbered = parse(self._mark, datagram)
            if numbered is None:
                continue
            self._arrivals.ours += 1
            if numbered.stream != NEWCOMER:
                self._came.note(numbered.stream, numbered.number)
            is_check = datagram[0] == 0
            try:
                ready.sendto(build_success(datagram) if is_check else datagram, source)
            except OSError:  # to an address that somebody forged
                self._arrivals.unanswered += 1


def _class_of(datagram: bytes) -> str:
    first = datagram[0] if datagram else 255
    if first < 4:
        return "STUN"
    if 20 <= first <= 63:
        return "DTLS"
    return "RTP" if 128 <= first <= 191 else "other"


def play(pipe: Connection, namespace: str, mark: bytes, ports: tuple[int, ...]) -> None:
    """Open the sockets, say so, and go on until the stage ends us."""
    lanes = Lanes(pipe, namespace, mark, ports)
    answer(pipe)
    lanes.run()
