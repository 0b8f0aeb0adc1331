"""Steady traffic under which something is done to the edge: numbered packets, both ways, 20 ms.

Every client sends media at the cadence and its owner answers each packet from its lane; what was
sent and did not come back, and where it was lost, is told by number.
"""

import select
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from socket import SOL_SOCKET, socket
from struct import Struct

from system.lab import Lab
from system.raw import (
    RawClient,
    RawOwner,
    RawSession,
    add_session,
    parse_arrival,
    raw_client,
    raw_owner,
)

CADENCE_S = 0.02
_SO_MEMINFO = 55  # asm-generic/socket.h; Python does not name it
_MEMORY = Struct("9I")  # linux/sock_diag.h: SK_MEMINFO_DROPS is the last


@dataclass
class Steady:
    """Flows of one owner; `lost_in` and `lost_back` are told once it is over."""

    owner: RawOwner
    clients: list[tuple[RawSession, RawClient]]
    sent: int = 0
    packets: int = 0  # of each client
    arrived: set[tuple[int, int]] = field(default_factory=set)
    answered: set[tuple[int, int]] = field(default_factory=set)
    lost_in: int = 0
    lost_back: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def end(self) -> None:
        """Have all threads come to an end, once nothing is on its way any more."""
        self._over.set()

    def connect(self) -> None:
        """Send a check from each client, which makes its flow."""
        for session, client in self.clients:
            client.send(session.build_check(0))
        assert {one.session for one in self.owner.receive(len(self.clients))} == {
            session.number for session, _ in self.clients
        }

    def send(self) -> None:
        """Send at the cadence until told to stop."""
        due = time.monotonic()
        while not self._over.is_set():
            for session, client in self.clients:
                client.send(session.build_media(self.packets))
                self.sent += 1
            self.packets += 1
            # Who was held up does not catch up: a burst may find a full queue.
            due = max(due + CADENCE_S, time.monotonic())
            self._over.wait(due - time.monotonic())

    def answer(self) -> None:
        """Send each packet back that arrives at the owner."""
        sessions = {session.number: session for session, _ in self.clients}
        sockets = list(self.owner.sockets.values())
        while not self._over.is_set() or select.select(sockets, [], [], 0.5)[0]:
            for ready in select.select(sockets, [], [], 0.05)[0]:
                datagram, source = ready.recvfrom(2048)
                one = parse_arrival(datagram, source[:2])
                self.arrived.add((one.session, one.packet))
                self.owner.send(sessions[one.session].build_media(one.packet), one.source)

    def collect(self) -> None:
        """Read what came back to the clients."""
        sockets = {client.socket: session for session, client in self.clients}
        while not self._over.is_set() or select.select(list(sockets), [], [], 1.0)[0]:
            for ready in select.select(list(sockets), [], [], 0.05)[0]:
                datagram, source = ready.recvfrom(2048)
                assert source[1] == 3478, f"an answer from port {source[1]}"
                number = int.from_bytes(datagram[-8:], "big")
                self.answered.add((sockets[ready].number, number))


def _dropped(opened: socket) -> int:
    """How many datagrams found the socket's buffer full."""
    *_, dropped = _MEMORY.unpack(opened.getsockopt(SOL_SOCKET, _SO_MEMINFO, _MEMORY.size))
    return int(dropped)


@contextmanager
def steady_traffic(lab: Lab, flows: int, *, lane: int = 20600) -> Iterator[Steady]:
    """Have so many flows talk while the body runs; both IP versions."""
    with ExitStack() as stack:
        owner = stack.enter_context(raw_owner(lab, lane))
        steady = Steady(
            owner,
            [
                (
                    add_session(lab.edge, number, owner),
                    stack.enter_context(raw_client(lab, (4, 6)[number % 2])),
                )
                for number in range(flows)
            ],
        )
        steady.connect()
        threads = [
            threading.Thread(target=work, daemon=True)
            for work in (steady.answer, steady.collect, steady.send)
        ]
        for thread in threads:
            thread.start()
        try:
            yield steady
        finally:
            steady.end()
            for thread in threads:
                thread.join()
            full = sum(_dropped(one) for one in owner.sockets.values())
        every = {(s.number, n) for s, _ in steady.clients for n in range(steady.packets)}
        # A loss that a full socket of the test's own explains is not the edge's.
        steady.lost_in = len(every - steady.arrived) - full
        steady.lost_back = len(steady.arrived - steady.answered)
