"""What a STUN message says (RFC 8489): which server ufrag it is for, and whether it is genuine.

A message is the bytes from its header to the end that the header names. The attribute walk ends
after 24: no client sends half as many.
"""

import hashlib
import hmac
from collections.abc import Iterator

from reference.packet import EndError, u16

HEADER = 20
BINDING_REQUEST = 0x0001
USERNAME, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256 = 0x0006, 0x0008, 0x001C
ATTRIBUTES_MAX = 24
MESSAGE_MAX = 1400
INTEGRITY_BYTES = 20


def cut_message(payload: bytes) -> bytes:
    """Return the message without what follows it in the datagram."""
    if len(payload) < HEADER or payload[4:8] != b"\x21\x12\xa4\x42":
        raise EndError("drop__bad_stun")
    end = HEADER + u16(payload, 2)
    if end % 4 or end > len(payload):
        raise EndError("drop__bad_stun")
    return payload[:end]


def _attributes(message: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, offset of the value and its length, as many as are looked at."""
    at = HEADER
    for _ in range(ATTRIBUTES_MAX):
        if at == len(message):
            return
        if at + 4 > len(message):
            raise EndError("drop__bad_stun")
        kind, length = u16(message, at), u16(message, at + 2)
        yield kind, at + 4, length
        at += 4 + length + -length % 4
    if at != len(message):
        raise EndError("drop__stun_attributes")


def find_username(message: bytes) -> bytes | None:
    """Return the first USERNAME before any integrity: what follows that is not covered by it."""
    for kind, at, length in _attributes(message):
        if kind in (MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256):
            return None
        if at + length > len(message):
            raise EndError("drop__bad_stun")
        if kind == USERNAME:
            return message[at : at + length]
    return None


def server_ufrag(username: bytes) -> bytes:
    """Return what stands before the first ':', 4 to 256 bytes."""
    ufrag, colon, _ = username.partition(b":")
    if not colon or not 4 <= len(ufrag) <= 256:
        raise EndError("drop__bad_username")
    return ufrag


def is_genuine(message: bytes, password: bytes) -> bool:
    """Whether the first MESSAGE-INTEGRITY was made with the password (RFC 8489 section 14.5).

    It covers what stands before it, under a length that ends with it.
    """
    try:
        found = next((a for a in _attributes(message) if a[0] == MESSAGE_INTEGRITY), None)
    except EndError:
        return False
    if found is None or found[2] != INTEGRITY_BYTES or found[1] + found[2] > len(message):
        return False
    at = found[1]
    length = (at + INTEGRITY_BYTES - HEADER).to_bytes(2, "big")
    covered = message[:2] + length + message[4 : at - 4]
    made = hmac.digest(password, covered, hashlib.sha1)
    return hmac.compare_digest(made, message[at : at + INTEGRITY_BYTES])
