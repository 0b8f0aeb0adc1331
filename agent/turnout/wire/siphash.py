"""SipHash-2-4 with a 64-bit result (Aumasson and Bernstein, 2012).

The twin of the one in bpf/: steering hashes a ufrag here, the kernel hashes the same ufrag in a
packet, and both must meet at the same `sessions` key. About 20 us a call: once a session, never
in a packet's way.
"""

_MASK = (1 << 64) - 1


def siphash24(key: bytes, data: bytes) -> int:
    """Hash `data` under a 16-byte `key`; the little-endian 64-bit result as an int.

    Raises ValueError for a key of another length.
    """
    if len(key) != 16:
        raise ValueError(f"a SipHash key has 16 bytes, this one has {len(key)}")
    k0 = int.from_bytes(key[:8], "little")
    k1 = int.from_bytes(key[8:], "little")
    state = (
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    )
    # The last word carries the remaining 0 to 7 bytes and, on top, the length modulo 256.
    whole = len(data) & ~7
    last = int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, whole, 8)]
    for word in (*words, last):
        v0, v1, v2, v3 = state
        v0, v1, v2, v3 = _mix(_mix((v0, v1, v2, v3 ^ word)))
        state = (v0 ^ word, v1, v2, v3)
    v0, v1, v2, v3 = state
    v0, v1, v2, v3 = _mix(_mix(_mix(_mix((v0, v1, v2 ^ 0xFF, v3)))))
    return v0 ^ v1 ^ v2 ^ v3


def _mix(state: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    v0, v1, v2, v3 = state
    v0 = (v0 + v1) & _MASK
    v1 = _rotate(v1, 13) ^ v0
    v0 = _rotate(v0, 32)
    v2 = (v2 + v3) & _MASK
    v3 = _rotate(v3, 16) ^ v2
    v0 = (v0 + v3) & _MASK
    v3 = _rotate(v3, 21) ^ v0
    v2 = (v2 + v1) & _MASK
    v1 = _rotate(v1, 17) ^ v2
    v2 = _rotate(v2, 32)
    return v0, v1, v2, v3


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK
