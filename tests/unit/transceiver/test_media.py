from itertools import pairwise

import pylibsrtp
import pytest

from turnout.transceiver.media import REPORT_SECONDS, SSRCS_MAX
from turnout.wire.rtp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtpPacket,
    SenderReport,
    build_goodbye,
    build_receiver_report,
    build_rtp,
    middle_of_ntp,
    parse_rtcp,
)
from unit.transceiver.peer import PAYLOAD_TYPE, Line, negotiate


@pytest.fixture
def line() -> Line:
    line = Line()
    line.connect()
    return line


def test_echo_returns_the_payload_under_its_own_ssrc_and_sequence(line: Line) -> None:
    back = [line.send_rtp(sequence, payload=b"%d" % sequence)[0] for sequence in (500, 501, 503)]
    assert [one.payload for one in back] == [b"500", b"501", b"503"]
    assert {one.ssrc for one in back} == {0x1234}
    assert {one.payload_type for one in back} == {PAYLOAD_TYPE}
    first = back[0].sequence
    assert [one.sequence for one in back] == [first, first + 1, first + 2]
    assert first < 1 << 15


def test_echo_keeps_the_distances_of_time_stamps(line: Line) -> None:
    back = [line.send_rtp(sequence)[0] for sequence in (0, 1, 5)]
    stamps = [(one.timestamp - back[0].timestamp) & 0xFFFFFFFF for one in back]
    assert stamps == [0, 960, 5 * 960]


def test_echo_time_line_goes_on_when_the_client_changes_its_source(line: Line) -> None:
    (before,) = line.send_rtp(10, ssrc=7)
    line.now += 0.5
    (after,) = line.send_rtp(9000, ssrc=8, timestamp=123)
    assert (after.timestamp - before.timestamp) & 0xFFFFFFFF == 24000
    assert after.sequence == before.sequence + 1


def test_echo_two_sources_at_one_moment_get_different_time_stamps(line: Line) -> None:
    (first,) = line.send_rtp(10, ssrc=7)
    (second,) = line.send_rtp(10, ssrc=8)
    assert first.timestamp != second.timestamp


def test_replayed_packet_is_counted_and_not_echoed(line: Line) -> None:
    assert line.srtp is not None
    sealed = line.srtp.tx.protect(build_rtp(RtpPacket(PAYLOAD_TYPE, False, 1, 960, 7, b"abc")))
    assert len(line.deliver(sealed)) == 1
    assert line.deliver(sealed) == []
    assert line.counters.drop__srtp_replay == 1


def test_late_packet_is_echoed_once_with_a_new_sequence_number(line: Line) -> None:
    assert line.srtp is not None
    sealed = [
        line.srtp.tx.protect(build_rtp(RtpPacket(PAYLOAD_TYPE, False, n, n * 960, 7, b"%d" % n)))
        for n in range(3)
    ]
    back = [line.open_rtp(line.deliver(sealed[n]))[0] for n in (0, 2, 1)]
    assert [one.payload for one in back] == [b"0", b"2", b"1"]
    assert [one.sequence - back[0].sequence for one in back] == [0, 1, 2]
    assert line.deliver(sealed[1]) == []


def test_no_index_is_used_twice_across_both_sequence_wraps(line: Line) -> None:
    # The client's receiver refuses a replay; 70,000 packets wrap client's and our numbers.
    sequences = [line.send_rtp(n)[0].sequence for n in range(40000, 110000)]
    steps = {(after - before) & 0xFFFF for before, after in pairwise(sequences)}
    assert steps == {1}
    assert line.counters.handled__rtp == 70000


def test_forged_packet_is_counted_and_keeps_nothing_alive(line: Line) -> None:
    line.send_rtp(1)
    forged = build_rtp(RtpPacket(PAYLOAD_TYPE, False, 2, 1920, 7, bytes(40)))
    line.now += 20
    assert line.deliver(forged) == []
    assert line.counters.drop__srtp_auth == 1
    line.pass_time(11)
    assert line.ended == ["timeout"]


