"""The real worker on loopback, called by bare sockets; the real clients are in test_process.py."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from turnout.errors import SignalingError
from turnout.transceiver.echo import Echo
from turnout.transceiver.worker import Worker
from turnout.wire.rtp import RtpPacket, build_rtp, is_rtcp, parse_rtp
from turnout.wire.sdp import SessionDescription
from turnout.wire.stun import BINDING_REQUEST, BINDING_SUCCESS, parse_stun
from unit.transceiver.peer import (
    PAYLOAD_TYPE,
    DtlsClient,
    build_check,
    build_offer,
    build_probe_answer,
)

PATIENCE_SECONDS = 5.0


class Caller:
    """A client of a worker with a socket of its own, or one that it shares with another caller."""

    def __init__(self, worker: Worker, host: str, shared: socket.socket | None = None) -> None:
        self.worker = worker
        self.session, answer = worker.create_session(build_offer(), None)
        credentials = SessionDescription.parse(answer).media[0].attributes
        self.ufrag = credentials.value("ice-ufrag") or ""
        self.pwd = credentials.value("ice-pwd") or ""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = shared or socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect((host, worker.lane))
        self.dtls = DtlsClient()

    def send(self, data: bytes) -> None:
        self.socket.send(data)

    def check(self) -> None:
        self.send(build_check(ufrag=self.ufrag, pwd=self.pwd))

    async def receive(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.get_running_loop().sock_recv(self.socket, 2048)

    async def prove(self) -> None:
        """Check, and answer the probe."""
        self.check()
        probe, success = await self.receive(), await self.receive()
        assert parse_stun(success).kind == BINDING_SUCCESS
        self.send(build_probe_answer(probe, self.socket.getsockname()))

    async def connect(self) -> None:
        await self.prove()
        datagrams = self.dtls.start()
        while not self.dtls.is_connected:
            for datagram in datagrams:
                self.send(datagram)
            datagrams = self.dtls.receive(await self.receive())
        self.srtp = self.dtls.derive_srtp()

    def say(self, sequence: int, payload: bytes) -> None:
        packet = RtpPacket(PAYLOAD_TYPE, False, sequence, sequence * 960, 7, payload)
        self.send(self.srtp.tx.protect(build_rtp(packet)))

    async def hear(self) -> bytes:
        """Return the payload of the next RTP packet."""
        while True:
            data = await self.receive()
            if data[0] >= 128 and not is_rtcp(data):
                return parse_rtp(self.srtp.rx.unprotect(data)).payload

    async def echo(self, sequence: int, payload: bytes) -> bytes:
        self.say(sequence, payload)
        return await self.hear()


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        await asyncio.sleep(0.005)


def assert_every_datagram_has_one_fate(worker: Worker) -> None:
    counters = worker.counters.as_dict()
    fates = ("handled__", "ignored__", "drop__")
    told = sum(count for name, count in counters.items() if name.startswith(fates))
    assert told == counters["received"]
    assert counters["internal_errors"] == 0


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker(["127.0.0.1", "::1"], 0, Echo, sessions_max=4)
    worker.start()
    yield worker
    worker.close()
    assert_every_datagram_has_one_fate(worker)


@pytest.fixture
def call(worker: Worker) -> Iterator[Callable[..., Caller]]:
    with ExitStack() as stack:

        def open_caller(host: str = "127.0.0.1", shared: socket.socket | None = None) -> Caller:
            caller = Caller(worker, host, shared)
            stack.enter_context(caller.socket)
            return caller

        yield open_caller


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_call_is_echoed(call: Callable[..., Caller], host: str) -> None:
    caller = call(host)
    await caller.connect()
    for sequence in range(10):
        assert await caller.echo(sequence, b"%d" % sequence) == b"%d" % sequence


async def test_two_calls_hear_their_own(call: Callable[..., Caller]) -> None:
    first, second = call(), call()
    await first.connect()
    await second.connect()
    first.say(1, b"first")
    second.say(1, b"second")
    assert (await second.hear(), await first.hear()) == (b"second", b"first")


def stun(kind: int, body: bytes = b"", cookie: int = 0x2112A442) -> bytes:
    return struct.pack("!HHI12s", kind, len(body), cookie, bytes(12)) + body


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        pytest.param(b"", "drop__empty", id="empty"),
        pytest.param(b"\x04" + bytes(30), "drop__unknown_class", id="first byte 4"),
        pytest.param(b"\x13", "drop__unknown_class", id="first byte 19"),
        pytest.param(b"\x40" + bytes(30), "drop__unknown_class", id="first byte 64"),
        pytest.param(b"\xc0" + bytes(30), "drop__unknown_class", id="first byte 192"),
        pytest.param(bytes(19), "drop__bad_stun", id="STUN too short"),
        pytest.param(stun(1, cookie=1), "drop__bad_stun", id="STUN with a wrong cookie"),
        pytest.param(stun(1, b"\0\6\0\\9abcd"), "drop__bad_stun", id="attribute past the end"),
        pytest.param(stun(1), "drop__bad_username", id="request without USERNAME"),
        pytest.param(stun(1, b"\0\6\0\4abcd"), "drop__bad_username", id="USERNAME without colon"),
        pytest.param(stun(1, b"\0\6\0\4ab:c"), "drop__no_session", id="unknown ufrag"),
        pytest.param(stun(1, b"\0\6\0\4\xff\xfe:c"), "drop__no_session", id="ufrag not UTF-8"),
        pytest.param(build_check(ufrag=""), "drop__no_session", id="empty ufrag"),
        pytest.param(stun(0x0101), "drop__stun_unsolicited", id="response to nothing"),
        pytest.param(stun(0x0111), "drop__stun_unsolicited", id="error to nothing"),
        pytest.param(stun(0x0011), "ignored__stun_indication", id="indication"),
        pytest.param(stun(0x0200), "drop__stun_unsupported", id="GOOG-PING"),
        pytest.param(stun(0x0003), "drop__stun_unsupported", id="TURN Allocate"),
        pytest.param(b"\x16\xfe\xfd" + bytes(10), "drop__no_flow", id="DTLS of nobody"),
        pytest.param(b"\x80\x6f" + bytes(20), "drop__no_flow", id="RTP of nobody"),
        pytest.param(b"\x80\xc8" + bytes(20), "drop__no_flow", id="RTCP of nobody"),
        pytest.param(b"\x80" * 3000, "drop__no_flow", id="longer than is read"),
    ],
)
async def test_bad_datagram_is_counted_and_not_answered(
    worker: Worker, call: Callable[..., Caller], data: bytes, counter: str
) -> None:
    caller = call()
    caller.send(data)
    await until(lambda: worker.counters.received == 1)
    assert getattr(worker.counters, counter) == 1
    assert worker.counters.sent == 0


async def test_check_with_wrong_password_is_not_answered(
    worker: Worker, call: Callable[..., Caller]
) -> None:
    caller = call()
    caller.pwd = "x" * 24
    caller.check()
    await until(lambda: worker.counters.drop__bad_integrity == 1)
    assert worker.counters.sent == 0


async def test_probe_answer_from_another_address_proves_nothing(
    worker: Worker, call: Callable[..., Caller]
) -> None:
    caller, other = call(), call()
    caller.check()
    probe = await caller.receive()
    other.send(build_probe_answer(probe, caller.socket.getsockname()))
    await until(lambda: worker.counters.drop__stun_unsolicited == 1)
    assert caller.session.ice.selected is None


async def test_check_of_another_session_takes_no_live_call(
    worker: Worker, call: Callable[..., Caller]
) -> None:
    victim = call()
    await victim.connect()
    insider = call(shared=victim.socket)  # sends from the victim's address
    insider.check()
    probe = await victim.receive()
    while parse_stun(probe).kind != BINDING_REQUEST:
        probe = await victim.receive()
    victim.say(1, b"mine")
    assert await victim.hear() == b"mine"
    # The victim, who alone hears the probe, has not the insider's password.
    victim.send(build_probe_answer(probe, victim.socket.getsockname(), pwd="x" * 24))
    await until(lambda: worker.counters.drop__bad_integrity == 1)
    victim.say(2, b"still mine")
    assert await victim.hear() == b"still mine"


async def test_address_of_a_dead_call_is_taken_by_the_next_at_once(
    worker: Worker, call: Callable[..., Caller]
) -> None:
    first = call()
    await first.connect()
    second = call(shared=first.socket)
    await second.connect()
    assert await second.echo(1, b"second") == b"second"
    assert not first.session.ice.flows
    assert first.session.ended is None


async def test_handshake_without_a_client_is_retransmitted_by_the_timer(
    worker: Worker, call: Callable[..., Caller]
) -> None:
    caller = call()
    await caller.prove()
    for datagram in caller.dtls.start():
        caller.send(datagram)
    flight = await caller.receive()
    again = await caller.receive()  # a second later
    assert len(again) == len(flight)
    assert again[13:14] == flight[13:14]


async def test_sessions_past_the_cap_are_refused(worker: Worker) -> None:
    for _ in range(4):
        worker.create_session(build_offer(), None)
    with pytest.raises(SignalingError, match="its 4 sessions") as refused:
        worker.create_session(build_offer(), None)
    assert refused.value.status == 503


async def test_session_id_in_use_is_refused(worker: Worker) -> None:
    worker.create_session(build_offer(), "ab" * 16)
    with pytest.raises(SignalingError, match="abab") as refused:
        worker.create_session(build_offer(), "ab" * 16)
    assert refused.value.status == 409


async def test_ended_session_leaves_nothing_behind(
    worker: Worker, call: Callable[..., Caller]
) -> None:
    told: list[tuple[object, str]] = []
    worker.on_ended = lambda session, reason: told.append((session, reason))
    caller = call()
    await caller.connect()
    assert worker.end_session(caller.session.id, "deleted")
    assert not worker.end_session(caller.session.id, "deleted")
    assert told == [(caller.session, "deleted")]
    assert (worker.sessions, worker.probes) == ({}, {})
    assert worker.counters.sessions_ended__deleted == 1
    caller.check()
    await until(lambda: worker.counters.drop__no_session == 1)


async def test_close_ends_every_call_with_bye_and_close_notify(
    worker: Worker, call: Callable[..., Caller]
) -> None:
    caller = call()
    await caller.connect()
    worker.close()
    datagrams = [await caller.receive(), await caller.receive()]
    assert is_rtcp(datagrams[0])
    caller.dtls.receive(datagrams[1])
    assert caller.dtls.is_closed
    with pytest.raises(SignalingError) as refused:
        worker.create_session(build_offer(), None)
    assert refused.value.status == 503


async def test_send_that_the_kernel_refuses_is_counted(
    worker: Worker, call: Callable[..., Caller]
) -> None:
    caller = call()
    await caller.connect()
    flow = caller.session.ice.selected
    assert flow is not None
    flow.address = ("127.0.0.1", 0)  # the kernel refuses port 0
    caller.say(1, b"abc")
    await until(lambda: worker.counters.send_failed__refused == 1)
    flow.address = caller.socket.getsockname()


def test_lane_in_use_raises() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="in use"):
            Worker(["127.0.0.1"], taken.getsockname()[1], Echo)
