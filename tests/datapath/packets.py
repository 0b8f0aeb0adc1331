"""Packets by name, for the datapath rows: one client, one VIP in each family, STUN by attribute."""

import hashlib
import hmac
import struct
from typing import Any
from zlib import crc32

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

VIP4, VIP6 = "192.0.2.10", "2001:db8::10"
CLIENT4, CLIENT6 = "198.51.100.7", "2001:db8:1::7"
STRANGER4 = "203.0.113.9"
CLIENT_PORT, SHARED_PORT = 40000, 3478
LANE, OTHER_LANE = 20000, 20001

PASSWORD = b"the ICE password of all of them"

# Given, or scapy asks the network for them by ARP.
MAC_CLIENT, MAC_EDGE = "02:00:00:00:00:01", "02:00:00:00:00:02"

BINDING_REQUEST, BINDING_INDICATION, BINDING_SUCCESS = 0x0001, 0x0011, 0x0101
BINDING_ERROR, GOOG_PING, ALLOCATE_REQUEST = 0x0111, 0x0200, 0x0003
USERNAME, MESSAGE_INTEGRITY, PRIORITY, SOFTWARE = 0x0006, 0x0008, 0x0024, 0x8022
MESSAGE_INTEGRITY_SHA256, FINGERPRINT = 0x001C, 0x8028

RTP = b"\x80\x6f" + bytes(10) + b"media"
RTCP = b"\x80\xc8\x00\x06" + bytes(24)
DTLS_HANDSHAKE = b"\x16\xfe\xfd" + bytes(10) + b"hello"
DTLS_APPLICATION = b"\x17\xfe\xfd" + bytes(10) + b"data"


def attribute(kind: int, value: bytes, *, length: int | None = None, pad: bytes = b"\0") -> bytes:
    """One STUN attribute, padded to 4; `length` lies about the value's length."""
    head = struct.pack("!HH", kind, len(value) if length is None else length)
    return head + value + pad * (-len(value) % 4)


def stun(
    kind: int, *attributes: bytes, cookie: int = 0x2112A442, length: int | None = None
) -> bytes:
    """A STUN message; `length` lies about the length of the attributes."""
    body = b"".join(attributes)
    return struct.pack("!HHI", kind, len(body) if length is None else length, cookie) + (
        b"transaction!" + body
    )


def sign(message: bytes, password: bytes = PASSWORD) -> bytes:
    """The message with MESSAGE-INTEGRITY (RFC 8489 section 14.5), and its length to match."""
    length = struct.pack("!H", len(message) - 20 + 24)
    message = message[:2] + length + message[4:]
    digest = hmac.new(password, message, hashlib.sha1).digest()
    return message + attribute(MESSAGE_INTEGRITY, digest)


def check(username: str = "srvr:clnt", *before: bytes, password: bytes = PASSWORD) -> bytes:
    """A Binding request as a client sends it, with attributes before USERNAME."""
    user = attribute(USERNAME, username.encode())
    return sign(stun(BINDING_REQUEST, *before, user, attribute(PRIORITY, bytes(4))), password)


def extend(message: bytes, *attributes: bytes) -> bytes:
    """The message with more attributes at its end, and its length to match."""
    body = message[20:] + b"".join(attributes)
    return message[:2] + struct.pack("!H", len(body)) + message[4:20] + body


def add_fingerprint(message: bytes) -> bytes:
    """The message with FINGERPRINT (RFC 8489 section 14.7) at its end."""
    longer = extend(message, attribute(FINGERPRINT, bytes(4)))
    return extend(
        message, attribute(FINGERPRINT, struct.pack("!I", crc32(longer[:-8]) ^ 0x5354554E))
    )


def ether() -> Packet:
    """An Ethernet header from the client to the edge."""
    return Ether(src=MAC_CLIENT, dst=MAC_EDGE)


def udp(payload: bytes, **changed: Any) -> Packet:
    """Client to shared port, without IP; `changed`: fields of UDP."""
    fields = {"sport": CLIENT_PORT, "dport": SHARED_PORT} | changed
    return UDP(**fields) / Raw(payload)


def ip4(payload: bytes, *, source: str = CLIENT4, **changed: Any) -> Packet:
    """An Ethernet frame from the client to the VIP, IPv4."""
    return ether() / IP(src=source, dst=VIP4) / udp(payload, **changed)


def ip6(payload: bytes, *, source: str = CLIENT6, **changed: Any) -> Packet:
    """An Ethernet frame from the client to the VIP, IPv6."""
    return ether() / IPv6(src=source, dst=VIP6) / udp(payload, **changed)


def to_lane(frame: Packet, lane: int = LANE) -> bytes:
    """The frame as it must come out: the destination port changed, the checksum right."""
    changed = frame.copy()
    changed[UDP].dport = lane
    if frame[UDP].chksum != 0 or frame.haslayer(IPv6):
        del changed[UDP].chksum
    return bytes(changed)


def from_lane(payload: bytes, *, version: int = 4, lane: int = LANE, **changed: Any) -> Packet:
    """A frame as a transceiver sends it to the client."""
    network = IP(src=VIP4, dst=CLIENT4) if version == 4 else IPv6(src=VIP6, dst=CLIENT6)
    fields = {"sport": lane, "dport": CLIENT_PORT} | changed
    return ether() / network / UDP(**fields) / Raw(payload)


def from_shared_port(frame: Packet) -> bytes:
    """The frame as it must leave: the source port changed, the checksum right."""
    changed = frame.copy()
    changed[UDP].sport = SHARED_PORT
    if frame[UDP].chksum != 0 or frame.haslayer(IPv6):
        del changed[UDP].chksum
    return bytes(changed)
