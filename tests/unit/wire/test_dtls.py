import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import WireError
from turnout.wire.dtls import (
    ALERT,
    APPLICATION_DATA,
    CLIENT_HELLO,
    CLIENT_KEY_EXCHANGE,
    HANDSHAKE,
    DtlsRecord,
    build_datagrams,
    parse_records,
)


def record(content_type: int, body: bytes, *, epoch: int = 0, version: int = 0xFEFD) -> bytes:
    return struct.pack("!BHH6xH", content_type, version, epoch, len(body)) + body


def fragment(kind: int, body: bytes, *, length: int | None = None, offset: int = 0) -> bytes:
    whole = len(body) if length is None else length
    numbers = whole.to_bytes(3, "big"), bytes(2), offset.to_bytes(3, "big")
    return bytes((kind,)) + b"".join(numbers) + len(body).to_bytes(3, "big") + body


def test_parse_records_splits_a_datagram() -> None:
    first, second = record(HANDSHAKE, b"abc"), record(APPLICATION_DATA, b"", epoch=1)
    assert parse_records(first + second) == [
        DtlsRecord(HANDSHAKE, 0, first),
        DtlsRecord(APPLICATION_DATA, 1, second),
    ]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(record(HANDSHAKE, b"abc")[:12], id="header cut off"),
        pytest.param(record(HANDSHAKE, b"abc")[:-1], id="body cut off"),
        pytest.param(record(HANDSHAKE, b"abc") + b"x", id="rest behind it"),
        pytest.param(record(24, b"abc"), id="heartbeat"),
        pytest.param(record(HANDSHAKE, b"abc", version=0x0303), id="TLS"),
    ],
)
def test_parse_records_malformed_raises(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_records(data)


def handshake_types(body: bytes) -> list[int]:
    return parse_records(record(HANDSHAKE, body))[0].handshake_types()


def test_handshake_types_of_several_messages_in_one_record() -> None:
    body = fragment(CLIENT_HELLO, b"part", length=100, offset=20)
    assert handshake_types(body + fragment(CLIENT_KEY_EXCHANGE, b"")) == [1, 16]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(fragment(1, b"abc")[:11], id="header cut off"),
        pytest.param(fragment(1, b"abc")[:-1], id="fragment cut off"),
        pytest.param(fragment(1, b"abc", length=2), id="fragment longer than its message"),
        pytest.param(fragment(1, b"abc", length=10, offset=8), id="fragment past its message"),
        pytest.param(fragment(1, b"abc") + b"x", id="rest behind it"),
    ],
)
def test_handshake_types_malformed_raises(body: bytes) -> None:
    with pytest.raises(WireError):
        handshake_types(body)


def test_build_datagrams_packs_records_to_the_mtu_in_order() -> None:
    records = [record(HANDSHAKE, bytes((n,)) * 87) for n in range(5)]  # 100 bytes each
    datagrams = build_datagrams(b"".join(records), 250)
    assert datagrams == [b"".join(records[:2]), b"".join(records[2:4]), records[4]]


def test_build_datagrams_larger_record_goes_alone() -> None:
    small, large = record(ALERT, b"ab"), record(HANDSHAKE, bytes(300))
    assert build_datagrams(small + large + small, 200) == [small, large, small]


def test_build_datagrams_of_nothing_is_nothing() -> None:
    assert build_datagrams(b"", 1200) == []


@given(st.lists(st.binary(max_size=80), max_size=20), st.integers(1, 400))
def test_build_datagrams_loses_nothing(bodies: list[bytes], mtu: int) -> None:
    records = [record(HANDSHAKE, body) for body in bodies]
    datagrams = build_datagrams(b"".join(records), mtu)
    assert [one.data for datagram in datagrams for one in parse_records(datagram)] == records
    assert all(len(d) <= mtu or len(parse_records(d)) == 1 for d in datagrams)


@given(st.binary(max_size=120))
def test_parse_anything_parses_or_raises_wire_error(data: bytes) -> None:
    try:
        records = parse_records(data)
        for one in records:
            one.handshake_types()
    except WireError:
        return
    assert b"".join(one.data for one in records) == data
