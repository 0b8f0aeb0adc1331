"""ICMP errors about packets of ours: the quoted port is the lane's again; all else is let be."""

from dataclasses import dataclass
from typing import Any

import packets as p
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    PadN,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from datapath import (
    DOWN,
    GENERATION,
    LOOPBACK,
    OTHER_SLOT,
    PLACES,
    SLOT,
    XDP_PASS,
    Datapath,
)

ROUTER4, ROUTER6 = "203.0.113.1", "2001:db8:ffff::1"
TRANSLATED, NO_FLOW = {"icmp__translated": 1}, {"icmp__no_flow": 1}
# A large datagram: routers quote its beginning only.
PAYLOAD = p.RTP + bytes(range(256)) * 5
OUTER4, OUTER6 = IP(src=ROUTER4, dst=p.VIP4), IPv6(src=ROUTER6, dst=p.VIP6)
TOO_BIG4 = ICMP(type=3, code=4, nexthopmtu=1280)
TOO_BIG6 = ICMPv6PacketTooBig(mtu=1280)


def sent4(**changed: Any) -> Packet:
    """What left the edge: from the shared port."""
    return IP(src=p.VIP4, dst=p.CLIENT4, flags="DF", **changed) / udp()


def sent6() -> Packet:
    return IPv6(src=p.VIP6, dst=p.CLIENT6) / udp()


def udp(sport: int = p.SHARED_PORT, dport: int = p.CLIENT_PORT) -> Packet:
    return UDP(sport=sport, dport=dport) / Raw(PAYLOAD)


def quote(packet: Packet, size_bytes: int = 548) -> Raw:
    """The beginning of a packet as it was on the wire, with its checksums."""
    return Raw(bytes(packet)[:size_bytes])


@dataclass(frozen=True)
class Row:
    id: str
    frame: Packet
    quoted: int | None = None  # offset of the quoted source port: it becomes the lane


SENT4, SENT6 = quote(sent4()), quote(sent6())
ERRORS4 = [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0)]
ERRORS6 = {
    "unreachable": ICMPv6DestUnreach(code=4),
    "too-big": TOO_BIG6,
    "time-exceeded": ICMPv6TimeExceeded(),
    "parameter-problem": ICMPv6ParamProblem(),
}
OPTIONS = [b"\x01"] * 8

TRANSLATED_ROWS = [
    *[
        Row(f"v4-{kind}-{code}", p.ether() / OUTER4 / ICMP(type=kind, code=code) / SENT4, 62)
        for kind, code in ERRORS4
    ],
    *[
        Row(f"v6-{name}", p.ether() / OUTER6 / error / SENT6, 102)
        for name, error in ERRORS6.items()
    ],
    Row("v4-vlan", p.ether() / Dot1Q(vlan=5) / OUTER4 / TOO_BIG4 / SENT4, 66),
    Row("v6-vlan", p.ether() / Dot1Q(vlan=5) / OUTER6 / TOO_BIG6 / SENT6, 106),
    Row(
        "v4-options-outside",
        p.ether() / IP(src=ROUTER4, dst=p.VIP4, options=OPTIONS) / TOO_BIG4 / SENT4,
        70,
    ),
    Row("v4-options-inside", p.ether() / OUTER4 / TOO_BIG4 / quote(sent4(options=OPTIONS)), 70),
    Row(
        "v4-60-bytes-of-header-inside",
        p.ether() / OUTER4 / TOO_BIG4 / quote(sent4(options=[b"\x01"] * 40)),
        102,
    ),
    Row("v4-28-bytes-quoted", p.ether() / OUTER4 / TOO_BIG4 / quote(sent4(), 28), 62),
    Row("v4-ports-and-no-more", p.ether() / OUTER4 / TOO_BIG4 / quote(sent4(), 24), 62),
    Row("v6-ports-and-no-more", p.ether() / OUTER6 / TOO_BIG6 / quote(sent6(), 44), 102),
    Row("v4-odd-length", p.ether() / OUTER4 / TOO_BIG4 / quote(sent4(), 99), 62),
    Row("v6-1232-bytes-quoted", p.ether() / OUTER6 / TOO_BIG6 / quote(sent6(), 1232), 102),
    Row(
        "v4-first-fragment-inside",
        p.ether() / OUTER4 / TOO_BIG4 / quote(IP(src=p.VIP4, dst=p.CLIENT4, flags="MF") / udp()),
        62,
    ),
    Row("v4-from-the-client", p.ether() / IP(src=p.CLIENT4, dst=p.VIP4) / TOO_BIG4 / SENT4, 62),
]

