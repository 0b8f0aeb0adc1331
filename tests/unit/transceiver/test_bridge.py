"""The RTP bridge over real loopback sockets, with the call played by the test."""

import functools
import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from turnout.transceiver.bridge import Backend, Bridge, Bridges
from turnout.transceiver.counters import Counters
from turnout.wire.rtp import RtpPacket, build_rtp, parse_rtp
from turnout.wire.sdp import Codec
from unit.patience import until

OPUS = Codec(111, "opus", 48000, 2, "minptime=10")
EVENT = Codec(110, "telephone-event", 48000, 1, None)
SESSION_ID = "0123456789abcdef" * 2


@dataclass
class Sent:
    payload_type: int
    marker: bool
    timestamp: int
    payload: bytes


@dataclass
class FakeCall:
    """A connected session, as an application sees it."""

    session_id: str = SESSION_ID
    clock_rate: int = 48000
    codecs: tuple[Codec, ...] = (OPUS, EVENT)
    counters: Counters = field(default_factory=Counters)
    sent: list[Sent] = field(default_factory=list)

    def send_rtp(
        self, payload_type: int, marker: bool, timestamp: int, payload: bytes, now: float
    ) -> None:
        assert now > 0
        self.sent.append(Sent(payload_type, marker, timestamp, payload))


@pytest.fixture
def backend() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(5)
        yield opened


@dataclass
class Rig:
    call: FakeCall
    bridge: Bridge
    told: list[dict[str, Any]]

    def has_sent(self, payload: bytes) -> bool:
        return any(sent.payload == payload for sent in self.call.sent)

    @property
    def address(self) -> tuple[str, int]:
        host, port = str(self.told[0]["rtp"]["address"]).split(":")
        return host, int(port)


@pytest.fixture
async def rig(backend: socket.socket) -> Any:
    host, port = backend.getsockname()
    call, told = FakeCall(), list[dict[str, Any]]()
    bridge = Bridges(Backend.find(f"rtp://{host}:{port}"), told.append)(call)
    yield Rig(call, bridge, told)
    bridge.close()


def packet(sequence: int, timestamp: int, *, ssrc: int = 7, payload_type: int = 111) -> RtpPacket:
    return RtpPacket(payload_type, sequence == 1, sequence, timestamp, ssrc, b"sound %d" % sequence)


async def test_bridge_start_and_close_are_announced_with_its_socket(
    rig: Rig, backend: socket.socket
) -> None:
    assert rig.bridge.describe() == {"rtp": None}
    assert rig.told == []
    rig.bridge.start()
    ends = rig.bridge.describe()["rtp"]
    rig.bridge.close()
    rig.bridge.close()
    assert [told["event"] for told in rig.told] == ["call_started", "call_ended"]
    for told in rig.told:
        assert told["call"] == SESSION_ID
        assert told["rtp"] == ends
        assert told["codecs"][0] == {
            "payload_type": 111,
            "name": "opus",
            "clock_rate": 48000,
            "channels": 2,
            "parameters": "minptime=10",
        }
        assert [codec["payload_type"] for codec in told["codecs"]] == [111, 110]
    assert rig.told[0]["rtp"]["backend"] == "{}:{}".format(*backend.getsockname())


async def test_bridge_of_a_call_that_never_connected_is_not_announced(rig: Rig) -> None:
    rig.bridge.close()
    assert rig.told == []


async def test_bridge_hands_the_client_s_packets_on_as_they_are(
    rig: Rig, backend: socket.socket
) -> None:
    rig.bridge.start()
    sent = [packet(65535, 4_294_967_000), packet(0, 664), packet(1, 1624, payload_type=110)]
    for one in sent:
        rig.bridge.receive_rtp(one, 0.0)
    received = [backend.recvfrom(2048) for _ in sent]
    assert [parse_rtp(data) for data, _ in received] == sent
    assert {source for _, source in received} == {rig.address}
    assert rig.call.counters.bridge__sent == 3


async def test_bridge_puts_the_backend_s_sources_on_one_time_line(
    rig: Rig, backend: socket.socket
) -> None:
    rig.bridge.start()
    sources = [packet(5, 100), packet(6, 1060), packet(900, 77_000, ssrc=8), packet(901, 77_960)]
    sources[3] = sources[3]._replace(ssrc=8)
    for one in sources:
        arrived = functools.partial(rig.has_sent, one.payload)
        backend.sendto(build_rtp(one), rig.address)
        await until(arrived)
    stamps = [sent.timestamp for sent in rig.call.sent]
    steps = [later - earlier & 0xFFFFFFFF for earlier, later in itertools.pairwise(stamps)]
    assert steps[0] == steps[2] == 960
    assert 0 < steps[1] < 5 * 48000
    assert [sent.payload for sent in rig.call.sent] == [one.payload for one in sources]


async def test_bridge_counts_what_the_backend_sends_and_no_call_can_take(
    rig: Rig, backend: socket.socket
) -> None:
    rig.bridge.start()
    sender_report = bytes([0x80, 200, 0, 6]) + bytes(24)
    for data in (b"", b"\x80", b"\x00" * 12, sender_report):
        backend.sendto(data, rig.address)
    backend.sendto(build_rtp(packet(1, 1, payload_type=0)), rig.address)
    backend.sendto(build_rtp(packet(2, 2)), rig.address)
    counters = rig.call.counters
    await until(lambda: counters.bridge__received == 6)
    assert counters.bridge__bad_rtp == 3
    assert counters.bridge__ignored_rtcp == 1
    assert counters.bridge__payload_type == 1
    assert [sent.payload for sent in rig.call.sent] == [b"sound 2"]


async def test_bridge_takes_nothing_from_anybody_but_the_backend(rig: Rig) -> None:
    rig.bridge.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.connect(rig.address)
        stranger.send(build_rtp(packet(1, 1)))
        # The kernel refuses it: the socket is connected to another.
        with pytest.raises(ConnectionRefusedError):
            stranger.send(b"again")
    assert rig.call.counters.bridge__received == 0


async def test_bridge_whose_backend_is_gone_counts_and_goes_on_when_it_is_back(
    rig: Rig, backend: socket.socket
) -> None:
    address = backend.getsockname()
    rig.bridge.start()
    backend.close()
    counters = rig.call.counters
    rig.bridge.receive_rtp(packet(1, 1), 0.0)
    await until(lambda: counters.bridge__refused == 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reborn:
        reborn.bind(address)
        reborn.settimeout(5)
        rig.bridge.receive_rtp(packet(2, 2), 0.0)
        assert parse_rtp(reborn.recv(2048)) == packet(2, 2)


async def test_backend_of_an_unknown_host_is_an_error_that_names_it() -> None:
    with pytest.raises(OSError, match=r"rtp://nobody\.invalid:4000"):
        Backend.find("rtp://nobody.invalid:4000")
