from contextlib import suppress
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from turnout.transceiver.session import EARLY_DTLS_MAX
from turnout.wire.rtp import Goodbye, parse_rtcp
from turnout.wire.stun import BINDING_REQUEST
from unit.transceiver.peer import (
    CLIENT,
    OTHER,
    PEER_IDENTITY,
    Line,
    PeerIdentity,
    build_check,
    build_probe_answer,
    negotiate,
)


def test_session_from_check_to_echo() -> None:
    line = Line()
    line.connect()
    assert [one.payload for one in line.send_rtp(1, payload=b"hello")] == [b"hello"]
    shown = line.session.describe(line.now)
    assert (shown["ice"], shown["dtls"]) == ("connected", "connected")
    assert shown["srtp_profile"] == "SRTP_AEAD_AES_128_GCM"
    assert shown["client"] == "198.51.100.1:4000"
    assert (shown["packets_in"], shown["packets_out"]) == (1, 1)


def test_client_hello_before_the_proof_waits_for_it() -> None:
    line = Line()
    probe, _ = line.deliver(build_check())
    hello = line.dtls.start()
    assert [line.deliver(datagram) for datagram in hello] == [[]] * len(hello)
    flight = line.deliver(build_probe_answer(probe.data, CLIENT))
    assert flight
    assert all(sent.is_dtls for sent in flight)
    line.shake([one for sent in flight for one in line.dtls.receive(sent.data)])
    assert line.dtls.is_connected
    assert line.counters.handled__dtls == len(hello) + 1


def test_dtls_of_a_checked_flow_that_stays_unproven_is_counted() -> None:
    line = Line()
    line.deliver(build_check())
    for _ in range(EARLY_DTLS_MAX + 3):
        assert line.deliver(b"\x16\xfe\xfd" + bytes(10)) == []
    assert line.counters.drop__dtls_unproven == 3
    line.pass_time(31)
    assert line.ended == ["timeout"]
    assert line.counters.drop__dtls_unproven == EARLY_DTLS_MAX + 3


def test_dtls_is_answered_on_the_proven_flow_before_the_nomination() -> None:
    line = Line()
    line.prove(nominate=False)
    line.shake(line.dtls.start())
    assert line.dtls.is_connected


def test_dtls_halves_on_two_proven_flows_are_put_together() -> None:
    line = Line()
    line.prove()
    line.prove(OTHER, nominate=False)
    line.dtls = type(line.dtls)(mtu=300, hello_bytes=400)
    first, *others = line.dtls.start()
    assert line.deliver(first, OTHER) == []
    line.shake(others, CLIENT)
    assert line.dtls.is_connected


def test_bad_dtls_is_counted() -> None:
    line = Line()
    line.prove()
    assert line.deliver(b"\x16" + bytes(40)) == []
    assert line.counters.drop__bad_dtls == 1


@pytest.mark.parametrize("seed", range(0, 200, 40))
def test_mutated_datagrams_of_a_handshake_never_escape(seed: int) -> None:
    for number in range(seed, seed + 40):
        random = Random(number)
        line = Line()
        line.prove()
        datagrams = line.dtls.start()
        while datagrams:
            mutated = [mutate(datagram, random) for datagram in datagrams]
            answers = [sent for one in mutated for sent in line.deliver(one)]
            datagrams = []
            with suppress(SSL.Error):  # the client may notice; it is not under test
                for answer in answers:
                    datagrams += line.dtls.receive(answer.data)
        assert line.ended in ([], ["failed"])
        assert line.session.dtls.state in {"new", "handshaking", "connected", "closed"}


def mutate(datagram: bytes, random: Random) -> bytes:
    """Change up to 3 bytes, but not the first: it says that this is DTLS."""
    mutated = bytearray(datagram)
    for _ in range(random.randint(0, 3)):
        mutated[random.randrange(1, len(mutated))] = random.randrange(256)
    return bytes(mutated)


