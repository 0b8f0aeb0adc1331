"""A session that moves from owner to owner, again and again: nothing is used twice, or lost."""

import copy
import random
from dataclasses import dataclass, field, replace

import pylibsrtp
import pytest

from turnout.errors import WireError
from turnout.transceiver.counters import Counters
from turnout.transceiver.echo import Echo
from turnout.transceiver.moving import FORMAT, NotMovable, build_blob, parse_blob
from turnout.transceiver.replay import SeenIndices, extend_sequence
from turnout.transceiver.session import LIVE_SECONDS, Session
from turnout.transceiver.srtp import PROFILES, Srtp
from turnout.wire.rtp import ReceiverReport, RtpPacket, build_receiver_report, build_rtp, parse_rtp
from turnout.wire.stun import BINDING_REQUEST
from unit.transceiver.peer import (
    CLIENT,
    CREDENTIALS,
    IDENTITY,
    PAYLOAD_TYPE,
    DtlsClient,
    Line,
    Sent,
    build_check,
    build_probe_answer,
)

VIP = "192.0.2.2"


def move(line: Line) -> Line:
    """Hand the line's session over as a blob; returns the line between client and next owner."""
    line.session.check_movable()
    state, sockets = line.session.leave(lambda _number: VIP)
    blob = parse_blob(build_blob({**state, "format": FORMAT}))
    after = copy.copy(line)
    after.flows, after.probes, after.sent = {}, {}, []
    after.counters = Counters()
    after.session = Session.arrive(blob, identity=IDENTITY, app=Echo, outside=after)
    after.session.resume(blob, sockets, {VIP: 0}.get, line.now)
    return after


@dataclass
class Books:
    """The client's books over what comes, whoever owns the session."""

    ssrc: int
    packets: dict[int, int] = field(default_factory=dict)  # index -> times
    reports: dict[int, int] = field(default_factory=dict)
    timestamps: list[int] = field(default_factory=list)

    def open(self, line: Line, sent: list[Sent]) -> None:
        """Decrypt all with the one context that the client has; it raises for a second use."""
        assert line.srtp is not None
        srtp = line.srtp
        for one in sent:
            if one.is_rtp:
                packet = parse_rtp(srtp.rx.unprotect(one.data))
                assert packet.ssrc == self.ssrc
                index = srtp.rollover_in(self.ssrc) << 16 | packet.sequence
                self.packets[index] = self.packets.get(index, 0) + 1
                self.timestamps.append(packet.timestamp)
            elif one.is_rtcp:
                srtp.rx.unprotect_rtcp(one.data)
                index = srtp.profile.rtcp_index(one.data)
                self.reports[index] = self.reports.get(index, 0) + 1


def protect(line: Line, sequence: int) -> bytes:
    assert line.srtp is not None
    packet = RtpPacket(PAYLOAD_TYPE, False, sequence & 0xFFFF, sequence * 960 & 0xFFFFFFFF, 7, b"x")
    return line.srtp.tx.protect(build_rtp(packet))


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
@pytest.mark.parametrize("seed", range(12))
def test_no_index_is_used_twice_over_many_moves_and_sequence_wraps(
    seed: int, profile: object
) -> None:
    chance = random.Random(seed)
    line = connected(profile.openssl_name)  # type: ignore[attr-defined]
    books = Books(0x1234)
    # Both sides' sequence numbers go round soon, ours once more than a full round later.
    line.session.media._emission.next_index = chance.randrange(65536 - 150, 65536)
    sequence = first = chance.randrange(65536 - 150, 65536)
    sent_before: list[bytes] = []
    held: list[bytes] = []  # under way, and overtaken
    moves = replays = heard = 0
    for _ in range(600):
        step = chance.random()
        if step < 0.06 and heard:
            line = move(line)
            moves += 1
        elif step < 0.10:
            assert line.srtp is not None
            report = build_receiver_report(ReceiverReport(7, ()))
            line.deliver(line.srtp.tx.protect_rtcp(report))
        elif step < 0.16:
            books.open(line, line.pass_time(chance.uniform(0, 2)))
        elif step < 0.22 and sent_before:
            before = line.counters.drop__srtp_replay
            books.open(line, line.deliver(chance.choice(sent_before)))
            assert line.counters.drop__srtp_replay == before + 1
            replays += 1
        elif step < 0.30:
            held.append(protect(line, sequence))
            sequence += 1
        else:
            late = chance.random() < 0.3 and held
            data = held.pop(chance.randrange(len(held))) if late else protect(line, sequence)
            sequence += not late
            books.open(line, line.deliver(data))
            sent_before.append(data)
            heard += 1
    assert moves > 10
    assert replays > 5
    assert sequence > 65536 > first
    # Every packet of the client came back, under one index each and without a hole.
    assert set(books.packets.values()) == set(books.reports.values()) == {1}
    assert len(books.packets) == heard == max(books.packets) - min(books.packets) + 1
    assert max(books.packets) > 65536
    assert sorted(books.reports) == list(range(1, len(books.reports) + 1))


