"""What libFuzzer starts from: the frames of the datapath rows, in each target's form of input."""

import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "datapath"))

import packets as p
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import Dot1Q
from scapy.packet import Packet

# The steps of programs.c.
INGRESS, EGRESS, SWEEP, SIGNED, RECONFIGURED = 0, 2, 3, 4, 8

PAYLOADS = (
    p.check(),
    p.check("othr:clnt"),
    p.check("agin:clnt", p.attribute(p.SOFTWARE, b"fuzz")),
    p.stun(p.BINDING_INDICATION),
    p.stun(p.BINDING_SUCCESS),
    p.RTP,
    p.RTCP,
    p.DTLS_HANDSHAKE,
    p.DTLS_APPLICATION,
    b"",
)


def build_frames() -> list[bytes]:
    """Build one frame of each kind that the parser tells from others, in both directions."""
    frames: list[Packet] = [build(payload) for build in (p.ip4, p.ip6) for payload in PAYLOADS]
    for payload, version in product((p.RTP, p.DTLS_APPLICATION), (4, 6)):
        frames.append(p.from_lane(payload, version=version))
    ip4 = IP(src=p.CLIENT4, dst=p.VIP4)
    ip6 = IPv6(src=p.CLIENT6, dst=p.VIP6)
    udp = p.udp(p.check())
    frames += [
        p.ether() / Dot1Q(vlan=7) / ip4 / udp,
        p.ether() / Dot1Q(vlan=7) / Dot1Q(vlan=8) / ip6 / udp,
        p.ether() / IP(src=p.CLIENT4, dst=p.VIP4, options=[IPOption_NOP()] * 4) / udp,
        p.ether() / IP(src=p.CLIENT4, dst=p.VIP4, flags="MF") / udp,
        p.ether() / ip6 / IPv6ExtHdrDestOpt() / udp,
        p.ether() / ip6 / IPv6ExtHdrFragment(m=1) / udp,
        p.ip4(p.RTP, dport=p.LANE),
        p.ip4(p.RTP, chksum=0),
        p.ether() / ip4 / ICMP(type=3, code=4) / _sent(4),
        p.ether() / ip6 / ICMPv6PacketTooBig(mtu=1280) / _sent(6),
    ]
    return [bytes(frame) for frame in frames]


def _sent(version: int) -> Packet:
    """What an ICMP error quotes: a packet of ours as it left."""
    network = IP(src=p.VIP4, dst=p.CLIENT4) if version == 4 else IPv6(src=p.VIP6, dst=p.CLIENT6)
    return network / UDP(sport=p.SHARED_PORT, dport=p.CLIENT_PORT) / p.RTP


def step(what: int, frame: bytes, ticks: int = 0, linear: int = 0) -> bytes:
    """Build one step of the target `programs`."""
    return bytes((what, ticks, linear)) + len(frame).to_bytes(2) + frame


def _calls() -> Iterator[bytes]:
    for build in (p.ip4, p.ip6):
        learn = step(INGRESS | SIGNED, bytes(build(p.check())))
        other = bytes(build(p.check("othr:clnt")))
        media = step(INGRESS, bytes(build(p.RTP)))
        # A call; one that is contested, then moved; one that is forged, ended and swept.
        yield learn + media * 6
        yield learn + step(INGRESS | SIGNED, other) + step(INGRESS | SIGNED, other, 7) + learn
        yield learn + step(INGRESS, other) + step(INGRESS | RECONFIGURED, b"") * 4
        yield learn + step(SWEEP, bytes(16), 120)
        # More flows than a session may have and than the table has room for.
        ports = range(40000, 40040)
        requests = [bytes(build(p.check(), sport=port)) for port in ports]
        yield b"".join(step(INGRESS | SIGNED, request, 2) for request in requests)
    healed = [bytes(p.from_lane(p.RTP, dport=port)) for port in range(40000, 40040)]
    yield b"".join(step(EGRESS, frame) for frame in healed)


def build_seeds(target: str) -> list[bytes]:
    """Build the inputs that a target begins with."""
    frames = build_frames()
    if target == "parse":
        return [bytes((linear,)) + frame for frame in frames for linear in (0, 4)]
    if target == "hashes":
        return [bytes(range(length)) for length in (16, 20, 23, 24, 16 + 68, 16 + 84, 255)]
    kinds = (INGRESS, INGRESS | SIGNED, EGRESS)
    return [*(step(kind, frame) for kind in kinds for frame in frames), *_calls()]
