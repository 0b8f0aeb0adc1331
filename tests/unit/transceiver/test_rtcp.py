import pytest

from turnout.transceiver.rtcp import Emission, Reception
from turnout.wire.rtp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtpPacket,
    SenderReport,
    ntp_from_unix,
    parse_rtcp,
    parse_rtp,
)

CLOCK = 48000
UNIX = 1.7e9


def packet(sequence: int) -> RtpPacket:
    return RtpPacket(111, False, sequence & 0xFFFF, sequence * 960 & 0xFFFFFFFF, 7, b"abc")


def receive(sequences: list[int]) -> Reception:
    """A source whose packets left every 20 ms and came without delay."""
    reception = Reception(packet(sequences[0]), CLOCK, sequences[0] / 50)
    for sequence in sequences[1:]:
        reception.receive(packet(sequence), sequence / 50)
    return reception


def test_report_of_everything_received_has_no_loss_and_no_jitter() -> None:
    block = receive(list(range(100))).report(7, 2.0)
    assert block == ReportBlock(7, 0, 0, 99, 0, 0, 0)


def test_report_counts_loss_and_its_fraction() -> None:
    block = receive([n for n in range(100) if n % 4 != 1]).report(7, 2.0)
    assert (block.packets_lost, block.fraction_lost) == (25, 64)


def test_report_fraction_is_of_the_interval_and_loss_of_all_time() -> None:
    reception = receive([0, 2, 3])
    reception.report(7, 2.0)
    for sequence in (4, 5, 6):
        reception.receive(packet(sequence), sequence / 50)
    block = reception.report(7, 2.0)
    assert (block.packets_lost, block.fraction_lost) == (1, 0)


def test_report_late_packet_is_no_loss() -> None:
    block = receive([0, 2, 1, 3]).report(7, 2.0)
    assert (block.packets_lost, block.highest_sequence) == (0, 3)


def test_report_packet_before_the_first_makes_the_loss_negative() -> None:
    assert receive([5, 4]).report(7, 2.0).packets_lost == -1


def test_report_sequence_wrap_extends_the_highest() -> None:
    block = receive([65534, 65535, 65536, 65537]).report(7, 2.0)
    assert (block.highest_sequence, block.packets_lost) == (65537, 0)


def test_jitter_grows_with_uneven_arrival() -> None:
    reception = Reception(packet(0), CLOCK, 0.0)
    for sequence in range(1, 200):
        reception.receive(packet(sequence), sequence / 50 + 0.01 * (sequence % 2))
    # Every transit time differs from the one before by 10 ms.
    assert reception.report(7, 4.0).jitter == pytest.approx(480, abs=2)


def test_jitter_is_not_upset_by_a_time_stamp_wrap() -> None:
    first = RtpPacket(111, False, 0, 0xFFFFFFFF - 959, 7, b"")
    reception = Reception(first, CLOCK, 0.0)
    reception.receive(RtpPacket(111, False, 1, 0, 7, b""), 0.02)
    assert reception.jitter == pytest.approx(0, abs=0.01)


def test_report_answers_the_clients_sender_report() -> None:
    reception = receive([0, 1])
    reception.receive_sender_report(SenderReport(7, 0x1111_2222_3333_4444, 0, 0, 0), 10.0)
    block = reception.report(7, 12.5)
    assert (block.last_sr, block.delay_since_last_sr) == (0x2222_3333, 5 * 65536 // 2)


def emit(first_sequence: int = 65535, packets: int = 3) -> tuple[Emission, list[RtpPacket]]:
    emission = Emission(9, "cname", CLOCK, first_sequence)
    built = [emission.build(111, False, n * 960, b"abcd", n / 50) for n in range(packets)]
    return emission, [parse_rtp(one) for one in built]


def test_emission_sequence_numbers_count_on_across_the_wrap() -> None:
    _, packets = emit()
    assert [one.sequence for one in packets] == [65535, 0, 1]
    assert {one.ssrc for one in packets} == {9}


def test_report_of_a_sender_maps_now_to_its_time_line() -> None:
    emission, _ = emit()
    report = parse_rtcp(emission.build_report((), 0.54, UNIX))[0]
    assert isinstance(report, SenderReport)
    assert (report.packets, report.octets, report.ntp) == (3, 12, ntp_from_unix(UNIX))
    assert report.rtp_timestamp == 2 * 960 + CLOCK // 2  # half a second after the last packet


def test_report_before_anything_was_sent_is_a_receiver_report() -> None:
    emission = Emission(9, "cname", CLOCK, 0)
    block = ReportBlock(7, 0, 0, 0, 0, 0, 0)
    assert parse_rtcp(emission.build_report((block,), 0.0, UNIX)) == [ReceiverReport(9, (block,))]


def test_goodbye_comes_behind_a_report() -> None:
    emission, _ = emit()
    packets = parse_rtcp(emission.build_goodbye(1.0, UNIX))
    assert isinstance(packets[0], SenderReport)
    assert packets[1] == Goodbye((9,))


def test_round_trip_is_what_the_client_did_not_hold() -> None:
    emission, _ = emit()
    sent = ntp_from_unix(UNIX) >> 16 & 0xFFFFFFFF
    emission.receive_report(ReportBlock(9, 0, 0, 0, 0, sent, 65536), ntp_from_unix(UNIX + 1.25))
    assert emission.round_trip == pytest.approx(0.25, abs=0.001)


@pytest.mark.parametrize("last_sr", [0, 3 << 16])  # none yet; later than now
def test_round_trip_of_nonsense_is_none(last_sr: int) -> None:
    emission, _ = emit()
    now = 2 << 32
    emission.receive_report(ReportBlock(9, 0, 0, 0, 0, last_sr, 0), now)
    assert emission.round_trip is None
