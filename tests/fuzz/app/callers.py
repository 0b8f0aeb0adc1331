"""The real worker of a transceiver in a room without network, and clients of it.

`Room` stands where the kernel's socket and clock stand: it hands in one datagram at a time, keeps
what is sent, and after each looks whether what must hold holds. `Caller` is a client with ICE, DTLS
and SRTP of its own (pyOpenSSL, libsrtp), as a unit test's.
"""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from fuzz.app.budget import Finding
from turnout.transceiver import lane_sockets, timers, worker
from turnout.transceiver.echo import Echo
from turnout.transceiver.flow import AMPLIFICATION
from turnout.transceiver.ice import FLOWS_MAX
from turnout.transceiver.lane_sockets import _READ_BYTES
from turnout.transceiver.media import SSRCS_MAX
from turnout.transceiver.session import EARLY_DTLS_MAX
from turnout.transceiver.worker import Worker
from turnout.wire.rtp import RtpPacket, build_rtp, is_rtcp, parse_rtp
from turnout.wire.sdp import SessionDescription
from turnout.wire.stun import BINDING_REQUEST, parse_stun
from unit.transceiver.peer import (
    PAYLOAD_TYPE,
    DtlsClient,
    build_check,
    build_offer,
    build_probe_answer,
)

Address = tuple[str, int]

_FATES = ("handled__", "ignored__", "drop__")
_CAPTURED_MOST = 200
# Stale entries leave the heap when their time comes.
_TIMERS_MOST = 200


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1e9

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + 1e9


class NoLoop:
    """What the timers use of an event loop: they are woken by the room."""

    def call_at(self, _when: float, _callback: object) -> "NoLoop":
        return self

    def cancel(self) -> None:
        """Nothing was begun."""


class Sent(NamedTuple):
    """A datagram that left the transceiver."""

    data: bytes
    address: Address


class RoomSocket:
    """What the worker uses of its socket."""

    def __init__(self) -> None:
        self.inbox: deque[tuple[bytes, Address]] = deque()
        self.outbox: list[Sent] = []

    def recvfrom(self, size: int) -> tuple[bytes, Address]:
        if not self.inbox:
            raise BlockingIOError
        data, address = self.inbox.popleft()
        return data[:size], address

    def sendto(self, data: bytes, address: Address) -> None:
        self.outbox.append(Sent(data, address))

    def close(self) -> None:
        """Nothing is open."""

    def fileno(self) -> int:
        return -1


class Room:
    """A worker, its socket and its clock."""

    def __init__(self, rng: random.Random, clock: Clock) -> None:
        self.rng = rng
        self.clock = clock
        self.worker = Worker(["127.0.0.1"], 0, Echo, sessions_max=64)
        self.socket = RoomSocket()
        sockets = self.worker._sockets
        sockets._sockets[0].close()
        sockets._sockets[0] = cast("Any", self.socket)
        sockets._receive = self.worker._demux.receive
        self.callers: dict[Address, Caller] = {}
        self.captured: deque[bytes] = deque(maxlen=_CAPTURED_MOST)
        self.datagrams = 0
        # Bytes by address: what came from it, what went to it.
        self._came: Counter[Address] = Counter()
        self._went: Counter[Address] = Counter()

    def deliver(self, data: bytes, address: Address) -> list[Sent]:
        """Hand one datagram in; returns what it made the transceiver send. Raises Finding."""
        before = self._fates() + self._waiting()
        self.socket.inbox.append((data, address))
        self._came[address] += min(len(data), _READ_BYTES)
        self.datagrams += 1
        try:
            self.worker._sockets._drain(0)
        except Exception as error:
            raise Finding(f"{error!r} for {data.hex()} from {address}") from error
        moved = self._fates() + self._waiting() - before
        if moved != 1:
            raise Finding(f"{moved} fates for {data.hex()} from {address}")
        return self._take()

    def pass_time(self, seconds: float) -> None:
        """Let time pass; what is sent meanwhile reaches its callers."""
        self.clock.now += seconds
        self.worker._timers._wake()
        self.carry(self._take())

    def _take(self) -> list[Sent]:
        sent, self.socket.outbox = self.socket.outbox, []
        for data, address in sent:
            self._went[address] += len(data)
            most = AMPLIFICATION * self._came[address]
            if address not in self.callers and self._went[address] > most:
                raise Finding(
                    f"{self._went[address]} bytes to {address}, which sent {most // AMPLIFICATION}"
                )
        return sent

    def carry(self, sent: list[Sent]) -> None:
        """Bring what was sent to the callers at those addresses."""
        for data, address in sent:
            caller = self.callers.get(address)
            if caller is not None:
                caller.receive(data)

    def _fates(self) -> int:
        counters = self.worker.counters.as_dict()
        return sum(count for name, count in counters.items() if name.startswith(_FATES))

    def _waiting(self) -> int:
        """DTLS that waits for a proof: it has no fate yet."""
        return sum(len(session._early_dtls) for session in self.worker.sessions.values())

    def require_bounds(self) -> None:
        """Look at everything that a stranger might make grow. Raises Finding."""
        known = list(self.worker.sessions.values())
        sizes = {
            "sessions": (len(known), len(self.callers) + 1),
            "ufrags": (len(self.worker._demux.ufrags), 2 * len(known)),
            "flows": (len(self.worker._demux.flows[0]), FLOWS_MAX * len(known)),
            "probes": (len(self.worker.probes), FLOWS_MAX * len(known)),
            "timers": (len(self.worker._timers._heap), _TIMERS_MOST),
            "handshakes": (len(self.worker.handshakes), len(known)),
        }
        for session in known:
            sizes |= {
                f"flows of {session.id}": (len(session.ice.flows), FLOWS_MAX),
                f"early DTLS of {session.id}": (len(session._early_dtls), EARLY_DTLS_MAX),
                f"SSRCs of {session.id}": (
                    len(session.media._seen.keys() | session.media._seen_reports.keys()),
                    SSRCS_MAX,
                ),
                f"receptions of {session.id}": (len(session.media._receptions), SSRCS_MAX),
            }
        for flow in self.worker.probes.values():
            if flow.session.ended or flow not in flow.session.ice.flows.values():
                raise Finding(f"a probe to {flow} that nobody waits for")
        for name, (size, most) in sizes.items():
            if size > most:
                raise Finding(f"{size} {name}, {most} is the most")

    def close(self) -> None:
        """End every session, and see that nothing is left of them."""
        for session_id in list(self.worker.sessions):
            self.worker.end_session(session_id, "deleted")
        left = (self.worker._demux.ufrags, self.worker.probes, self.worker._demux.flows[0])
        if any(left) or len(self.worker.handshakes):
            raise Finding(f"left behind by sessions that ended: {left}")
        self.worker._timers.close()