def connected(profile: bytes) -> Line:
    line = Line()
    line.dtls = DtlsClient(profiles=profile)
    line.connect()
    line.take()
    return line


def test_moved_exactly_at_the_wrap_both_ways_goes_on() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.session.media._emission.next_index = 65535
    assert [packet.sequence for packet in line.send_rtp(65535)] == [65535]
    line = move(line)
    # The first packet after the move is the first of the next round, in both directions.
    assert [packet.sequence for packet in line.send_rtp(65536)] == [0]
    line = move(line)
    # And the late one of the round before is still taken, as the client sent it.
    assert [packet.sequence for packet in line.send_rtp(65534)] == [1]


def test_client_sees_one_stream_with_one_time_line() -> None:
    line = connected(PROFILES[0].openssl_name)
    before = [line.send_rtp(sequence)[0].timestamp for sequence in (1, 2)]
    line = move(line)
    (packet,) = line.send_rtp(3)
    assert packet.timestamp - before[1] == before[1] - before[0] == 960
    assert line.session.media.describe()["packets_in"] == 3


def test_old_owner_has_no_keys_left_and_says_nothing() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    srtp = line.session.media._srtp
    assert srtp is not None
    move(line)
    assert line.take() == []
    assert not hasattr(srtp, "rx")
    assert not hasattr(srtp, "tx")
    assert srtp.send_key == srtp.receive_key == b""
    assert line.flows == {}
    assert line.session.poll(line.now + LIVE_SECONDS) == float("inf")
    assert line.take() == []
    assert line.ended == []


def test_client_that_has_not_used_its_keys_stays() -> None:
    line = Line()
    line.connect()
    with pytest.raises(NotMovable, match="keys"):
        line.session.check_movable()


def test_session_before_dtls_stays() -> None:
    with pytest.raises(NotMovable, match="keys"):
        Line().session.check_movable()


def test_session_in_an_ice_restart_stays() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    line.session.ice.restart(replace(CREDENTIALS, local_ufrag="newufrag"))
    with pytest.raises(NotMovable, match="restart"):
        line.session.check_movable()


def test_checks_are_answered_and_silence_is_probed_after_a_move() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    line = move(line)
    assert len(line.deliver(build_check())) == 1  # the response: the flow is proven already
    probe = next(sent for sent in line.pass_time(5.05) if sent.stun_kind == BINDING_REQUEST)
    line.deliver(build_probe_answer(probe.data, CLIENT))
    assert line.counters.probes_answered == 1


def test_probe_on_its_way_is_sent_again_by_the_next_owner() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    line.pass_time(5.05)
    assert len(line.probes) == 1
    after = move(line)
    assert line.probes == {}
    (probe,) = (sent for sent in after.take() if sent.stun_kind == BINDING_REQUEST)
    after.deliver(build_probe_answer(probe.data, CLIENT))
    assert after.session.alive_at == after.now


def test_session_without_a_client_ends_after_a_move_too() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    line = move(line)
    line.pass_time(LIVE_SECONDS + 1)
    assert line.ended == ["timeout"]


def test_close_notify_after_a_move_ends_the_session_of_a_client_that_is_gone() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    line = move(line)
    (alert,) = line.dtls.close()
    assert [sent.stun_kind for sent in line.deliver(alert)] == [BINDING_REQUEST]
    assert line.counters.ignored__dtls_left == 1
    line.pass_time(4)
    assert line.ended == ["dtls_closed"]


def test_client_hears_close_notify_of_the_last_owner_once() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    line = move(line)
    line.send_rtp(2)
    line = move(line)
    assert line.take() == []
    line.session.end("deleted", line.now)
    (alert,) = (sent for sent in line.take() if sent.is_dtls)
    assert not line.dtls.is_closed
    line.dtls.receive(alert.data)
    assert line.dtls.is_closed
    line.session.end("deleted", line.now)
    assert line.take() == []


