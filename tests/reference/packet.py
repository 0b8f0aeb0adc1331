"""What a frame is: UDP to somewhere, an ICMP error, hidden from us, or nothing of ours.

Addresses are 16 bytes, IPv4 v4-mapped; offsets count from the start of the frame.
"""

import struct
from dataclasses import dataclass

VLAN_TYPES = {0x8100, 0x88A8}
IPV4, IPV6 = 0x0800, 0x86DD
ICMP, UDP, FRAGMENT, ICMPV6 = 1, 17, 44, 58
# Hop-by-hop, routing, destination options, mobility: all 8 + 8 * length bytes.
EXTENSIONS = {0, 43, 60, 135}
EXTENSIONS_MAX = 8
UDP_HEADER = 8


class NotOursError(Exception):
    """The host's business: left as it is, counted nowhere."""


class EndError(Exception):
    """The counter in which a packet ends that is not rewritten."""

    def __init__(self, counter: str) -> None:
        super().__init__(counter)
        self.counter = counter

    @property
    def verdict(self) -> str:
        """Only what the counter's family says is let through."""
        return "pass" if self.counter.startswith(("pass__", "icmp__")) else "drop"


@dataclass(frozen=True, slots=True)
class Packet:
    """An IP packet up to its transport header. `hidden`: UDP, or a chain that may lead to it."""

    protocol: int
    source: bytes
    destination: bytes
    at: int  # of the transport header
    end: int  # of the IP packet, as it says itself
    fragment: bool = False  # the first of several
    hidden: bool = False


def u16(data: bytes, at: int) -> int:
    """Read a number in network byte order."""
    return data[at] << 8 | data[at + 1]


def parse_frame(frame: bytes) -> Packet:
    """Ethernet with up to two VLAN tags, then IP. NotOursError for what is neither UDP nor ICMP."""
    if len(frame) < 14:
        raise NotOursError
    at, kind = 14, u16(frame, 12)
    vlans: list[int] = []
    while kind in VLAN_TYPES and len(vlans) < 3:
        if at + 4 > len(frame):
            raise NotOursError
        vlans.append(u16(frame, at) & 0xFFF)
        kind = u16(frame, at + 2)
        at += 4
    if len(vlans) > 2:
        # The stack takes off any number of tags of VLAN 0: they could hide a lane.
        raise EndError("guard__hidden_port") if 0 in vlans else NotOursError
    if kind == IPV4:
        return _parse_ipv4(frame, at)
    if kind == IPV6:
        return _parse_ipv6(frame, at)
    raise NotOursError


def _parse_ipv4(frame: bytes, at: int) -> Packet:
    head = frame[at : at + 20]
    if len(head) < 20 or head[0] >> 4 != 4 or head[0] & 15 < 5 or head[9] not in (UDP, ICMP):
        raise NotOursError
    more, offset = head[6] >> 5 & 1, u16(head, 6) & 0x1FFF
    if offset or (head[9] == ICMP and more):
        raise NotOursError  # a later fragment has no ports, an ICMP error fits into one
    transport = at + (head[0] & 15) * 4
    return Packet(
        protocol=head[9],
        source=map_ipv4(head[12:16]),
        destination=map_ipv4(head[16:20]),
        at=transport,
        end=at + u16(head, 2),
        fragment=bool(more),
        hidden=head[9] == UDP and transport + UDP_HEADER > len(frame),
    )


def _parse_ipv6(frame: bytes, at: int) -> Packet:
    head = frame[at : at + 40]
    if len(head) < 40 or head[0] >> 4 != 6:
        raise NotOursError
    source, destination = head[8:24], head[24:40]
    if map_ipv4(b"")[:12] in (source[:12], destination[:12]):
        raise NotOursError  # IPv4's, and of no use on the wire
    at += 40
    end, following, fragment = at + u16(head, 4), head[6], False
    if following == ICMPV6:
        return Packet(ICMPV6, source, destination, at, end)
    for _ in range(EXTENSIONS_MAX):
        if following not in EXTENSIONS and following not in (UDP, FRAGMENT):
            raise NotOursError
        # What stands behind the packet's own end is cut off by the stack, and the next fragment
        # goes on there: we cannot see it.
        if at + 8 > end or at + 8 > len(frame):
            break
        if following == UDP:
            return Packet(UDP, source, destination, at, end, fragment)
        kind, following, length = following, frame[at], frame[at + 1]
        if kind == FRAGMENT:
            if u16(frame, at + 2) & 0xFFF8:
                raise NotOursError  # a later one: no ports in it
            fragment = fragment or bool(frame[at + 3] & 1)
            length = 0
        at += 8 + 8 * length
    return Packet(UDP, source, destination, at, end, fragment, hidden=True)


def map_ipv4(address: bytes) -> bytes:
    """Return the 16 bytes of RFC 4291 section 2.5.5.2."""
    return bytes(10) + b"\xff\xff" + address


def replace_word(frame: bytes, at: int, word: int, checksum_at: int, *, udp: bool) -> bytes:
    """Write a 16-bit word at an even offset and mend the checksum over it (RFC 1624).

    In UDP a checksum of 0 means that there is none, and stays. The sum is never made 0: 0xffff is
    the same number.
    """
    old_sum = u16(frame, checksum_at)
    changed = bytearray(frame)
    struct.pack_into("!H", changed, at, word)
    if old_sum or not udp:
        total = (0xFFFF - old_sum) + (0xFFFF - u16(frame, at)) + word
        struct.pack_into("!H", changed, checksum_at, -total % 0xFFFF or 0xFFFF)
    return bytes(changed)
