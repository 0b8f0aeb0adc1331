"""STUN Binding requests: genuine ones, and all that can be wrong with one."""

import hmac
import random
import struct
import zlib
from collections.abc import Iterator

COOKIE = 0x2112A442
BINDING_REQUEST, BINDING_SUCCESS = 0x0001, 0x0101
HEADER_BYTES = 20
USERNAME, MESSAGE_INTEGRITY, PRIORITY, USE_CANDIDATE = 0x0006, 0x0008, 0x0024, 0x0025
FINGERPRINT, CONTROLLING = 0x8028, 0x802A
_FINGERPRINT_MASK = 0x5354554E  # RFC 8489 section 14.7


def attribute(kind: int, value: bytes) -> bytes:
    """Build an attribute, padded to 4 bytes."""
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def header(length: int, transaction: bytes, *, kind: int = BINDING_REQUEST) -> bytes:
    """Build a message's header; `transaction` has 12 bytes."""
    return struct.pack("!HHI12s", kind, length, COOKIE, transaction)


def build_check(ufrag: str, pwd: str, transaction: bytes, client: str = "clnt") -> bytes:
    """Build a connectivity check of a controlling client (RFC 8445 section 7.2.2)."""
    body = attribute(USERNAME, f"{ufrag}:{client}".encode())
    body += attribute(CONTROLLING, bytes(8)) + attribute(USE_CANDIDATE, b"")
    body += attribute(PRIORITY, struct.pack("!I", 0x6E7F00FF))
    # Each covers what is before it, with the length that ends with itself (sections 14.5, 14.7).
    text = header(len(body) + 24, transaction) + body
    body += attribute(MESSAGE_INTEGRITY, hmac.digest(pwd.encode(), text, "sha1"))
    text = header(len(body) + 8, transaction) + body
    sum32 = zlib.crc32(text) ^ _FINGERPRINT_MASK
    return text + attribute(FINGERPRINT, struct.pack("!I", sum32))


def build_success(request: bytes) -> bytes:
    """Build the shortest answer to a request: its header alone."""
    return header(0, request[8:20], kind=BINDING_SUCCESS)


def spoil(check: bytes, chance: random.Random) -> bytes:
    """Return the check with another transaction id: MESSAGE-INTEGRITY is wrong, all else right."""
    return check[:8] + chance.randbytes(12) + check[20:]


def malformed(check: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield what is no well-formed message, made of one that is."""
    ufrag = check[24 : 24 + check[23]]
    named = attribute(USERNAME, ufrag)
    yield from _torn(check)
    yield from _misnamed(named, ufrag, chance)
    yield from _unverifiable(named, chance)
    for _ in range(200):
        noisy = bytearray(check)
        for _ in range(chance.randrange(1, 6)):
            noisy[chance.randrange(len(noisy))] = chance.randrange(256)
        noisy[0] &= 3
        yield bytes(noisy)
    for _ in range(100):
        yield bytes([chance.randrange(4)]) + chance.randbytes(chance.randrange(1300))


def _torn(check: bytes) -> Iterator[bytes]:
    """Yield it cut off anywhere, with wrong lengths, another cookie, another type."""
    for size in range(len(check)):
        yield check[:size]
    for wrong in (0, 1, 4, len(check) - 24, len(check) - 16, 0x7FFC, 0xFFFF):
        yield check[:2] + struct.pack("!H", wrong) + check[4:]
    for position in range(20, len(check) - 4, 4):
        for length in (0, 3, 255, 0xFFFF):
            yield check[: position + 2] + struct.pack("!H", length) + check[position + 4 :]
    for number in range(32):
        flipped = bytearray(check)
        flipped[4 + number // 8] ^= 1 << number % 8  # the cookie
        yield bytes(flipped)
    for kind in (0x0002, 0x0003, 0x0100, 0x0200, 0x3FFF, 0x0111, 0x0011):
        yield struct.pack("!H", kind) + check[2:]


def _misnamed(named: bytes, ufrag: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield names that are none, and none where it is looked for."""
    for name in (b"", b":", b"abc:x", ufrag.replace(b":", b""), b"x" * 257 + b":y", b"\0" * 9):
        body = attribute(USERNAME, name)
        yield header(len(body), chance.randbytes(12)) + body
    # More attributes than anybody looks at before it.
    for count in (24, 25, 60):
        body = attribute(0xC057, b"") * count + named
        yield header(len(body), chance.randbytes(12)) + body
    yield header(0, chance.randbytes(12))


def _unverifiable(named: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield integrity of a wrong length, integrity before the name, and too long a message."""
    for size in (0, 4, 19, 21, 32):
        body = named + attribute(MESSAGE_INTEGRITY, bytes(size))
        yield header(len(body), chance.randbytes(12)) + body
    body = attribute(MESSAGE_INTEGRITY, bytes(20)) + named
    yield header(len(body), chance.randbytes(12)) + body
    body = named + attribute(0xC070, bytes(1372)) + attribute(MESSAGE_INTEGRITY, bytes(20))
    yield header(len(body), chance.randbytes(12)) + body