UNTOUCHED_ROWS = [
    *[
        Row(f"v4-type-{kind}", p.ether() / OUTER4 / ICMP(type=kind) / SENT4)
        for kind in (0, 4, 5, 8, 9, 10, 13, 14, 30, 255)
    ],
    *[
        Row(f"v6-type-{kind}", p.ether() / OUTER6 / ICMPv6DestUnreach(type=kind) / SENT6)
        for kind in (0, 5, 127, 128, 129, 133, 134, 135, 136, 137, 255)
    ],
    Row("v4-echo-request", p.ether() / OUTER4 / ICMP() / Raw(b"ping")),
    Row("v6-echo-request", p.ether() / OUTER6 / ICMPv6EchoRequest(data=b"ping")),
    Row("v4-no-quote", p.ether() / OUTER4 / TOO_BIG4),
    Row("v6-no-quote", p.ether() / OUTER6 / TOO_BIG6),
    Row("v4-cut-before-the-ports", p.ether() / OUTER4 / TOO_BIG4 / quote(sent4(), 20)),
    Row("v4-cut-in-the-ports", p.ether() / OUTER4 / TOO_BIG4 / quote(sent4(), 23)),
    Row("v6-cut-before-the-ports", p.ether() / OUTER6 / TOO_BIG6 / quote(sent6(), 40)),
    Row("v6-cut-in-the-ports", p.ether() / OUTER6 / TOO_BIG6 / quote(sent6(), 43)),
    Row(
        "v4-other-source-port",
        p.ether() / OUTER4 / TOO_BIG4 / quote(IP(src=p.VIP4, dst=p.CLIENT4) / udp(sport=53)),
    ),
    Row(
        "v4-lane-as-source-port",
        p.ether() / OUTER4 / TOO_BIG4 / quote(IP(src=p.VIP4, dst=p.CLIENT4) / udp(sport=p.LANE)),
    ),
    Row(
        "v4-other-source-address",
        p.ether() / OUTER4 / TOO_BIG4 / quote(IP(src="192.0.2.99", dst=p.CLIENT4) / udp()),
    ),
    Row(
        "v6-other-source-address",
        p.ether() / OUTER6 / TOO_BIG6 / quote(IPv6(src="2001:db8::99", dst=p.CLIENT6) / udp()),
    ),
    Row(
        "v4-to-another-host",
        p.ether() / IP(src=ROUTER4, dst="192.0.2.99") / TOO_BIG4 / SENT4,
    ),
    Row(
        "v6-to-another-host",
        p.ether() / IPv6(src=ROUTER6, dst="2001:db8::99") / TOO_BIG6 / SENT6,
    ),
    Row(
        "v4-tcp-quoted",
        p.ether()
        / OUTER4
        / TOO_BIG4
        / quote(IP(src=p.VIP4, dst=p.CLIENT4) / TCP(sport=p.SHARED_PORT, dport=p.CLIENT_PORT)),
    ),
    Row(
        "v6-tcp-quoted",
        p.ether()
        / OUTER6
        / TOO_BIG6
        / quote(IPv6(src=p.VIP6, dst=p.CLIENT6) / TCP(sport=p.SHARED_PORT, dport=p.CLIENT_PORT)),
    ),
    Row(
        "v4-later-fragment-quoted",
        p.ether()
        / OUTER4
        / TOO_BIG4
        / quote(IP(src=p.VIP4, dst=p.CLIENT4, frag=185, proto=17) / Raw(bytes(udp()))),
    ),
    Row(
        "v6-extension-header-quoted",
        p.ether()
        / OUTER6
        / TOO_BIG6
        / quote(
            IPv6(src=p.VIP6, dst=p.CLIENT6)
            / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
            / udp()
        ),
    ),
    Row("v4-ipv6-quoted", p.ether() / OUTER4 / TOO_BIG4 / SENT6),
    Row("v6-ipv4-quoted", p.ether() / OUTER6 / TOO_BIG6 / SENT4),
    Row("v4-ihl-below-5-quoted", p.ether() / OUTER4 / TOO_BIG4 / quote(sent4(ihl=4))),
    Row("v4-fragment", p.ether() / IP(src=ROUTER4, dst=p.VIP4, flags="MF") / TOO_BIG4 / SENT4),
    Row("v4-later-fragment", p.ether() / IP(src=ROUTER4, dst=p.VIP4, frag=9, proto=1) / SENT4),
    Row("v6-fragment", p.ether() / OUTER6 / IPv6ExtHdrFragment(m=1) / TOO_BIG6 / SENT6),
    Row("v6-atomic-fragment", p.ether() / OUTER6 / IPv6ExtHdrFragment() / TOO_BIG6 / SENT6),
    Row(
        "v6-behind-an-extension-header",
        p.ether() / OUTER6 / IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]) / TOO_BIG6 / SENT6,
    ),
]


