import struct

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import WireError
from turnout.wire.stun import (
    BINDING_ERROR,
    BINDING_INDICATION,
    BINDING_REQUEST,
    BINDING_SUCCESS,
    ROLE_CONFLICT,
    build_binding_error,
    build_binding_request,
    build_binding_success,
    open_stun,
    parse_stun,
)

ID = bytes(range(12))
PWD = "p" * 24


def message(attributes: bytes, *, kind: int = BINDING_REQUEST, cookie: int = 0x2112A442) -> bytes:
    return struct.pack("!HHI12s", kind, len(attributes), cookie, ID) + attributes


def attribute(kind: int, value: bytes, *, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    return struct.pack("!HH", kind, size) + value + bytes(-len(value) % 4)


REQUEST = build_binding_request(
    username="serv:clnt", pwd=PWD, priority=1, tie_breaker=2, transaction_id=ID
)


def signed(attributes: bytes, *, after: bytes = b"") -> bytes:
    """A request with MESSAGE-INTEGRITY over `attributes`, then what comes after it."""
    covered = struct.pack("!HHI12s", 1, len(attributes) + 24, 0x2112A442, ID) + attributes
    digest = stun.message_integrity(covered, PWD.encode())
    return message(attributes + attribute(8, digest) + after)


def test_parse_request_gives_kind_username_and_ufrag() -> None:
    parsed = parse_stun(REQUEST)
    assert (parsed.kind, parsed.transaction_id) == (BINDING_REQUEST, ID)
    assert parsed.username == b"serv:clnt"
    assert parsed.receiver_ufrag == b"serv"


def test_parse_bytes_after_the_message_are_cut_off() -> None:
    parsed = parse_stun(REQUEST + b"trailing")
    assert parsed.data == REQUEST
    assert open_stun(parsed).check_message_integrity(PWD.encode())


def test_parse_two_usernames_the_first_wins() -> None:
    data = signed(attribute(6, b"first:x") + attribute(6, b"second:x"))
    parsed = parse_stun(data)
    assert parsed.receiver_ufrag == b"first"
    opened = open_stun(parsed)
    assert opened.check_message_integrity(PWD.encode())
    assert opened.attributes["USERNAME"] == "first:x"


def test_parse_username_after_integrity_is_none() -> None:
    assert parse_stun(signed(b"", after=attribute(6, b"serv:x"))).username is None


@pytest.mark.parametrize("username", [b"nocolon", b""])
def test_receiver_ufrag_without_colon_is_none(username: bytes) -> None:
    assert parse_stun(message(attribute(6, username))).receiver_ufrag is None


def test_receiver_ufrag_ends_at_the_first_colon() -> None:
    assert parse_stun(message(attribute(6, b"a:b:c"))).receiver_ufrag == b"a"


def test_parse_username_behind_other_attributes_is_found() -> None:
    data = message(attribute(0x8022, b"soft") + attribute(0x24, bytes(4)) + attribute(6, b"u:v"))
    assert parse_stun(data).receiver_ufrag == b"u"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(REQUEST[:19], id="header cut off"),
        pytest.param(message(b"", cookie=0x2112A443), id="wrong cookie"),
        pytest.param(message(b"", kind=0x4001), id="first bits not zero"),
        pytest.param(REQUEST[:-1], id="shorter than its length"),
        pytest.param(
            struct.pack("!HHI12s", 1, 2, 0x2112A442, ID) + b"ab", id="length not in words"
        ),
        pytest.param(message(attribute(6, b"abcd", length=5)), id="attribute past the end"),
        pytest.param(message(attribute(6, b"", length=0xFFFF)), id="attribute of 65535 bytes"),
    ],
)
def test_parse_malformed_raises(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_stun(data)


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param(attribute(0x24, b"abc"), id="PRIORITY of 3 bytes"),
        pytest.param(attribute(0x802A, b"abcd"), id="ICE-CONTROLLING of 4 bytes"),
        pytest.param(attribute(6, b"\xff\xfe:x"), id="USERNAME not UTF-8"),
        pytest.param(attribute(0x20, b"\x00\x07" + bytes(6)), id="address of unknown family"),
        pytest.param(attribute(9, b"ab"), id="ERROR-CODE of 2 bytes"),
        pytest.param(attribute(0x8028, bytes(4)), id="wrong FINGERPRINT"),
    ],
)
def test_open_malformed_attribute_raises(attributes: bytes) -> None:
    parsed = parse_stun(message(attributes))
    with pytest.raises(WireError):
        open_stun(parsed)


def test_open_unknown_method_raises() -> None:
    with pytest.raises(WireError):
        open_stun(parse_stun(message(b"", kind=0x0200)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(signed(attribute(6, b"serv:clnt")), id="no FINGERPRINT"),
        pytest.param(
            signed(struct.pack("!HH", 6, 6) + b"serv:c" + b"\x01\x02"), id="padding not zero"
        ),
        pytest.param(signed(attribute(6, b"serv:" + b"c" * 256)), id="client ufrag of 256"),
        pytest.param(
            signed(attribute(6, b"serv:clnt"), after=attribute(0x1C, bytes(32))),
            id="MESSAGE-INTEGRITY-SHA256 behind it",
        ),
        pytest.param(
            signed(attribute(6, b"serv:clnt") + attribute(0xC001, bytes(4))), id="NOMINATION"
        ),
    ],
)
def test_open_legal_variants_pass_the_integrity_check(data: bytes) -> None:
    opened = open_stun(parse_stun(data))
    assert opened.check_message_integrity(PWD.encode())
    assert not opened.check_message_integrity(b"q" * 24)


def test_open_integrity_of_wrong_size_fails_the_check() -> None:
    data = message(attribute(6, b"serv:clnt") + attribute(8, bytes(4)))
    assert not open_stun(parse_stun(data)).check_message_integrity(PWD.encode())


def test_build_request_says_controlled_and_priority() -> None:
    opened = open_stun(parse_stun(REQUEST))
    assert opened.check_message_integrity(PWD.encode())
    assert opened.attributes["ICE-CONTROLLED"] == 2
    assert opened.attributes["PRIORITY"] == 1
    assert "USE-CANDIDATE" not in opened.attributes


@pytest.mark.parametrize("address", [("192.0.2.1", 5), ("2001:db8::1", 65535)])
def test_build_success_carries_the_address(address: tuple[str, int]) -> None:
    parsed = parse_stun(build_binding_success(ID, address, PWD))
    opened = open_stun(parsed)
    assert parsed.kind == BINDING_SUCCESS
    assert opened.attributes["XOR-MAPPED-ADDRESS"] == address
    assert opened.check_message_integrity(PWD.encode())


def test_build_error_carries_the_code() -> None:
    parsed = parse_stun(build_binding_error(ID, ROLE_CONFLICT, PWD))
    assert parsed.kind == BINDING_ERROR
    assert open_stun(parsed).error_code == 487


def test_parse_indication_without_attributes() -> None:
    assert parse_stun(message(b"", kind=BINDING_INDICATION)).kind == BINDING_INDICATION


@given(st.binary(max_size=200), st.booleans())
def test_parse_anything_parses_or_raises_wire_error(noise: bytes, framed: bool) -> None:
    data = message(noise[: len(noise) // 4 * 4]) if framed else noise
    try:
        open_stun(parse_stun(data))
    except WireError:
        return
    assert len(data) >= 20