def test_media_before_dtls_is_counted() -> None:
    line = Line()
    line.prove()
    assert line.deliver(build_rtp(RtpPacket(PAYLOAD_TYPE, False, 2, 1920, 7, bytes(40)))) == []
    assert line.counters.drop__media_before_dtls == 1


def test_payload_type_that_was_not_negotiated_is_counted(line: Line) -> None:
    assert line.srtp is not None
    other = build_rtp(RtpPacket(PAYLOAD_TYPE + 1, False, 1, 0, 7, b"abc"))
    assert line.deliver(line.srtp.tx.protect(other)) == []
    assert line.counters.drop__payload_type == 1


def test_telephone_event_is_echoed(line: Line) -> None:
    assert line.srtp is not None
    event = build_rtp(RtpPacket(110, True, 1, 0, 7, b"\x01\x0a\x00\xa0"))
    (back,) = line.open_rtp(line.deliver(line.srtp.tx.protect(event)))
    assert (back.payload_type, back.marker, back.payload) == (110, True, b"\x01\x0a\x00\xa0")


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        pytest.param(b"\x80\x6f" + bytes(9), "drop__bad_rtp", id="11 bytes"),
        pytest.param(b"\x80", "drop__bad_rtp", id="1 byte"),
        pytest.param(b"\x80\xc8" + bytes(9), "drop__bad_rtp", id="RTCP of 11 bytes"),
        pytest.param(b"\x80\x6f" + bytes(1499), "drop__oversize", id="1501 bytes"),
        pytest.param(b"\x8f\x6f" + bytes(20), "drop__srtp_auth", id="CSRCs past the end"),
        pytest.param(b"\x80\xc8" + bytes(20), "drop__srtp_auth", id="RTCP"),
    ],
)
def test_bad_media_is_counted_once(line: Line, data: bytes, counter: str) -> None:
    before = sum(line.counters.as_dict().values())
    assert line.deliver(data) == []
    assert getattr(line.counters, counter) == 1
    assert sum(line.counters.as_dict().values()) == before + 1


def test_sealed_packet_that_is_no_rtp_is_counted(line: Line) -> None:
    assert line.srtp is not None
    padded = bytearray(build_rtp(RtpPacket(PAYLOAD_TYPE, False, 1, 0, 7, b"ab\x09")))
    padded[0] |= 0x20
    assert line.deliver(line.srtp.tx.protect(bytes(padded))) == []
    assert line.counters.drop__bad_rtp == 1


def test_sources_past_the_cap_are_counted_and_known_ones_go_on(line: Line) -> None:
    for ssrc in range(1, SSRCS_MAX + 1):
        assert len(line.send_rtp(1, ssrc=ssrc)) == 1
    assert line.send_rtp(1, ssrc=99) == []
    assert line.counters.drop__ssrc_limit == 1
    assert len(line.send_rtp(2, ssrc=1)) == 1


def test_payload_longer_than_srtp_has_room_for_is_counted(line: Line) -> None:
    assert line.srtp is not None
    with pytest.raises(pylibsrtp.Error):
        line.srtp.rx.unprotect(bytes(100))
    longest = 1500 - 144 - 12
    assert len(line.send_rtp(1, payload=bytes(longest))) == 1
    line.session.media.send_rtp(PAYLOAD_TYPE, False, 0, bytes(longest + 1), line.now)
    assert line.take() == []
    assert line.counters.unsent__oversize == 1


def test_recvonly_session_sends_no_rtp_and_reports_as_a_receiver() -> None:
    line = Line(negotiate("recvonly"))
    srtp = line.connect()
    assert line.send_rtp(1) == []
    reports = [one for one in line.pass_time(2) if one.is_rtcp]
    (report,) = parse_rtcp(srtp.rx.unprotect_rtcp(reports[0].data))
    assert isinstance(report, ReceiverReport)
    assert report.reports[0].ssrc == 7


