"""One row a packet: what comes in, the verdict, what comes out, and exactly what was counted."""

from dataclasses import dataclass, field

import packets as p
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from datapath import XDP_DROP, XDP_PASS, Datapath


@dataclass(frozen=True)
class Row:
    id: str
    frame: Packet
    counted: dict[str, int] = field(default_factory=dict)
    lane: int | None = None  # where it is steered to; None: not rewritten
    flow: bool = False  # the client's flow exists before
    from_loopback: bool = False


def steered(
    id_: str, frame: Packet, kind: str, *, learned: bool = False, flow: bool = False
) -> Row:
    counted = {"received": 1, f"steered__{kind}": 1} | ({"flow__learned": 1} if learned else {})
    return Row(id_, frame, counted, lane=p.LANE, flow=flow)


def dropped(id_: str, frame: Packet, reason: str, *, flow: bool = False) -> Row:
    return Row(id_, frame, {"received": 1, f"drop__{reason}": 1}, flow=flow)


def untouched(id_: str, frame: Packet, *, from_loopback: bool = False) -> Row:
    return Row(id_, frame, from_loopback=from_loopback)


def guarded(id_: str, frame: Packet, reason: str = "lane") -> Row:
    return Row(id_, frame, {f"guard__{reason}": 1})


def ether_over(*layers: Packet) -> Packet:
    frame = p.ether()
    for layer in layers:
        frame = frame / layer
    return frame


CHECK = p.check()
V4, V6 = IP(src=p.CLIENT4, dst=p.VIP4), IPv6(src=p.CLIENT6, dst=p.VIP6)
UDP_CHECK = p.udp(CHECK)
LONGEST = "s" * 256
PAD8 = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
# 2,040 bytes of options: with two of them UDP begins beyond the first page of the packet.
PAD2040 = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(252))] * 8)

STEERED = [
    steered("check-v4", p.ip4(CHECK), "stun_request", learned=True),
    steered("check-v6", p.ip6(CHECK), "stun_request", learned=True),
    steered("check-vlan", ether_over(Dot1Q(vlan=5), V4, UDP_CHECK), "stun_request", learned=True),
    steered(
        "check-qinq-v6",
        ether_over(Dot1AD(vlan=6), Dot1Q(vlan=5), V6, UDP_CHECK),
        "stun_request",
        learned=True,
    ),
    steered(
        "check-ipv4-options",
        ether_over(IP(src=p.CLIENT4, dst=p.VIP4, options=[b"\x01"] * 40), UDP_CHECK),
        "stun_request",
        learned=True,
    ),
    steered(
        "check-ipv6-extension-headers",
        ether_over(V6, IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(), PAD8, UDP_CHECK),
        "stun_request",
        learned=True,
    ),
    steered(
        "check-ipv6-atomic-fragment",
        ether_over(V6, IPv6ExtHdrFragment(m=0, offset=0), UDP_CHECK),
        "stun_request",
        learned=True,
    ),
    steered("check-no-udp-checksum-v4", p.ip4(CHECK, chksum=0), "stun_request", learned=True),
    steered(
        "check-username-fifth",
        p.ip4(p.check("srvr:clnt", *[p.attribute(p.SOFTWARE, b"nice-lib")] * 4)),
        "stun_request",
        learned=True,
    ),
    steered(
        "check-integrity-last-of-24",
        p.ip4(p.check("srvr:clnt", *[p.attribute(p.PRIORITY, bytes(4))] * 21)),
        "stun_request",
        learned=True,
    ),
    steered(
        "check-padding-not-zero",
        p.ip4(p.sign(p.stun(1, p.attribute(p.USERNAME, b"srvr:clien", pad=b"\xff")))),
        "stun_request",
        learned=True,
    ),
    steered("check-ufrag-256", p.ip4(p.check(f"{LONGEST}:c")), "stun_request", learned=True),
    steered(
        "check-both-ufrags-256",
        p.ip4(p.check(f"{LONGEST}:{'c' * 256}")),
        "stun_request",
        learned=True,
    ),
    steered("check-ufrag-24", p.ip4(p.check(f"{'e' * 24}:c")), "stun_request", learned=True),
    steered(
        "check-of-1400-bytes",
        p.ip4(p.check("srvr:c", p.attribute(0xC070, bytes(1332)))),
        "stun_request",
        learned=True,
    ),
    steered("check-with-bytes-after-it", p.ip4(CHECK + b"tail"), "stun_request", learned=True),
    steered(
        "check-jumbo-not-linear-of-a-flow",
        p.ip4(p.stun(1, p.attribute(0xC070, bytes(6000)), p.attribute(p.USERNAME, b"srvr:c"))),
        "stun_request",
        flow=True,
    ),
    steered("rtp-by-flow-v4", p.ip4(p.RTP), "rtp", flow=True),
    steered("rtp-by-flow-v6", p.ip6(p.RTP), "rtp", flow=True),
    steered("rtcp-by-flow", p.ip4(p.RTCP), "rtp", flow=True),
    steered("rtp-last-first-byte", p.ip4(b"\xbf" + bytes(11)), "rtp", flow=True),
    steered("dtls-by-flow", p.ip4(p.DTLS_HANDSHAKE), "dtls", flow=True),
    steered("dtls-last-first-byte", p.ip4(b"\x3f" + bytes(12)), "dtls", flow=True),
    steered("rtp-odd-length-v6", p.ip6(p.RTP + b"x"), "rtp", flow=True),
    steered("rtp-jumbo-not-linear", p.ip6(b"\x80" + bytes(7000)), "rtp", flow=True),
    steered("stun-success-by-flow", p.ip4(p.stun(p.BINDING_SUCCESS)), "stun", flow=True),
    steered("stun-error-by-flow", p.ip4(p.stun(p.BINDING_ERROR)), "stun", flow=True),
    steered("stun-indication-by-flow", p.ip4(p.stun(p.BINDING_INDICATION)), "stun", flow=True),
    steered("goog-ping-by-flow", p.ip4(p.stun(p.GOOG_PING)), "stun", flow=True),
    steered("request-without-username-by-flow", p.ip4(p.stun(1)), "stun", flow=True),
    steered(
        "indication-with-username-by-flow",
        p.ip4(p.stun(p.BINDING_INDICATION, p.attribute(p.USERNAME, b"nobody:c"))),
        "stun",
        flow=True,
    ),
    *[
        steered(
            f"username-after-{name}-is-not-covered",
            p.ip4(p.stun(1, p.attribute(kind, bytes(size)), p.attribute(p.USERNAME, b"nobody:c"))),
            "stun",
            flow=True,
        )
        for name, kind, size in (
            ("integrity", p.MESSAGE_INTEGRITY, 20),
            ("integrity-sha256", p.MESSAGE_INTEGRITY_SHA256, 32),
        )
    ],
]

