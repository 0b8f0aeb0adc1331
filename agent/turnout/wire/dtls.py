"""DTLS records as far as a forwarder of them needs to see (RFC 6347 section 4.1).

OpenSSL's memory BIO knows no datagram edges: what goes in must be whole records, what comes out
must be cut into datagrams again. Used by transceiver/dtls.py; nothing here decrypts.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from turnout.errors import WireError

CHANGE_CIPHER_SPEC = 20
ALERT = 21
HANDSHAKE = 22
APPLICATION_DATA = 23

CLIENT_HELLO = 1
CERTIFICATE = 11
CERTIFICATE_VERIFY = 15
CLIENT_KEY_EXCHANGE = 16

# type, version, epoch, sequence number of 48 bits, length
_HEADER = struct.Struct("!BHH6xH")
HEADER_BYTES = 13
# 2**14 of plaintext and up to 2048 of expansion (RFC 6347 section 4.1, RFC 5246 section 6.2.3)
_RECORD_MOST = (1 << 14) + 2048
# type, length (24 bits), sequence, fragment offset and length (24 bits each)
_FRAGMENT = struct.Struct("!B3sH3s3s")


class DtlsRecord(NamedTuple):
    """One whole record; `data` includes the 13 bytes of its header."""

    content_type: int
    epoch: int
    data: bytes

    def handshake_types(self) -> list[int]:
        """Types of the handshake messages, or fragments of them, in a plaintext handshake record.

        Raises WireError unless it is whole fragments, each within its message (section 4.2.2).
        """
        types = []
        position = HEADER_BYTES
        while position < len(self.data):
            start = position + _FRAGMENT.size
            if start > len(self.data):
                raise WireError(f"DTLS handshake header cut off at byte {position}")
            kind, *numbers = _FRAGMENT.unpack_from(self.data, position)
            length, offset, size = (int.from_bytes(numbers[index], "big") for index in (0, 2, 3))
            position = start + size
            if offset + size > length or position > len(self.data):
                raise WireError(f"DTLS fragment {offset}+{size} of a message of {length} bytes")
            types.append(kind)
        return types


def parse_records(data: bytes) -> list[DtlsRecord]:
    """Split a datagram into its records; raises WireError unless it is whole records to its end."""
    return list(_walk(data))


def _walk(data: bytes) -> Iterator[DtlsRecord]:
    position = 0
    while position < len(data):
        if len(data) - position < HEADER_BYTES:
            raise WireError(f"DTLS record header cut off at byte {position} of {len(data)}")
        content_type, version, epoch, length = _HEADER.unpack_from(data, position)
        # DTLS 1.0 stands in the ClientHello's record, 1.2 in the rest.
        if not CHANGE_CIPHER_SPEC <= content_type <= APPLICATION_DATA or version >> 8 != 0xFE:
            raise WireError(f"no DTLS record: type {content_type}, version {version:#06x}")
        end = position + HEADER_BYTES + length
        if length > _RECORD_MOST or end > len(data):
            raise WireError(f"DTLS record of {length} bytes does not fit {len(data) - position}")
        yield DtlsRecord(content_type, epoch, data[position:end])
        position = end


def build_datagrams(stream: bytes, mtu: int) -> list[bytes]:
    """Pack a run of records into as few datagrams of at most `mtu` bytes as keep their order.

    A record that alone is larger than `mtu` gets a datagram of its own.
    """
    datagrams: list[bytes] = []
    current = b""
    for record in _walk(stream):
        if current and len(current) + len(record.data) > mtu:
            datagrams.append(current)
            current = b""
        current += record.data
    if current:
        datagrams.append(current)
    return datagrams
