"""The way out: one row a packet, as in test_ingress_rows."""

from dataclasses import dataclass, field

import packets as p
import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from datapath import DOWN, OTHER_SLOT, SLOT, TC_ACT_UNSPEC, Datapath, owner_id

OUT4, OUT6 = IP(src=p.VIP4, dst=p.CLIENT4), IPv6(src=p.VIP6, dst=p.CLIENT6)
RESPONSE = p.stun(p.BINDING_SUCCESS)
PAD8 = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])


def out_udp(payload: bytes) -> Packet:
    return UDP(sport=p.LANE, dport=p.CLIENT_PORT) / Raw(payload)


@dataclass(frozen=True)
class Row:
    id: str
    frame: Packet
    counted: dict[str, int] = field(default_factory=dict)


RETURNED = {"returned__rewritten": 1}
HEALED = RETURNED | {"flow__healed": 1}

RETURNED_ROWS = [
    Row("response-v4", p.from_lane(RESPONSE), RETURNED),
    Row("response-v6", p.from_lane(RESPONSE, version=6), RETURNED),
    Row("rtp-heals-v4", p.from_lane(p.RTP), HEALED),
    Row("rtp-heals-v6", p.from_lane(p.RTP, version=6), HEALED),
    Row("rtcp-heals", p.from_lane(p.RTCP), HEALED),
    Row("dtls-data-heals", p.from_lane(p.DTLS_APPLICATION), HEALED),
    Row("handshake-does-not-heal", p.from_lane(p.DTLS_HANDSHAKE), RETURNED),
    Row("last-alert-does-not-heal", p.from_lane(b"\x15\xfe\xfd" + bytes(12)), RETURNED),
    Row("probe-does-not-heal", p.from_lane(p.check()), RETURNED),
    Row("error-to-a-stranger-does-not-heal", p.from_lane(p.stun(p.BINDING_ERROR)), RETURNED),
    Row("no-udp-checksum-v4", p.from_lane(RESPONSE, chksum=0), RETURNED),
    Row("no-payload", p.from_lane(b""), RETURNED),
    Row("vlan", p.ether() / Dot1Q(vlan=3) / OUT4 / out_udp(RESPONSE), RETURNED),
    Row(
        "ipv4-options",
        p.ether() / IP(src=p.VIP4, dst=p.CLIENT4, options=[b"\x01"] * 12) / out_udp(RESPONSE),
        RETURNED,
    ),
    Row("ipv6-destination-options", p.ether() / OUT6 / PAD8 / out_udp(RESPONSE), RETURNED),
    Row(
        "first-fragment-v4",
        p.ether() / IP(src=p.VIP4, dst=p.CLIENT4, flags="MF") / out_udp(p.RTP),
        RETURNED,
    ),
    Row(
        "first-fragment-v6",
        p.ether() / OUT6 / IPv6ExtHdrFragment(m=1, offset=0) / out_udp(p.RTP),
        RETURNED,
    ),
    Row("other-lane", p.from_lane(RESPONSE, lane=p.OTHER_LANE), RETURNED),
]

NOT_OURS_ROWS = [
    Row("other-source-port", p.from_lane(p.RTP, sport=5000)),
    Row("lane-nobody-owns", p.from_lane(p.RTP, sport=20500)),
    Row("lane-of-other-address", p.ether() / IP(src="192.0.2.77", dst=p.CLIENT4) / out_udp(p.RTP)),
    Row("to-a-lane", p.from_lane(p.RTP, sport=40000, dport=p.LANE)),
    Row("shared-port-itself", p.from_lane(p.RTP, sport=p.SHARED_PORT)),
    Row("icmp", p.ether() / OUT4 / ICMP()),
    Row(
        "later-fragment-v4",
        p.ether() / IP(src=p.VIP4, dst=p.CLIENT4, frag=100) / out_udp(p.RTP),
    ),
    Row(
        "later-fragment-v6",
        p.ether() / OUT6 / IPv6ExtHdrFragment(m=0, offset=100) / out_udp(p.RTP),
    ),
]


@pytest.mark.parametrize("row", [*RETURNED_ROWS, *NOT_OURS_ROWS], ids=lambda row: row.id)
def test_egress_row(datapath: Datapath, row: Row) -> None:
    outcome = datapath.send(bytes(row.frame))

    assert outcome.verdict == TC_ACT_UNSPEC
    assert outcome.counted == row.counted
    rewritten = "returned__rewritten" in row.counted
    assert outcome.frame == (p.from_shared_port(row.frame) if rewritten else bytes(row.frame))


@pytest.mark.parametrize("version", [4, 6])
def test_talking_owner_heals_its_flow_and_the_client_is_steered_again(
    datapath: Datapath, version: int
) -> None:
    inbound = (p.ip4 if version == 4 else p.ip6)(p.RTP)
    client = p.CLIENT4 if version == 4 else p.CLIENT6
    assert datapath.receive(bytes(inbound)).counted == {"received": 1, "drop__no_flow": 1}

    datapath.send(bytes(p.from_lane(p.RTP, version=version, lane=p.OTHER_LANE)))

    assert datapath.receive(bytes(inbound)).frame == p.to_lane(inbound, p.OTHER_LANE)
    flow = datapath.flow(client)
    assert flow is not None
    assert flow["owner"]["slot"] == OTHER_SLOT
    assert flow["session_id"] == 0


def test_healing_never_overrides_a_flow_of_another_owner(datapath: Datapath) -> None:
    datapath.add_flow(slot=SLOT)
    before = datapath.flow()

    outcome = datapath.send(bytes(p.from_lane(p.RTP, lane=p.OTHER_LANE)))

    assert outcome.counted == RETURNED
    assert datapath.flow() == before


def test_owner_that_is_down_heals_nothing(datapath: Datapath) -> None:
    datapath.add_owner(SLOT, p.LANE, state=DOWN)
    assert datapath.send(bytes(p.from_lane(p.RTP))).counted == RETURNED


@pytest.mark.parametrize("version", [4, 6])
def test_gso_packet_keeps_its_checksum_of_the_pseudo_header(
    datapath: Datapath, version: int
) -> None:
    """The stack completes it for each segment; ports are no part of what stands there."""
    frame = p.from_lane(p.RTP + bytes(2500), version=version, chksum=0x1234)

    outcome = datapath.send(bytes(frame), gso_size=1000)

    assert Ether(outcome.frame)[UDP].chksum == 0x1234
    assert Ether(outcome.frame)[UDP].sport == p.SHARED_PORT


def test_owner_counters_count_packets_and_payload_bytes(datapath: Datapath) -> None:
    datapath.add_flow()
    before = datapath.maps.owner_counters.sum_per_cpu(SLOT)
    datapath.receive(bytes(p.ip4(p.RTP)))
    datapath.receive(bytes(p.ip4(p.RTCP)))
    datapath.send(bytes(p.from_lane(p.RTP)))
    after = datapath.maps.owner_counters.sum_per_cpu(SLOT)
    assert {name: after[name] - before[name] for name in after} == {
        "steered_packets": 2,
        "steered_bytes": len(p.RTP) + len(p.RTCP),
        "returned_packets": 1,
        "returned_bytes": len(p.RTP),
    }


def test_lane_whose_owner_went_is_not_rewritten(datapath: Datapath) -> None:
    datapath.maps.lanes.update(p.LANE, owner_id(0, 0))
    frame = bytes(p.from_lane(p.RTP))
    outcome = datapath.send(frame)
    assert (outcome.frame, outcome.counted) == (frame, {})