DROPPED = [
    dropped("no-payload", p.ip4(b""), "empty"),
    dropped("udp-length-below-header", p.ip4(CHECK, len=7), "bad_udp_length"),
    dropped("udp-length-past-packet", p.ip4(CHECK, len=9000), "bad_udp_length"),
    dropped(
        "ip-length-past-frame",
        ether_over(IP(src=p.CLIENT4, dst=p.VIP4, len=1400), p.udp(CHECK, len=1380)),
        "bad_udp_length",
    ),
    *[
        dropped(f"first-byte-{byte}", p.ip4(bytes([byte]) + bytes(40)), "unknown_class", flow=True)
        for byte in (4, 15, 19, 64, 79, 127, 192, 255)
    ],
    dropped("stun-shorter-than-header", p.ip4(CHECK[:19]), "bad_stun", flow=True),
    dropped("stun-wrong-cookie", p.ip4(p.stun(1, cookie=0x2112A443)), "bad_stun", flow=True),
    dropped("stun-length-not-of-4", p.ip4(p.stun(1, length=2) + b"xx"), "bad_stun", flow=True),
    dropped("stun-length-past-datagram", p.ip4(p.stun(1, length=4)), "bad_stun", flow=True),
    dropped(
        "attribute-header-cut",
        p.ip4(p.stun(1, p.attribute(p.PRIORITY, bytes(4), length=6))),
        "bad_stun",
    ),
    dropped(
        "username-past-end",
        p.ip4(p.stun(1, p.attribute(p.USERNAME, b"srvr:cl", length=60))),
        "bad_stun",
    ),
    dropped(
        "username-padding-overruns",
        p.ip4(p.stun(1, p.attribute(p.SOFTWARE, b"abcd", length=5))),
        "bad_stun",
    ),
    dropped("username-empty", p.ip4(p.stun(1, p.attribute(p.USERNAME, b""))), "bad_username"),
    dropped("username-without-colon", p.ip4(p.check("srvrclnt")), "bad_username"),
    dropped("ufrag-of-3", p.ip4(p.check("srv:clnt")), "bad_username"),
    dropped("ufrag-of-257", p.ip4(p.check(f"{LONGEST}s:c")), "bad_username"),
    dropped("ufrag-empty", p.ip4(p.check(":clnt")), "bad_username"),
    dropped(
        "username-25th",
        p.ip4(p.check("srvr:clnt", *[p.attribute(p.PRIORITY, bytes(4))] * 24)),
        "stun_attributes",
    ),
    dropped("ufrag-unknown", p.ip4(p.check("stranger:clnt")), "no_session"),
    dropped("ufrag-unknown-but-flow-known", p.ip4(p.check("other:c")), "no_session", flow=True),
    dropped("ufrag-prefix-of-known", p.ip4(p.check("srvrx:clnt")), "no_session"),
    dropped("rtp-unknown-tuple", p.ip4(p.RTP), "no_flow"),
    dropped("dtls-unknown-tuple", p.ip6(p.DTLS_HANDSHAKE), "no_flow"),
    dropped("response-unknown-tuple", p.ip4(p.stun(p.BINDING_SUCCESS)), "no_flow"),
    dropped("rtp-same-address-other-port", p.ip4(p.RTP, sport=40001), "no_flow", flow=True),
]

