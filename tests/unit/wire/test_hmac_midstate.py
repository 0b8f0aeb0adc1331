"""Mid-states of HMAC-SHA1: whoever completes them gets what hmac gets from the password."""

import hashlib
import hmac
import random
import struct

import pytest

from turnout.wire.hmac_midstate import Words, compress, sha1_midstates

ICE_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"


def finish(state: Words, message: bytes) -> bytes:
    """Complete SHA-1 from the state after one block (RFC 3174 section 4)."""
    length = 64 + len(message)
    padded = message + b"\x80" + bytes(-(length + 9) % 64) + struct.pack(">Q", length * 8)
    for at in range(0, len(padded), 64):
        state = compress(state, padded[at : at + 64])
    return struct.pack(">5I", *state)


def hmac_of(password: bytes, message: bytes) -> bytes:
    inner, outer = sha1_midstates(password)
    return finish(outer, finish(inner, message))


@pytest.mark.parametrize("length", [0, 1, 22, 24, 32, 63, 64, 65, 128, 256])
def test_sha1_midstates_completed_are_the_hmac_for_every_length_of_password(length: int) -> None:
    chosen = random.Random(length)
    for _ in range(10):
        password = "".join(chosen.choices(ICE_CHARACTERS, k=length)).encode()
        message = chosen.randbytes(chosen.randrange(300))
        assert hmac_of(password, message) == hmac.digest(password, message, "sha1")


def test_sha1_midstates_take_any_bytes() -> None:
    password = bytes(range(256))[:64]
    assert hmac_of(password, b"") == hmac.digest(password, b"", "sha1")


def test_compress_one_block_is_sha1() -> None:
    """RFC 3174 section 7.3, test 1."""
    start: Words = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
    block = b"abc\x80" + bytes(52) + struct.pack(">Q", 24)
    digest = struct.pack(">5I", *compress(start, block))
    assert digest == hashlib.sha1(b"abc").digest()
    assert digest.hex() == "a9993e364706816aba3e25717850c26c9cd0d89d"