@given(st.binary(max_size=300))
def test_noise_from_a_proven_flow_never_escapes(noise: bytes) -> None:
    line = Line()
    line.connect()
    line.deliver(b"\x80" + noise)
    line.deliver(b"\x80\xc8" + noise)
    line.deliver(b"\x16\xfe\xfd" + noise)
    line.deliver(b"\x17\xfe\xfd\x00\x01" + noise)
    assert line.ended == []


def test_media_moves_after_nomination_and_proof() -> None:
    line = Line()
    srtp = line.connect()
    probe, _ = line.deliver(build_check(), OTHER)
    sealed = srtp.tx.protect(b"\x80\x6f\x00\x01" + bytes(8) + b"abc")
    assert [one.address for one in line.deliver(sealed, OTHER)] == [CLIENT]
    line.deliver(build_probe_answer(probe.data, OTHER), OTHER)
    sealed = srtp.tx.protect(b"\x80\x6f\x00\x02" + bytes(8) + b"abc")
    assert [one.address for one in line.deliver(sealed, CLIENT)] == [OTHER]


def test_session_without_a_client_ends_after_30_seconds() -> None:
    line = Line()
    line.pass_time(29.9)
    assert line.ended == []
    line.pass_time(0.2)
    assert line.ended == ["timeout"]


def test_session_that_is_checked_but_gets_no_dtls_ends_after_30_seconds() -> None:
    line = Line()
    line.prove()
    for _ in range(29):
        line.pass_time(1)
        line.deliver(build_check())
    assert line.ended == []
    line.pass_time(2)
    assert line.ended == ["failed"]


def test_silent_session_ends_30_seconds_after_the_last_sign_of_life() -> None:
    line = Line()
    line.connect()
    line.pass_time(10)
    line.send_rtp(1)
    sent = line.pass_time(29.9)
    assert line.ended == []
    assert any(one.stun_kind == BINDING_REQUEST for one in sent)
    line.pass_time(0.2)
    assert line.ended == ["timeout"]


@pytest.mark.parametrize("sign", ["rtp", "probe"])
def test_session_lives_on_by_any_sign_of_life(sign: str) -> None:
    line = Line()
    line.connect()
    for number in range(60):
        sent = line.pass_time(2)
        if sign == "rtp":
            line.send_rtp(number)
        else:
            probes = [one.data for one in sent if one.stun_kind == BINDING_REQUEST]
            if probes and line.probes:  # the last of its transmissions is answered
                line.deliver(build_probe_answer(probes[-1], CLIENT))
    assert line.ended == []


def test_certificate_of_somebody_else_fails_before_any_media() -> None:
    line = Line(negotiate("sendrecv", PeerIdentity().fingerprint()))
    line.prove()
    line.shake(line.dtls.start())
    assert line.ended == ["failed"]
    assert line.dtls.is_closed
    assert not line.session.media.is_started


def test_certificate_by_sha512_alone_is_accepted() -> None:
    line = Line(negotiate("sendrecv", PEER_IDENTITY.fingerprint("sha-512")))
    line.connect()
    assert line.ended == []


def test_close_notify_of_the_client_ends_the_session() -> None:
    line = Line()
    line.connect()
    for datagram in line.dtls.close():
        line.deliver(datagram)
    assert line.ended == ["dtls_closed"]


def test_end_says_bye_and_close_notify_once() -> None:
    line = Line()
    srtp = line.connect()
    line.send_rtp(1)
    line.session.end("deleted", line.now)
    line.session.end("timeout", line.now)
    goodbye, close_notify = line.take()
    packets = parse_rtcp(srtp.rx.unprotect_rtcp(goodbye.data))
    assert packets[-1] == Goodbye((0x1234,))
    line.dtls.receive(close_notify.data)
    assert line.dtls.is_closed
    assert line.ended == ["deleted"]


def test_session_that_ended_takes_nothing_more() -> None:
    line = Line()
    srtp = line.connect()
    flow = line.flows[CLIENT]
    line.session.end("deleted", line.now)
    line.take()
    line.session.receive_media(srtp.tx.protect(b"\x80\x6f" + bytes(20)), flow, line.now)
    for datagram in line.dtls.close():
        line.session.receive_dtls(datagram, flow, line.now)
    assert line.take() == []
