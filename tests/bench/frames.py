"""The frames that are timed, in both families, and the session whose checks are among them."""

import hashlib
import hmac
import struct

import packets
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from turnout.wire.siphash import siphash24

# The lane is the shared port: TEST_RUN feeds the rewritten frame in again, and it must stay ours.
LANE = packets.SHARED_PORT

EDGE_KEY = bytes(range(16))
UFRAG, PASSWORD = "edge", "a-password-of-22-chars"
UFRAG_HASH = siphash24(EDGE_KEY, UFRAG.encode())

# A voice packet: 20 ms of Opus under SRTP.
RTP = b"\x80\x6f" + bytes(10) + bytes(range(90)) + bytes(10)
NO_CLASS = b"\x48"
DNS_PORT = 53


# The first of the clients that mains.c writes.
CLIENT = {4: "10.0.0.0", 6: "2001:db8:1::"}
CLIENT_PORT = 0x4000


def to_edge(version: int, payload: bytes, port: int = packets.SHARED_PORT) -> bytes:
    """Return a frame from the client to the VIP."""
    build = packets.ip4 if version == 4 else packets.ip6
    return bytes(build(payload, source=CLIENT[version], sport=CLIENT_PORT, dport=port))


def rtp(version: int) -> bytes:
    """Return a media packet of an established flow."""
    return to_edge(version, RTP)


def junk(version: int) -> bytes:
    """Return a datagram for the shared port that is none of STUN, DTLS, RTP."""
    return to_edge(version, NO_CLASS * len(RTP))


def unrelated_udp(version: int) -> bytes:
    """Return a datagram for another port of the VIP."""
    return to_edge(version, RTP, DNS_PORT)


def unrelated_tcp(version: int) -> bytes:
    """Return a TCP segment for the VIP."""
    network: Packet = (
        IP(src=CLIENT[4], dst=packets.VIP4)
        if version == 4
        else IPv6(src=CLIENT[6], dst=packets.VIP6)
    )
    return bytes(packets.ether() / network / TCP(dport=443) / Raw(RTP))


def from_lane(version: int) -> bytes:
    """Return a media packet of the transceiver."""
    frame = packets.from_lane(RTP, version=version, lane=LANE, dport=CLIENT_PORT)
    frame[IP if version == 4 else IPv6].dst = CLIENT[version]
    return bytes(frame)


def check(version: int, stun_bytes: int) -> bytes:
    """Return a Binding request of that many bytes, with the session's MESSAGE-INTEGRITY.

    It has no FINGERPRINT, so that all of it is hashed but the last 24 bytes.
    """
    username = packets.attribute(packets.USERNAME, f"{UFRAG}:client".encode())
    priority = packets.attribute(packets.PRIORITY, bytes(4))
    room = stun_bytes - 20 - len(username) - len(priority) - 4 - 24
    software = packets.attribute(packets.SOFTWARE, bytes(room))
    attributes = username + priority + software
    head = struct.pack("!HHI", packets.BINDING_REQUEST, len(attributes) + 24, 0x2112A442)
    message = head + b"transaction!" + attributes
    mac = hmac.new(PASSWORD.encode(), message, hashlib.sha1).digest()
    message += packets.attribute(packets.MESSAGE_INTEGRITY, mac)
    if len(message) != stun_bytes:
        raise ValueError(f"a check of {stun_bytes} bytes cannot be built: {len(message)}")
    return to_edge(version, message)
