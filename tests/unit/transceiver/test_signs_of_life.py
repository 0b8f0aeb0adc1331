"""What keeps a session alive, and what does not: clients of every habit, and captured checks."""

from dataclasses import dataclass

import pytest

from turnout.transceiver.ice import ELSEWHERE_SECONDS
from turnout.transceiver.probing import PROBE_SECONDS
from turnout.transceiver.session import LIVE_SECONDS
from turnout.wire.rtp import RtpPacket, build_rtp
from turnout.wire.stun import BINDING_REQUEST
from unit.transceiver.peer import (
    CLIENT,
    OTHER,
    PAYLOAD_TYPE,
    Line,
    Sent,
    build_check,
    build_probe_answer,
)

INDICATION = bytes.fromhex("001100002112a442") + bytes(12)


@dataclass
class Client:
    """A connected client with its habits; `address` is where its NAT puts it."""

    line: Line
    checks_every: float | None = None
    media_every: float | None = None
    answers: bool = True
    nominates: bool = True
    address: tuple[str, int] = CLIENT

    def __post_init__(self) -> None:
        self.line.connect()
        self._sequence = 0
        self._checks_at = self._media_at = self.line.now

    def live(self, seconds: float) -> list[Sent]:
        """Live for so long; returns what was sent to the client's address and is not STUN."""
        line = self.line
        heard = []
        end = line.now + seconds
        while line.now < end and not line.ended:
            sent = line.pass_time(0.1)
            if self.checks_every and line.now >= self._checks_at:
                self._checks_at = line.now + self.checks_every
                sent += line.deliver(build_check(nominate=self.nominates), self.address)
            if self.media_every and line.now >= self._media_at and self.address in line.flows:
                self._media_at = line.now + self.media_every
                sent += line.deliver(self.seal(), self.address)
            for one in sent:
                probe = one.stun_kind == BINDING_REQUEST and one.address == self.address
                if probe and self.answers and line.probes:
                    line.deliver(build_probe_answer(one.data, self.address), self.address)
            heard += [one for one in sent if one.address == self.address and one.is_rtp]
        return heard

    def seal(self) -> bytes:
        assert self.line.srtp is not None
        self._sequence += 1
        packet = RtpPacket(PAYLOAD_TYPE, False, self._sequence, self._sequence * 960, 7, b"abc")
        return self.line.srtp.tx.protect(build_rtp(packet))


HABITS = {
    "checks alone": {"checks_every": 2.5},
    "checks alone, rarely": {"checks_every": 25.0},
    "media alone": {"media_every": 0.4},
    "media alone, never answering": {"media_every": 0.4, "answers": False},
    "checks and media": {"checks_every": 4.5, "media_every": 0.4},
    "nothing but answers": {},
}


@pytest.mark.parametrize("habits", HABITS.values(), ids=HABITS)
def test_client_of_any_habit_keeps_its_session(habits: dict[str, float]) -> None:
    client = Client(Line(), **habits)  # type: ignore[arg-type]
    client.live(4 * LIVE_SECONDS)
    assert client.line.ended == []


def test_client_that_checks_is_probed_only_while_it_is_silent() -> None:
    client = Client(Line(), checks_every=2.5, media_every=0.4)
    before = client.line.counters.probes
    client.live(60)
    assert client.line.counters.probes == before


@pytest.mark.parametrize("address", [CLIENT, OTHER, ("198.51.100.77", 1)], ids=str)
def test_captured_check_does_not_keep_the_session_of_a_client_that_has_gone(
    address: tuple[str, int],
) -> None:
    line = Line()
    Client(line, checks_every=2.5, media_every=0.4).live(20)
    gone_at = line.now
    captured = build_check()
    while not line.ended:
        line.deliver(captured, address)
        line.pass_time(0.5)
        assert line.now < gone_at + LIVE_SECONDS + 1
    assert line.ended == ["timeout"]


def test_captured_media_does_not_keep_the_session() -> None:
    line = Line()
    client = Client(line)
    captured = client.seal()
    line.deliver(captured)
    gone_at = line.now
    while not line.ended:
        line.deliver(captured)
        line.pass_time(0.5)
        assert line.now < gone_at + LIVE_SECONDS + 1
    assert line.counters.drop__srtp_replay > 50


def test_captured_probe_answer_does_not_keep_the_session() -> None:
    line = Line()
    line.connect()
    (probe,) = line.pass_time(5)
    answer = build_probe_answer(probe.data, CLIENT)
    line.deliver(answer)
    assert line.probes == {}, "sent again it would find no probe, and be dropped as unsolicited"
    line.pass_time(LIVE_SECONDS + 1)
    assert line.ended == ["timeout"]


# --- a client that gets another address and never nominates again


def rebound(**habits: float) -> Client:
    client = Client(Line(), nominates=False, **habits)  # type: ignore[arg-type]
    client.live(10)
    client.address = OTHER
    return client


def test_client_that_rebinds_without_nominating_is_heard_and_hears_again() -> None:
    client = rebound(checks_every=2.5, media_every=0.02)
    client.live(2.6 + ELSEWHERE_SECONDS + 2.6 + PROBE_SECONDS)
    assert client.line.session.ice.selected is client.line.flows[OTHER]
    assert client.line.counters.followed_media == 1
    assert len(client.live(1)) >= 8


def test_flow_with_media_and_an_old_proof_is_probed_before_it_is_selected() -> None:
    client = Client(Line(), nominates=False, media_every=0.4)
    line = client.line
    line.prove(OTHER, nominate=False)
    client.live(8)  # media from the first address, while the proof of the other grows old
    client.address, client.answers = OTHER, False
    client.live(8)
    assert line.counters.followed_media >= 1
    assert line.session.ice.selected is line.flows[CLIENT]
    client.answers = True
    client.live(8)
    assert line.session.ice.selected is line.flows[OTHER]


def test_selected_flow_that_answers_keeps_the_media_whatever_comes_elsewhere() -> None:
    client = Client(Line(), nominates=False, checks_every=2.5)
    line = client.line
    line.prove(OTHER, nominate=False)
    for _ in range(60):
        client.live(0.5)
        line.deliver(client.seal(), OTHER)
    assert line.session.ice.selected is line.flows[CLIENT]
    assert line.counters.followed_media == 0


def test_media_from_a_flow_that_proves_nothing_is_not_followed() -> None:
    """Whoever gets hold of fresh packets and forges an address does not get the call."""
    client = Client(Line(), nominates=False)
    line = client.line
    line.deliver(build_check(), OTHER)
    client.answers = False
    for _ in range(50):
        line.deliver(client.seal(), OTHER)
        line.pass_time(0.5)
    assert line.session.ice.selected is line.flows[CLIENT]


def test_replayed_media_is_not_followed() -> None:
    client = Client(Line(), nominates=False)
    line = client.line
    captured = client.seal()
    line.deliver(captured)
    line.prove(OTHER, nominate=False)
    for _ in range(30):
        line.deliver(captured, OTHER)
        line.pass_time(0.5)
    assert line.session.ice.selected is line.flows[CLIENT]
    assert line.counters.followed_media == 0
