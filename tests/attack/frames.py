"""Ethernet frames with any source: what the attacker sends, built byte by byte.

Checksums are right throughout, so that nothing but Turnout stops a frame. Called by rows.py in the
attacker's process.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from traffic.sessions import Tuple

UDP = 17
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60
_MORE_FRAGMENTS = 0x2000


def checksum(data: bytes | bytearray) -> int:
    """Return the Internet checksum (RFC 1071); `data` has an even length."""
    # Sixteen-bit words summed with end-around carry are the number modulo 2^16 - 1.
    return 0xFFFF - (int.from_bytes(data) % 0xFFFF or 0xFFFF)


def build_udp(source: Tuple, target: Tuple, payload: bytes) -> bytes:
    """Build the UDP datagram."""
    addresses = ip_address(source[0]).packed + ip_address(target[0]).packed
    length = 8 + len(payload)
    header = struct.pack("!HHH", source[1], target[1], length)
    pseudo = addresses + struct.pack("!HH", UDP, length)
    total = checksum(pseudo + header + payload + bytes(len(payload) % 2))
    return header + struct.pack("!H", total or 0xFFFF) + payload


@dataclass(frozen=True, slots=True)
class Wire:
    """The attacker's place on the link."""

    own: bytes  # MAC addresses
    edge: bytes

    def udp(self, source: Tuple, target: Tuple, payload: bytes) -> bytes:
        """Build the frame of a plain datagram."""
        datagram = build_udp(source, target, payload)
        if ":" in target[0]:
            return self.ipv6(source[0], target[0], UDP, datagram)
        return self.ipv4(source[0], target[0], datagram)

    def ipv4(
        self,
        source: str,
        target: str,
        payload: bytes,
        *,
        options: bytes = b"",
        offset: int = 0,
        more: bool = False,
        identification: int = 0,
    ) -> bytes:
        """Build an IPv4 frame that carries UDP; `offset` in bytes, `more` fragments follow."""
        words = 5 + len(options) // 4
        header = bytearray(
            struct.pack(
                "!BBHHHBBH4s4s",
                *(0x40 | words, 0, words * 4 + len(payload), identification),
                *(offset // 8 | (_MORE_FRAGMENTS if more else 0), 64, UDP, 0),
                *(ip_address(source).packed, ip_address(target).packed),
            )
            + options
        )
        struct.pack_into("!H", header, 10, checksum(header))
        return self.edge + self.own + b"\x08\x00" + header + payload

    def ipv6(
        self,
        source: str,
        target: str,
        follows: int,
        payload: bytes,
        *,
        extensions: Sequence[tuple[int, bytes]] = (),
    ) -> bytes:
        """Build an IPv6 frame; an extension is its number and its bytes without the first.

        The first byte of each header names the next one, the last of them `follows`.
        """
        numbers = [number for number, _ in extensions] + [follows]
        chain = b"".join(
            bytes([following]) + body
            for following, (_, body) in zip(numbers[1:], extensions, strict=True)
        )
        header = struct.pack("!IHBB", 0x60000000, len(chain) + len(payload), numbers[0], 64)
        addresses = ip_address(source).packed + ip_address(target).packed
        return self.edge + self.own + b"\x86\xdd" + header + addresses + chain + payload


def padded_extension(number: int, words: int = 0) -> tuple[int, bytes]:
    """Return hop-by-hop or destination options that are PadN only; 8 + 8 * `words` bytes."""
    length = 8 + 8 * words - 4
    return number, bytes([words, 1, length]) + bytes(length)


def routing_extension() -> tuple[int, bytes]:
    """Return a routing header that is done (segments left 0), of type 253: for experiments."""
    return ROUTING, bytes([0, 253, 0]) + bytes(4)


def fragment_extension(offset: int, identification: int, *, more: bool) -> tuple[int, bytes]:
    """Return a fragment header; `offset` in bytes."""
    return FRAGMENT, struct.pack("!BHI", 0, offset | more, identification)