FRAGMENTS = [
    Row(
        "first-fragment-to-shared-port-v4",
        ether_over(IP(src=p.CLIENT4, dst=p.VIP4, flags="MF"), UDP_CHECK),
        {"received": 1, "pass__fragment": 1},
    ),
    Row(
        "first-fragment-to-shared-port-v6",
        ether_over(V6, IPv6ExtHdrFragment(m=1, offset=0), UDP_CHECK),
        {"received": 1, "pass__fragment": 1},
    ),
    # Later fragments carry no ports: what looks like a header is payload.
    untouched("later-fragment-v4", ether_over(IP(src=p.CLIENT4, dst=p.VIP4, frag=185), UDP_CHECK)),
    untouched("later-fragment-v6", ether_over(V6, IPv6ExtHdrFragment(m=1, offset=185), UDP_CHECK)),
]

GUARDED = [
    guarded("lane-v4", p.ip4(CHECK, dport=p.LANE)),
    guarded("lane-v6", p.ip6(CHECK, dport=p.LANE)),
    guarded(
        "lane-behind-ipv4-options",
        ether_over(IP(src=p.CLIENT4, dst=p.VIP4, options=[b"\x01"] * 4), p.udp(b"x", dport=p.LANE)),
    ),
    guarded("lane-behind-vlan", ether_over(Dot1Q(vlan=9), V6, p.udp(b"x", dport=p.LANE))),
    guarded(
        "lane-behind-destination-options", ether_over(V6, PAD8, PAD8, p.udp(b"x", dport=p.LANE))
    ),
    guarded(
        "lane-behind-atomic-fragment",
        ether_over(V6, IPv6ExtHdrFragment(m=0, offset=0), p.udp(b"x", dport=p.LANE)),
    ),
    guarded(
        "lane-by-first-fragment-v4",
        ether_over(IP(src=p.CLIENT4, dst=p.VIP4, flags="MF"), p.udp(bytes(64), dport=p.LANE)),
        "lane_fragment",
    ),
    guarded(
        "lane-by-first-fragment-v6",
        ether_over(V6, IPv6ExtHdrFragment(m=1, offset=0), p.udp(bytes(64), dport=p.LANE)),
        "lane_fragment",
    ),
    *[
        guarded(
            f"lane-behind-{name}",
            ether_over(*[Dot1Q(vlan=vlan) for vlan in vlans], V4, p.udp(b"x", dport=p.LANE)),
            "hidden_port",
        )
        for name, vlans in (
            ("three-priority-tags", (0, 0, 0)),
            ("nine-priority-tags", (0,) * 9),
            ("a-vlan-and-priority-tags", (5, 0, 0, 0)),
            ("two-vlans-and-a-priority-tag", (5, 6, 0)),
        )
    ],
    # The stack cuts the frame where IP ends, reads on in the next fragment and finds a lane.
    guarded(
        "first-fragment-whose-chain-goes-on-behind-the-packet",
        ether_over(
            IPv6(src=p.CLIENT6, dst=p.VIP6, plen=16, nh=44),
            IPv6ExtHdrFragment(m=1, offset=0, nh=60),
            IPv6ExtHdrDestOpt(nh=60, options=[PadN(optdata=bytes(4))]),
            IPv6ExtHdrDestOpt(nh=17, options=[PadN(optdata=bytes(4))]),
            p.udp(b"x", dport=53),
        ),
        "hidden_port",
    ),
    guarded(
        "chain-longer-than-we-walk",
        ether_over(V6, *[PAD8] * 9, p.udp(b"x", dport=p.LANE)),
        "hidden_port",
    ),
    guarded(
        "chain-longer-than-the-first-page",
        ether_over(V6, *[PAD2040] * 3, p.udp(b"x", dport=p.LANE)),
        "hidden_port",
    ),
]