def test_doubt_moves_along() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    line = move(line)
    (alert,) = line.dtls.close()
    line.deliver(alert)
    line = move(line)
    line.pass_time(4)
    assert line.ended == ["dtls_closed"]


def send_reports(line: Line, count: int) -> None:
    srtp = line.session.media._srtp
    assert srtp is not None
    for _ in range(count):
        srtp.protect_rtcp(build_receiver_report(ReceiverReport(0x1234, ())))


def reports_owed(line: Line) -> int:
    assert line.session.media._srtp is not None
    return line.session.media._srtp.reports_owed


def test_indices_of_a_long_call_are_burnt_bit_by_bit_before_its_next_report() -> None:
    line = connected(PROFILES[0].openssl_name)
    books = Books(0x1234)
    line.send_rtp(1)
    send_reports(line, 5000)
    line = move(line)
    line.session.poll(line.now)
    assert 0 < reports_owed(line) < 5000
    line = move(line)  # while it is at it
    assert reports_owed(line) == 5000
    books.open(line, line.pass_time(6))
    assert reports_owed(line) == 0
    assert books.reports[5001] == 1
    assert [*books.reports] == list(range(5001, 5001 + len(books.reports)))


def test_goodbye_of_a_long_call_has_the_next_index() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    send_reports(line, 300)
    line = move(line)
    books = Books(0x1234)
    line.session.end("deleted", line.now)
    books.open(line, line.take())
    assert books.reports == {301: 1}


@pytest.mark.parametrize("count", [-1, 1 << 31])
def test_more_reports_than_a_key_has_indices_for_are_refused(count: int) -> None:
    key = bytes(28)
    with pytest.raises(ValueError, match="SRTCP"):
        Srtp(PROFILES[0], key, key).resume(7, 1, count)


def test_alert_that_the_client_did_not_send_ends_nothing() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    line = move(line)
    line.deliver(bytes.fromhex("15fefd0001000000000009001a") + bytes(26))
    line.now += 1
    line.send_rtp(2)
    line.pass_time(4)
    assert line.ended == []


def test_blob_of_another_format_is_refused() -> None:
    with pytest.raises(WireError, match="format"):
        parse_blob(build_blob({"format": FORMAT + 1}))
    with pytest.raises(WireError, match="JSON"):
        parse_blob(b'{"format": 1, "id": "ab')


def test_state_at_a_vip_that_is_not_served_is_refused() -> None:
    line = connected(PROFILES[0].openssl_name)
    line.send_rtp(1)
    state, _ = line.session.leave(lambda _number: VIP)
    state = parse_blob(build_blob({**state, "format": FORMAT}))
    session = Session.arrive(state, identity=IDENTITY, app=Echo, outside=line)
    with pytest.raises(WireError, match="VIP"):
        session.resume(state, [], lambda _vip: None, line.now)


@pytest.mark.parametrize("start", [0, 40_000, 65_535])
def test_index_is_the_one_that_libsrtp_takes_it_for(start: int) -> None:
    chance = random.Random(start)
    key = bytes(28)
    ours, theirs = Srtp(PROFILES[0], key, key), Srtp(PROFILES[0], key, key)
    seen = SeenIndices()
    sequence = start
    for _ in range(3000):
        sequence += chance.choice((1, 1, 1, 2, 200, 4000))
        data = theirs.tx.protect(
            build_rtp(RtpPacket(PAYLOAD_TYPE, False, sequence & 0xFFFF, 0, 7, b"x"))
        )
        if chance.random() < 0.1:
            continue
        ours.rx.unprotect(data)
        assert seen.take(extend_sequence(seen.highest, sequence & 0xFFFF))
        assert seen.highest >> 16 == ours.rollover_in(7)
        with pytest.raises(pylibsrtp.Error, match="replay"):
            ours.rx.unprotect(data)


def test_index_too_old_to_tell_is_not_taken() -> None:
    seen = SeenIndices()
    assert seen.take(5000)
    assert seen.take(5000 - 1023)
    assert not seen.take(5000 - 1023)
    assert not seen.take(5000 - 1024)
    assert seen.take(1 << 31)
    assert not seen.take(5000)
