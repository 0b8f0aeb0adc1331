"""The fuzzer's own parts: sequences come again by their seed, and are made short."""

from collections import Counter

from fuzz.generate import generate, recordings
from fuzz.minimise import minimise
from fuzz.steps import Clock, Receive, Send, SetSession, SetSettings, Step
from reference import stun


def test_same_seed_makes_the_same_steps_and_another_others() -> None:
    steps = list(generate("a", packets=100))
    assert steps == list(generate("a", packets=100))
    assert steps != list(generate("b", packets=100))


def test_sequence_begins_with_settings_and_holds_every_kind_of_step() -> None:
    steps = [step for seed in range(4) for step in generate(str(seed), packets=800)]
    assert isinstance(steps[0], SetSettings)
    assert {step.__class__.__name__ for step in steps} == {
        *("Receive", "Send", "Sweep", "Clock", "SetSettings"),
        *("SetOwner", "SetLane", "SetSession", "GiveSession", "EndSession"),
    }


def test_recorded_checks_are_genuine_and_mutated_ones_are_not() -> None:
    ufrags, datagrams = recordings()
    passwords = {ufrag.encode(): password.encode() for ufrag, password in ufrags}
    checks = [datagram for datagram in datagrams if datagram[:2] == b"\0\1"]
    assert len(checks) >= 6
    for check in checks:
        message = stun.cut_message(check)
        username = stun.find_username(message)
        assert username is not None
        password = passwords[stun.server_ufrag(username)]
        assert stun.is_genuine(message, password)
        assert not stun.is_genuine(message, password + b"x")
        for at in (0, 8, 24, len(message) - 20):
            bent = bytearray(message)
            bent[at] ^= 1
            assert not stun.is_genuine(bytes(bent), password)


def test_recordings_have_every_class_of_packet_of_both_clients() -> None:
    ufrags, datagrams = recordings()
    assert len(ufrags) == 2
    first = Counter(datagram[0] >> 4 for datagram in datagrams)
    assert first[0] >= 6  # STUN
    assert first[1] >= 4  # DTLS
    assert first[8] >= 8  # RTP, RTCP


def test_minimise_leaves_what_is_needed_and_the_first_settings() -> None:
    steps = list(generate("long", packets=400))
    needed = [
        next(step for step in steps[50:] if isinstance(step, Send)),
        next(step for step in reversed(steps) if isinstance(step, Receive)),
    ]

    def differs(some: list[Step]) -> bool:
        return all(step in some for step in needed)

    short = minimise(steps, differs)

    assert short[0] == steps[0]
    assert len(short) == 3
    assert differs(short)
    assert not any(isinstance(step, Clock | SetSession) for step in short)