def with_port(frame: bytes, at: int, port: int) -> bytes:
    """The frame with another port quoted at the offset, and ICMP's checksum made anew."""
    changed = Ether(frame[:at] + port.to_bytes(2, "big") + frame[at + 2 :])
    icmp = changed[ICMP] if ICMP in changed else changed[IPv6].payload
    icmp.delfieldval("chksum" if ICMP in changed else "cksum")
    return bytes(changed)


@pytest.fixture
def edge(datapath: Datapath) -> Datapath:
    datapath.add_session("srvr")
    for client in (p.CLIENT4, p.CLIENT6):
        datapath.add_flow(client, ufrag_hash=datapath.session_key("srvr"))
    return datapath


@pytest.mark.parametrize("row", TRANSLATED_ROWS, ids=lambda row: row.id)
def test_error_about_our_packet_gets_the_lane(edge: Datapath, row: Row) -> None:
    frame = bytes(row.frame)
    assert row.quoted is not None
    assert frame[row.quoted : row.quoted + 2] == p.SHARED_PORT.to_bytes(2, "big")

    outcome = edge.receive(frame)

    assert (outcome.verdict, outcome.counted) == (XDP_PASS, TRANSLATED)
    assert outcome.frame == with_port(frame, row.quoted, p.LANE)


@pytest.mark.parametrize("row", UNTOUCHED_ROWS, ids=lambda row: row.id)
def test_other_icmp_is_left_as_it_is(edge: Datapath, row: Row) -> None:
    frame = bytes(row.frame)

    outcome = edge.receive(frame)

    assert (outcome.verdict, outcome.counted, outcome.frame) == (XDP_PASS, {}, frame)


@pytest.mark.parametrize("version", [4, 6])
def test_error_cut_at_every_byte_is_never_half_translated(edge: Datapath, version: int) -> None:
    whole = bytes(
        p.ether() / OUTER4 / TOO_BIG4 / quote(sent4(), 64)
        if version == 4
        else p.ether() / OUTER6 / TOO_BIG6 / quote(sent6(), 84)
    )
    ports = 62 if version == 4 else 102
    for length in range(14, len(whole)):
        outcome = edge.receive(whole[:length])
        if length < ports + 4:
            assert (outcome.counted, outcome.frame) == ({}, whole[:length]), length
        else:
            assert outcome.counted == TRANSLATED, length
            assert outcome.frame[ports : ports + 2] == p.LANE.to_bytes(2, "big"), length


