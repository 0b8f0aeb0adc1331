"""STUN as ICE uses it (RFC 8489, RFC 8445): datagrams <-> messages, on aioice's codec.

aioice's parser is not safe to call on what a stranger sent: it takes any magic cookie, attributes
that run past the end and the last of two USERNAMEs, and raises struct.error. `parse_stun` walks
the message first, cheaply; `open_stun` then calls aioice for the few that belong to a session.
Used by the transceiver's worker and ICE agent.
"""

import struct
from typing import NamedTuple

from aioice import stun

from turnout.errors import WireError

BINDING_REQUEST = 0x0001
BINDING_INDICATION = 0x0011
BINDING_SUCCESS = 0x0101
BINDING_ERROR = 0x0111

MAGIC_COOKIE = 0x2112A442
HEADER_BYTES = 20
ROLE_CONFLICT = (487, "Role Conflict")

_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_USERNAME = 0x0006
_MESSAGE_INTEGRITY = 0x0008


class StunDatagram(NamedTuple):
    """What can be told of a STUN message without a key.

    `kind` is the 14-bit message type, `data` the message without what followed it in the datagram,
    `username` the value of the first USERNAME before MESSAGE-INTEGRITY, undecoded.
    """

    kind: int
    transaction_id: bytes
    username: bytes | None
    data: bytes

    @property
    def receiver_ufrag(self) -> bytes | None:
        """The part of USERNAME up to the first ':' (RFC 8445 section 7.2.2); None without one."""
        ufrag, colon, _ = (self.username or b"").partition(b":")
        return ufrag if colon else None


def parse_stun(datagram: bytes) -> StunDatagram:
    """Parse header and attribute frame; raises WireError. Bytes after the message are cut off."""
    if len(datagram) < HEADER_BYTES:
        raise WireError(f"STUN needs {HEADER_BYTES} bytes, this datagram has {len(datagram)}")
    kind, length, cookie, transaction_id = _HEADER.unpack_from(datagram)
    end = HEADER_BYTES + length
    if kind & 0xC000 or cookie != MAGIC_COOKIE:
        raise WireError(f"no STUN: type {kind:#06x}, cookie {cookie:#010x}")
    if length % 4 or end > len(datagram):
        raise WireError(f"STUN length {length} does not fit {len(datagram)} bytes")

    username = None
    position = HEADER_BYTES
    is_open = True
    while position < end:
        # Both are multiples of 4, so a whole attribute header is there.
        attribute, size = _ATTRIBUTE.unpack_from(datagram, position)
        value = position + 4
        position = value + (size + 3 & ~3)
        if position > end:
            raise WireError(f"STUN attribute {attribute:#06x} of {size} bytes runs past the end")
        if attribute == _MESSAGE_INTEGRITY:
            is_open = False
        elif attribute == _USERNAME and is_open and username is None:
            username = datagram[value : value + size]
    return StunDatagram(kind, transaction_id, username, datagram[:end])


def open_stun(datagram: StunDatagram) -> stun.Message:
    """Decode the attributes and check FINGERPRINT if there is one; raises WireError.

    MESSAGE-INTEGRITY is the caller's to check: `message.check_message_integrity(key)`.
    """
    try:
        message = stun.parse_message(datagram.data)
        if datagram.username is not None:
            message.attributes["USERNAME"] = datagram.username.decode()
    except (ValueError, struct.error) as error:
        raise WireError(f"STUN message {datagram.kind:#06x}: {error}") from error
    return message


def build_binding_request(
    *, username: str, pwd: str, priority: int, tie_breaker: int, transaction_id: bytes
) -> bytes:
    """Build a connectivity check of a controlled agent (RFC 8445 section 7.2.2)."""
    return _build(
        stun.Class.REQUEST,
        transaction_id,
        pwd,
        {"USERNAME": username, "PRIORITY": priority, "ICE-CONTROLLED": tie_breaker},
    )


def build_binding_success(transaction_id: bytes, address: tuple[str, int], pwd: str) -> bytes:
    """Build the answer to a check; `address` is where the check came from."""
    return _build(stun.Class.RESPONSE, transaction_id, pwd, {"XOR-MAPPED-ADDRESS": address})


def build_binding_error(transaction_id: bytes, error: tuple[int, str], pwd: str) -> bytes:
    """Build the refusal of an authenticated check; `error` is (code, reason)."""
    return _build(stun.Class.ERROR, transaction_id, pwd, {"ERROR-CODE": error})


def _build(
    message_class: stun.Class, transaction_id: bytes, pwd: str, attributes: dict[str, object]
) -> bytes:
    message = stun.Message(stun.Method.BINDING, message_class, transaction_id, attributes)
    message.add_message_integrity(pwd.encode())
    return bytes(message)
