"""The two SHA-1 mid-states of an HMAC key, as the kernel holds an ICE password.

HMAC-SHA1 (RFC 2104) hashes one block made of the key before the message, and another one before
the result. Whoever has SHA-1's state after each (RFC 3174) need not know the key. hashlib shows no
state, so the block is compressed here: some 150 us a password, once a session. The kernel's side
is bpf/integrity.h; session_table.py is the caller.
"""

import hashlib
import struct

Words = tuple[int, int, int, int, int]

_BLOCK_BYTES = 64
_MASK = (1 << 32) - 1
_START: Words = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)


def sha1_midstates(password: bytes) -> tuple[Words, Words]:
    """Return SHA-1's state after the inner and after the outer block: five u32 each."""
    # RFC 2104 section 2: a key longer than a block is hashed first.
    key = hashlib.sha1(password).digest() if len(password) > _BLOCK_BYTES else password  # noqa: S324
    block = key.ljust(_BLOCK_BYTES, b"\0")
    inner = compress(_START, bytes(byte ^ 0x36 for byte in block))
    outer = compress(_START, bytes(byte ^ 0x5C for byte in block))
    return inner, outer


def compress(state: Words, block: bytes) -> Words:
    """Take SHA-1 one block of 64 bytes further (RFC 3174 section 6.1)."""
    words = list(struct.unpack(">16I", block))
    for at in range(16, 80):
        words.append(_rotate(words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16], 1))
    a, b, c, d, e = state
    for at, word in enumerate(words):
        if at < 20:
            mixed, constant = (b & c) | (~b & d), 0x5A827999
        elif at < 40:
            mixed, constant = b ^ c ^ d, 0x6ED9EBA1
        elif at < 60:
            mixed, constant = (b & c) | (b & d) | (c & d), 0x8F1BBCDC
        else:
            mixed, constant = b ^ c ^ d, 0xCA62C1D6
        turned = (_rotate(a, 5) + mixed + e + word + constant) & _MASK
        a, b, c, d, e = turned, a, _rotate(b, 30), c, d
    h0, h1, h2, h3, h4 = state
    return (
        (h0 + a) & _MASK,
        (h1 + b) & _MASK,
        (h2 + c) & _MASK,
        (h3 + d) & _MASK,
        (h4 + e) & _MASK,
    )


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _MASK