UNTOUCHED = [
    untouched("arp", ether_over(ARP())),
    untouched("other-udp-port", p.ip4(CHECK, dport=53)),
    untouched("lane-nobody-owns", p.ip4(CHECK, dport=20999)),
    untouched("port-below-lanes", p.ip4(CHECK, dport=19999)),
    untouched("port-above-lanes", p.ip4(CHECK, dport=21000)),
    untouched("shared-port-of-other-host", ether_over(IP(dst="192.0.2.11"), UDP_CHECK)),
    untouched("shared-port-of-other-host-v6", ether_over(IPv6(dst="2001:db8::11"), UDP_CHECK)),
    untouched("shared-port-of-unspecified-v6", ether_over(IPv6(dst="::"), UDP_CHECK)),
    untouched("lane-of-other-host", ether_over(IP(dst="192.0.2.11"), p.udp(b"x", dport=p.LANE))),
    untouched(
        "chain-too-long-to-other-host",
        ether_over(IPv6(dst="2001:db8::11"), *[PAD8] * 9, UDP_CHECK),
    ),
    untouched("tcp-to-shared-port", ether_over(V4.copy() / Raw(bytes(20)))),
    untouched("ihl-below-5", ether_over(IP(src=p.CLIENT4, dst=p.VIP4, ihl=4), UDP_CHECK)),
    untouched("three-vlan-tags", ether_over(Dot1Q(), Dot1Q(), Dot1Q(), V4, UDP_CHECK)),
    untouched("wrong-ip-version", ether_over(IP(src=p.CLIENT4, dst=p.VIP4, version=5), UDP_CHECK)),
    untouched("lane-on-loopback", p.ip4(CHECK, dport=p.LANE), from_loopback=True),
    untouched(
        "chain-too-long-on-loopback",
        ether_over(V6, *[PAD8] * 9, UDP_CHECK),
        from_loopback=True,
    ),
]

ROWS = [*STEERED, *DROPPED, *FRAGMENTS, *GUARDED, *UNTOUCHED]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_ingress_row(datapath: Datapath, row: Row) -> None:
    for ufrag in ("srvr", LONGEST, "e" * 24):
        datapath.add_session(ufrag)
    if row.flow:
        datapath.add_flow(p.CLIENT4, ufrag_hash=datapath.add_session("srvr"))
        datapath.add_flow(p.CLIENT6, ufrag_hash=datapath.add_session("srvr"))
    frame = bytes(row.frame)

    outcome = datapath.receive(frame, interface=1 if row.from_loopback else None)

    lost = any(name.startswith(("drop__", "guard__")) for name in row.counted)
    assert outcome.counted == row.counted
    assert outcome.verdict == (XDP_DROP if lost else XDP_PASS)
    assert outcome.frame == (frame if row.lane is None else p.to_lane(row.frame, row.lane))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("payload", [CHECK, p.RTP], ids=["check", "rtp"])
def test_frame_cut_at_every_byte_is_never_steered(
    datapath: Datapath, version: int, payload: bytes
) -> None:
    ufrag = datapath.add_session("srvr")
    datapath.add_flow(p.CLIENT4, ufrag_hash=ufrag)
    datapath.add_flow(p.CLIENT6, ufrag_hash=ufrag)
    whole = bytes((p.ip4 if version == 4 else p.ip6)(payload))
    assert datapath.receive(whole).frame != whole

    # 14 bytes is the least that TEST_RUN takes.
    for length in range(14, len(whole)):
        outcome = datapath.receive(whole[:length])
        assert outcome.frame == whole[:length], length
        ours = length >= 14 + (20 if version == 4 else 40) + 8
        expected = {"received": 1, "drop__bad_udp_length": 1} if ours else {}
        if not ours and length >= 14 + (20 if version == 4 else 40):
            # An IP packet to the VIP that says UDP and ends before the ports.
            expected = {"guard__hidden_port": 1}
        assert outcome.counted == expected, length


def test_checksum_that_becomes_zero_is_sent_as_ffff(datapath: Datapath) -> None:
    datapath.add_flow()
    # Choose the payload so that the checksum over the steered packet is 0, i.e. 0xffff on the wire.
    plain = p.to_lane(p.ip4(b"\x80" + bytes(11) + bytes(2)))
    filler = Ether(plain)[UDP].chksum
    frame = p.ip4(b"\x80" + bytes(11) + filler.to_bytes(2, "big"))
    after = p.to_lane(frame)
    assert Ether(after)[UDP].chksum == 0xFFFF
    assert datapath.receive(bytes(frame)).frame == after


def test_every_verdict_is_counted_once(datapath: Datapath) -> None:
    """Over all rows: received equals the sum of steered, drop and pass."""
    datapath.add_session("srvr")
    before = datapath.maps.counters.sum_per_cpu(0)
    for row in ROWS:
        datapath.receive(bytes(row.frame), interface=1 if row.from_loopback else None)
    after = datapath.maps.counters.sum_per_cpu(0)
    moved = {name: after[name] - before[name] for name in after}
    verdicts = sum(
        count for name, count in moved.items() if name.startswith(("steered__", "drop__", "pass__"))
    )
    assert moved["received"] == verdicts > 50
