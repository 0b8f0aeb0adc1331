import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import WireError
from turnout.wire.rtp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtpPacket,
    SenderReport,
    build_goodbye,
    build_receiver_report,
    build_rtp,
    build_sender_report,
    build_source_description,
    is_rtcp,
    middle_of_ntp,
    ntp_from_unix,
    parse_rtcp,
    parse_rtp,
)

PACKET = RtpPacket(111, True, 65535, 0xFFFFFFFF, 0xDEADBEEF, b"payload")
BLOCK = ReportBlock(7, 128, -5, 0x1FFFF, 300, 0x01020304, 65536)


def header(first: int) -> bytes:
    return struct.pack("!BBHII", first, 111, 1, 2, 3)


def test_rtp_round_trip() -> None:
    assert parse_rtp(build_rtp(PACKET)) == PACKET


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        pytest.param(header(0x80), b"", id="no payload"),
        pytest.param(header(0x82) + bytes(8) + b"x", b"x", id="two CSRCs"),
        pytest.param(header(0x90) + b"\xbe\xde\x00\x01" + bytes(4) + b"x", b"x", id="extension"),
        pytest.param(header(0xA0) + b"xy\x00\x00\x03", b"xy", id="padding"),
        pytest.param(
            header(0xB1) + bytes(4) + b"\xbe\xde\x00\x00" + b"x\x01", b"x", id="all of them"
        ),
    ],
)
def test_parse_rtp_gives_the_payload_alone(data: bytes, payload: bytes) -> None:
    assert parse_rtp(data).payload == payload


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(header(0x80)[:11], id="header cut off"),
        pytest.param(header(0x40), id="version 1"),
        pytest.param(header(0x81) + bytes(3), id="CSRC cut off"),
        pytest.param(header(0x90) + b"\xbe\xde\x00", id="extension header cut off"),
        pytest.param(header(0x90) + b"\xbe\xde\x00\x02" + bytes(4), id="extension cut off"),
        pytest.param(header(0xA0) + b"x\x00", id="padding of 0"),
        pytest.param(header(0xA0) + b"x\x03", id="padding longer than the payload"),
    ],
)
def test_parse_rtp_malformed_raises(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_rtp(data)


@pytest.mark.parametrize(
    ("second", "rtcp"), [(0x6F, False), (0xEF, False), (191, False), (192, True), (200, True)]
)
def test_is_rtcp_by_second_byte(second: int, rtcp: bool) -> None:
    assert is_rtcp(bytes((0x80, second))) is rtcp


def test_sender_report_round_trip() -> None:
    report = SenderReport(1, ntp_from_unix(1e9), 48000, 10, 1600, (BLOCK, BLOCK))
    assert parse_rtcp(build_sender_report(report)) == [report]


def test_compound_packet_round_trip_skips_the_cname() -> None:
    report = ReceiverReport(1, (BLOCK,))
    goodbye = Goodbye((1, 2))
    data = build_receiver_report(report) + build_source_description(1, "name")
    assert parse_rtcp(data + build_goodbye(goodbye)) == [report, goodbye]


@pytest.mark.parametrize("cname", ["", "a", "ab", "abc", "abcd", "x" * 255])
def test_source_description_ends_in_zeros_on_a_word(cname: str) -> None:
    data = build_source_description(1, cname)
    words = struct.unpack_from("!H", data, 2)[0]
    assert len(data) == 4 + words * 4
    assert data[10:].rstrip(b"\0") == cname.encode()
    assert data.endswith(b"\0")


def test_goodbye_with_reason_and_padding_is_read() -> None:
    body = struct.pack("!I", 9) + b"\x03bye" + b"\0\0\0\x04"
    assert parse_rtcp(struct.pack("!BBH", 0xA1, 203, 3) + body) == [Goodbye((9,))]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x80\xc8\x00", id="header cut off"),
        pytest.param(b"\x80\xc8\x00\x07" + bytes(8), id="longer than the datagram"),
        pytest.param(b"\x40\xc9\x00\x01" + bytes(4), id="version 1"),
        pytest.param(b"\x80\xc8\x00\x01" + bytes(4), id="SR without sender info"),
        pytest.param(b"\x81\xc9\x00\x01" + bytes(4), id="RR without its block"),
        pytest.param(b"\x80\xc9\x00\x00", id="RR without SSRC"),
        pytest.param(b"\x82\xcb\x00\x01" + bytes(4), id="BYE for 2 with 1"),
        pytest.param(b"\xa0\xcb\x00\x01" + bytes(4), id="padding of 0"),
        pytest.param(b"\xa0\xcb\x00\x01" + b"\0\0\0\x08", id="padding longer than the packet"),
        pytest.param(build_goodbye(Goodbye((1,))) + b"\x80", id="rest behind it"),
    ],
)
def test_parse_rtcp_malformed_raises(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_rtcp(data)


def test_parse_rtcp_feedback_is_skipped() -> None:
    assert parse_rtcp(b"\x81\xce\x00\x02" + bytes(8)) == []


def test_ntp_of_the_unix_epoch() -> None:
    assert ntp_from_unix(0.0) == 2_208_988_800 << 32
    assert middle_of_ntp(0x0000_1234_5678_0000) == 0x1234_5678


@given(st.binary(max_size=120))
def test_parse_anything_parses_or_raises_wire_error(data: bytes) -> None:
    for parse in (parse_rtp, parse_rtcp):
        try:
            parse(data)
        except WireError:
            continue
        assert not data or data[0] >> 6 == 2