@pytest.mark.parametrize("frame", [TRANSLATED_ROWS[3].frame, TRANSLATED_ROWS[9].frame])
def test_error_about_a_packet_to_nobody_is_counted_and_left(
    datapath: Datapath, frame: Packet
) -> None:
    outcome = datapath.receive(bytes(frame))
    assert (outcome.verdict, outcome.counted) == (XDP_PASS, NO_FLOW)
    assert outcome.frame == bytes(frame)


def test_error_about_another_tuple_finds_no_flow(edge: Datapath) -> None:
    other_port = quote(IP(src=p.VIP4, dst=p.CLIENT4) / udp(dport=40001))
    other_host = quote(IP(src=p.VIP4, dst=p.STRANGER4) / udp())
    for quoted in (other_port, other_host):
        outcome = edge.receive(bytes(p.ether() / OUTER4 / TOO_BIG4 / quoted))
        assert outcome.counted == NO_FLOW


@pytest.mark.parametrize("gone", ["down", "reborn", "claimed"])
def test_error_for_an_owner_that_is_gone_is_left(edge: Datapath, gone: str) -> None:
    if gone == "down":
        edge.add_owner(SLOT, p.LANE, state=DOWN)
    elif gone == "reborn":
        edge.add_owner(SLOT, p.LANE, generation=GENERATION + 1)
    else:
        flow = edge.flow()
        assert flow is not None
        bucket = edge.bucket(flow["place"])
        bucket["entry"][flow["place"] % PLACES] &= ~0xFFFFFF
        edge.maps.flows.update(flow["place"] // PLACES, bucket)
    frame = bytes(p.ether() / OUTER4 / TOO_BIG4 / SENT4)

    outcome = edge.receive(frame)

    assert (outcome.counted, outcome.frame) == (NO_FLOW, frame)


def test_error_goes_to_the_owner_that_the_flow_has_now(edge: Datapath) -> None:
    edge.add_flow(port=40001, slot=OTHER_SLOT)
    quoted = quote(IP(src=p.VIP4, dst=p.CLIENT4) / udp(dport=40001))
    frame = bytes(p.ether() / OUTER4 / TOO_BIG4 / quoted)

    assert edge.receive(frame).frame == with_port(frame, 62, p.OTHER_LANE)


def test_error_with_a_wrong_checksum_is_not_mended(edge: Datapath) -> None:
    frame = bytearray(bytes(p.ether() / OUTER4 / TOO_BIG4 / SENT4))
    frame[36] ^= 0x5A

    outcome = edge.receive(bytes(frame))

    assert outcome.frame[62:64] == p.LANE.to_bytes(2, "big")
    assert outcome.frame != with_port(bytes(frame), 62, p.LANE)


def test_error_keeps_no_flow_alive_and_is_not_metered(edge: Datapath) -> None:
    """Anybody can send one that quotes a guess."""
    edge.set(flow_packets=1)
    edge.pass_ticks(3)
    frame = bytes(p.ether() / OUTER4 / TOO_BIG4 / SENT4)
    before = edge.flow()
    for _ in range(5):
        assert edge.receive(frame).counted == TRANSLATED

    assert edge.flow() == before
    media = {"received": 1, "steered__rtp": 1}
    assert edge.receive(bytes(p.ip4(p.RTP))).counted == media


def test_error_on_loopback_gets_the_lane_too(edge: Datapath) -> None:
    """A router inside the host, a namespace's, answers there."""
    frame = bytes(p.ether() / OUTER4 / TOO_BIG4 / SENT4)
    assert edge.receive(frame, interface=LOOPBACK).counted == TRANSLATED