class Caller:
    """A client at an address, with a session of its own."""

    def __init__(self, room: Room, address: Address) -> None:
        self.room = room
        self.address = address
        self.session, answer = room.worker.create_session(build_offer(), None)
        attributes = SessionDescription.parse(answer).media[0].attributes
        self.ufrag = attributes.value("ice-ufrag") or ""
        self.pwd = attributes.value("ice-pwd") or ""
        self.dtls = DtlsClient()
        self.heard: list[bytes] = []
        self._sequence = room.rng.randrange(1 << 15)
        room.callers[address] = self

    def send(self, data: bytes) -> None:
        """Send one datagram of a well-behaved client, which others may capture."""
        sent = self.room.deliver(data, self.address)
        self.room.captured.append(data)
        self.room.carry(sent)

    def receive(self, data: bytes) -> None:
        """Answer as a client does."""
        if data[0] < 4:
            message = parse_stun(data)
            ours = f":{self.ufrag}".encode()
            # Probes of other sessions, whose checks somebody forged, are not answered.
            if message.kind == BINDING_REQUEST and (message.username or b"").endswith(ours):
                self.send(build_probe_answer(data, self.address))
        elif data[0] < 64:
            for answer in self.dtls.receive(data):
                self.send(answer)
        elif not is_rtcp(data) and self.dtls.is_connected:
            self.heard.append(parse_rtp(self.srtp.rx.unprotect(data)).payload)

    def connect(self) -> None:
        """Go all the way from the first check to keys. Raises Finding."""
        self.send(build_check(ufrag=self.ufrag, pwd=self.pwd))
        for datagram in self.dtls.start():
            self.send(datagram)
        if not self.dtls.is_connected or not self.session.media.is_started:
            raise Finding(f"no handshake for the caller at {self.address}")
        self.srtp = self.dtls.derive_srtp()

    def protect(self, payload: bytes) -> bytes:
        """Build the next SRTP packet."""
        self._sequence += 1
        packet = RtpPacket(
            PAYLOAD_TYPE,
            False,
            self._sequence & 0xFFFF,
            self._sequence * 960 & 0xFFFFFFFF,
            7,
            payload,
        )
        return self.srtp.tx.protect(build_rtp(packet))

    def require_echo(self) -> None:
        """Say something and hear it. Raises Finding."""
        said = self.room.rng.randbytes(20)
        self.send(self.protect(said))
        if self.session.ended or self.heard[-1:] != [said]:
            raise Finding(f"the call of {self.address} is lost: {self.session.ended or 'no echo'}")
        self.heard.clear()

    def leave(self) -> None:
        """Have the session ended, and be somebody nobody knows."""
        self.room.worker.end_session(self.session.id, "deleted")
        self.room._take()
        self.forget()

    def forget(self) -> None:
        """Be nobody, at an address that owes and is owed nothing."""
        del self.room.callers[self.address]
        self.room._came[self.address] = self.room._went[self.address] = 0


@contextmanager
def open_room(seed: int) -> Iterator[Room]:
    """Build a room whose clock is the worker's; at its end nothing may be left."""
    clock = Clock()
    asyncio._set_running_loop(cast("Any", NoLoop()))
    modules: tuple[Any, ...] = (worker, lane_sockets, timers)
    real = [module.time for module in modules]
    for module in modules:
        module.time = clock
    try:
        room = Room(random.Random(seed), clock)
        yield room
        room.close()
    finally:
        for module, time in zip(modules, real, strict=True):
            module.time = time
        asyncio._set_running_loop(None)
