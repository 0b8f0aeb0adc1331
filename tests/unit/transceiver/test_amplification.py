"""What a flow costs whoever is at its address, before its client has proven to be there."""

from random import Random

import pytest
from aioice import stun

from turnout.transceiver.flow import AMPLIFICATION, Address
from turnout.transceiver.ice import PROBE_PAUSE_SECONDS
from turnout.transceiver.probing import PROBE_SECONDS, PROBE_WAITS
from turnout.wire.stun import BINDING_REQUEST, BINDING_SUCCESS
from unit.transceiver.peer import (
    CLIENT,
    CREDENTIALS,
    OTHER,
    Line,
    Sent,
    build_check,
    build_probe_answer,
)


def size(sent: list[Sent]) -> int:
    return sum(len(one.data) for one in sent)


def kinds(sent: list[Sent]) -> list[int | None]:
    return [one.stun_kind for one in sent]


def build_least_check() -> bytes:
    """Build the shortest request that we answer: USERNAME and MESSAGE-INTEGRITY alone."""
    message = stun.Message(
        stun.Method.BINDING,
        stun.Class.REQUEST,
        attributes={"USERNAME": f"{CREDENTIALS.local_ufrag}:{CREDENTIALS.remote_ufrag}"},
    )
    message.add_message_integrity(CREDENTIALS.local_pwd.encode())
    return bytes(message)


@pytest.mark.parametrize("address", [CLIENT, ("2001:db8::1", 4000, 0, 0)], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("check", [build_check(), build_least_check()], ids=["usual", "least"])
def test_check_sent_once_from_a_forged_address_brings_three_times_its_bytes(
    check: bytes, address: Address
) -> None:
    line = Line()
    sent = line.deliver(check, address) + line.pass_time(20)
    assert kinds(sent)[:2] == [BINDING_REQUEST, BINDING_SUCCESS]
    assert size(sent) <= AMPLIFICATION * len(check)
    assert line.counters.amplification_limited >= 1


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.5, PROBE_PAUSE_SECONDS, 7.0])
def test_captured_check_sent_again_and_again_brings_three_times_its_bytes_at_every_moment(
    pause: float,
) -> None:
    line = Line()
    line.connect()
    check = build_check()
    bytes_in = bytes_out = 0
    for _ in range(40):
        if line.ended:
            break
        sent = line.deliver(check, OTHER)
        bytes_in += len(check)
        sent += line.pass_time(pause)
        bytes_out += size([one for one in sent if one.address == OTHER])
        assert bytes_out <= AMPLIFICATION * bytes_in
    assert bytes_out > bytes_in / 2


def test_unproven_flow_gets_three_times_whatever_came_of_it_and_neither_dtls_nor_media() -> None:
    random = Random(4)
    line = Line()
    line.connect()
    line.take()
    others = [build_check(), b"\x16\xfe\xfd" + bytes(200), b"\x80\x6f" + bytes(100)]
    data = build_check()
    bytes_in = bytes_out = 0
    while not line.ended:
        sent = [one for one in line.deliver(data, OTHER) if one.address == OTHER]
        sent += [one for one in line.pass_time(random.random() / 4) if one.address == OTHER]
        bytes_in += len(data)
        bytes_out += size(sent)
        assert bytes_out <= AMPLIFICATION * bytes_in
        assert None not in kinds(sent)
        data = random.choice(others)
    assert bytes_out > 0


def test_probe_that_has_to_wait_goes_on_with_the_next_datagram_of_the_client() -> None:
    line = Line()
    line.deliver(build_check())
    line.pass_time(0.4)  # two transmissions are all that one check pays for
    held = line.counters.amplification_limited
    assert held >= 1
    sent = line.deliver(build_check())
    assert kinds(sent) == [BINDING_REQUEST, BINDING_SUCCESS]
    line.deliver(build_probe_answer(sent[0].data, CLIENT))
    assert line.session.ice.selected is line.flows[CLIENT]
    assert not line.probes


def test_client_hello_pays_for_the_probe_that_was_lost() -> None:
    """A client that checks once in 5 s and whose first probes are lost starts DTLS meanwhile."""
    line = Line()
    line.deliver(build_check())  # both transmissions are lost
    line.pass_time(1.0)
    (probe,) = line.deliver(line.dtls.start()[0])
    assert probe.stun_kind == BINDING_REQUEST
    flight = line.deliver(build_probe_answer(probe.data, CLIENT))
    assert flight
    assert all(one.is_dtls for one in flight)  # it had waited for the proof


def test_held_probe_is_given_up_in_the_time_of_one_that_is_not() -> None:
    line = Line()
    line.deliver(build_check())
    line.pass_time(PROBE_SECONDS + 2 * max(PROBE_WAITS))
    assert not line.probes
    assert len(line.sent) == 0


def test_role_conflicts_are_refused_within_the_limit() -> None:
    line = Line()
    check = build_check(role="ICE-CONTROLLED")
    for _ in range(20):
        assert size(line.deliver(check)) <= AMPLIFICATION * len(check)


@pytest.mark.parametrize("lost", [0.1, 0.3])
@pytest.mark.parametrize("pause", [0.05, 5.0], ids=["check every 50 ms", "check every 5 s"])
def test_client_behind_a_lossy_path_still_proves_itself(lost: float, pause: float) -> None:
    """Checks, ClientHellos after 1, 2, 4, ... s, probes and answers: each is lost as often."""
    proven = 0
    for seed in range(12):
        random = Random(seed)
        line = Line()
        checks_at, hello_at, wait = line.now, line.now, 1.0
        end = line.now + 20
        while line.now < end and not line.session.ice.selected:
            sent = line.pass_time(0.05)
            if line.now >= checks_at:
                checks_at += pause
                sent += [] if random.random() < lost else line.deliver(build_check())
            if line.now >= hello_at and line.flows:
                hello_at, wait = line.now + wait, 2 * wait
                hello = b"\x16\xfe\xfd" + bytes(166)
                sent += [] if random.random() < lost else line.deliver(hello)
            for one in sent:
                arrives = random.random() >= lost and random.random() >= lost
                if one.stun_kind == BINDING_REQUEST and arrives and line.probes:
                    line.deliver(build_probe_answer(one.data, CLIENT))
        proven += line.session.ice.selected is not None
    assert proven >= 11