def test_sender_report_leaves_within_5_seconds_and_again(line: Line) -> None:
    assert line.srtp is not None
    found: list[SenderReport] = []
    for sequence in range(500):
        line.send_rtp(sequence)
        for sent in line.pass_time(0.02):
            if sent.is_rtcp:
                report = parse_rtcp(line.srtp.rx.unprotect_rtcp(sent.data))[0]
                assert isinstance(report, SenderReport)
                found.append(report)
    assert len(found) >= 10 / (1.5 * REPORT_SECONDS)
    assert found[-1].packets > found[0].packets
    assert found[-1].reports[0].packets_lost == 0
    seconds = (found[-1].ntp - found[0].ntp) / 2**32
    ticks = (found[-1].rtp_timestamp - found[0].rtp_timestamp) & 0xFFFFFFFF
    assert ticks / 48000 == pytest.approx(seconds, abs=0.001)


def test_silent_session_sends_no_report(line: Line) -> None:
    assert [one for one in line.pass_time(4) if one.is_rtcp] == []


def test_goodbye_of_the_only_source_ends_the_session(line: Line) -> None:
    line.send_rtp(1)
    sent = line.send_rtcp(build_receiver_report(ReceiverReport(7)) + build_goodbye(Goodbye((7,))))
    assert line.ended == ["bye"]
    assert [one.is_rtcp for one in sent] == [True, False]
    assert sent[1].is_dtls


def test_goodbye_of_one_source_while_another_is_heard_ends_nothing(line: Line) -> None:
    line.send_rtp(1, ssrc=7)
    line.send_rtp(1, ssrc=8)
    line.send_rtcp(build_goodbye(Goodbye((7,))))
    assert line.ended == []
    line.send_rtcp(build_goodbye(Goodbye((8,))))
    assert line.ended == ["bye"]


def test_goodbye_counts_a_source_long_silent_as_gone(line: Line) -> None:
    line.send_rtp(1, ssrc=7)
    line.now += 6
    line.send_rtp(1, ssrc=8)
    line.send_rtcp(build_goodbye(Goodbye((8,))))
    assert line.ended == ["bye"]


def test_forged_goodbye_ends_nothing(line: Line) -> None:
    line.send_rtp(1)
    assert line.deliver(build_goodbye(Goodbye((7,))) + bytes(20)) == []
    assert line.ended == []
    assert line.counters.drop__srtp_auth == 1


def test_sealed_rtcp_that_does_not_parse_is_counted(line: Line) -> None:
    assert line.send_rtcp(b"\x82\xcb\x00\x01" + bytes(4)) == []
    assert line.counters.drop__bad_rtcp == 1


def test_replayed_rtcp_is_counted(line: Line) -> None:
    assert line.srtp is not None
    sealed = line.srtp.tx.protect_rtcp(build_receiver_report(ReceiverReport(7)))
    line.deliver(sealed)
    line.deliver(sealed)
    assert (line.counters.handled__rtcp, line.counters.drop__srtp_replay) == (1, 1)


def test_round_trip_of_the_clients_report_is_shown(line: Line) -> None:
    assert line.srtp is not None
    line.send_rtp(1)
    assert line.session.describe(line.now)["round_trip_ms"] is None
    sent = next(one for one in line.pass_time(2) if one.is_rtcp)
    report = parse_rtcp(line.srtp.rx.unprotect_rtcp(sent.data))[0]
    assert isinstance(report, SenderReport)
    line.now = report.ntp / 2**32 - 2_208_988_800 - 1e9 + 0.75  # the line's wall_offset is 1e9
    block = ReportBlock(0x1234, 0, 0, 0, 0, middle_of_ntp(report.ntp), 65536 // 2)
    line.send_rtcp(build_receiver_report(ReceiverReport(7, (block,))))
    assert line.session.describe(line.now)["round_trip_ms"] == pytest.approx(250, abs=1)
