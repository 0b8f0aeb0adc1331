"""Drains: when they end, whom they end, and what the next agent makes of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turnout.draining import Drains
from turnout.errors import OwnerDraining, SignalingError, SteeringError, UnknownOwner
from turnout.signaling.ended import EndedSessions
from turnout.signaling.offer_taker import UpstreamAnswer
from turnout.steering import Session, Steering
from unit.counted_maps import CountedMaps
from unit.steering_parts import PWD, SETTINGS, session_entry, transceiver, ufrag_hash

LONG_AFTER = 1e9
DRAINING, ACTIVE = 2, 1


class Taker:
    """A media server that is told of ends; `when_deleting` says what happens meanwhile."""

    weight = 1

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self._acts: list[Any] = []

    def when_deleting(self, act: Callable[[str], None]) -> None:
        self._acts.append(act)

    async def post_offer(self, offer: str, session_id: str) -> UpstreamAnswer:
        raise AssertionError(f"not asked for here, {session_id}: {offer}")

    async def restart(self, session_id: str, fragment: str) -> str | None:
        raise AssertionError(f"not asked for here, {session_id}: {fragment}")

    async def trickle(self, session_id: str, fragment: str) -> None:
        raise AssertionError(f"not asked for here, {session_id}: {fragment}")

    async def delete(self, location: str) -> None:
        session_id = location.removeprefix("/whip/")
        self.deleted.append(session_id)
        for act in self._acts:
            act(session_id)


class Parts:
    """Steering over maps in memory, a transceiver in slot 0, and drains of both."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "drains.json"
        self.maps = CountedMaps()
        self.taker = Taker()
        self.ended = EndedSessions()
        self.start_agent()
        transceiver(self.steering, 0)

    def start_agent(self) -> None:
        """Begin anew with what maps and file hold."""
        self.steering = Steering(self.maps.as_maps(), SETTINGS)
        self.drains = Drains(self.steering, {0: self.taker}, self.ended, self.file)

    def add(self, ufrag: str, slot: int = 0, kind: str = "upstream") -> Session:
        return self.steering.add_session(ufrag, PWD, slot, kind=kind)

    def states(self, slot: int = 0) -> tuple[str, int]:
        """Return an owner's state as steering and as the kernel's map have it."""
        return self.steering.owners[slot].state, self.maps.owners.records[slot]["state"]


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


def test_start_refuses_the_new_and_keeps_the_old(parts: Parts) -> None:
    session = parts.add("first")

    drain = parts.drains.start(0, 600)

    assert (drain["sessions"], drain["ended"], drain["sessions_ended"]) == (1, "", 0)
    assert parts.states() == ("draining", DRAINING)
    with pytest.raises(OwnerDraining, match="owner 0"):
        parts.add("second")
    parts.steering.add_restart(session.id, "again", PWD)
    assert parts.steering.sessions[session.id].newest_ufrag == "again"


def test_start_of_an_empty_owner_is_done_at_once(parts: Parts) -> None:
    assert parts.drains.start(0, 600)["ended"] == "empty"
    assert parts.drains.ended == {"empty": 1}
    assert parts.states() == ("draining", DRAINING)


def test_start_of_nobody_or_of_one_that_is_down_is_refused(parts: Parts) -> None:
    with pytest.raises(UnknownOwner):
        parts.drains.start(7, 600)
    parts.steering.set_owner_state(0, "down")
    with pytest.raises(SteeringError, match="owner 0: it is down"):
        parts.drains.start(0, 600)
    assert parts.drains.describe() == []


async def test_step_ends_the_drain_with_the_last_session(parts: Parts) -> None:
    first, second = parts.add("first"), parts.add("second")
    parts.drains.start(0, 600)

    parts.steering.remove_session(first.id)
    await parts.drains.step(time.monotonic())
    (going,) = parts.drains.describe()
    parts.steering.remove_session(second.id)
    await parts.drains.step(time.monotonic())
    (done,) = parts.drains.describe()

    assert (going["ended"], going["sessions"]) == ("", 1)
    assert (done["ended"], done["sessions"], done["seconds_left"]) == ("empty", 0, 0)
    assert parts.taker.deleted == []


async def test_step_past_the_deadline_ends_what_is_left_and_counts_it(parts: Parts) -> None:
    ours, api = parts.add("first"), parts.add("second", kind="api")
    parts.drains.start(0, 60)

    await parts.drains.step(time.monotonic())
    assert len(parts.steering.sessions) == 2
    await parts.drains.step(LONG_AFTER)

    assert dict(parts.steering.sessions) == {}
    assert parts.taker.deleted == [ours.id]
    (drain,) = parts.drains.describe()
    assert (drain["ended"], drain["sessions_ended"]) == ("deadline", 2)
    assert parts.drains.sessions_ended == 2
    for session in (ours, api):
        assert "drained" in (parts.ended.why(session.id) or "")


async def test_step_past_the_deadline_the_media_server_s_own_word_comes_in_between(
    parts: Parts,
) -> None:
    session = parts.add("first")
    parts.drains.start(0, 60)

    def tell(session_id: str) -> None:
        parts.steering.remove_session(session_id)
        parts.ended.remember(session_id, "deleted")

    parts.taker.when_deleting(tell)
    await parts.drains.step(LONG_AFTER)

    assert "drained" in (parts.ended.why(session.id) or "")
    assert parts.drains.describe()[0]["sessions_ended"] == 1


async def test_step_past_the_deadline_what_is_handed_over_meanwhile_lives_on(parts: Parts) -> None:
    session = parts.add("moving")
    parts.maps.settings.update(0, {**(parts.maps.settings.lookup(0) or {}), "vips": []})
    transceiver(parts.steering, 1)
    parts.drains.start(0, 60)

    def hand_over(session_id: str) -> None:
        parts.steering.hand_over(session_id, 1, (), lambda _hash, _flow: False)

    parts.taker.when_deleting(hand_over)
    await parts.drains.step(LONG_AFTER)

    assert parts.steering.sessions[session.id].slot == 1
    assert parts.ended.why(session.id) is None
    assert parts.drains.describe()[0]["sessions_ended"] == 0


async def test_step_past_the_deadline_a_media_server_that_fails_is_no_obstacle(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    parts.add("first")
    parts.drains.start(0, 60)

    def fail(_session_id: str) -> None:
        raise SignalingError(503, "Transceiver down", "it hangs")

    parts.taker.when_deleting(fail)
    await parts.drains.step(LONG_AFTER)

    assert dict(parts.steering.sessions) == {}
    assert "it hangs" in caplog.text


async def test_step_drain_that_is_lifted_while_sessions_end_spares_the_rest(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnout.draining.ENDED_AT_ONCE", 1)
    for number in range(3):
        parts.add(f"ufrag{number}")
    parts.drains.start(0, 60)

    def lift(_session_id: str) -> None:
        parts.drains.lift(0)

    parts.taker.when_deleting(lift)
    await parts.drains.step(LONG_AFTER)

    assert len(parts.steering.sessions) == 2
    assert parts.drains.sessions_ended == 1
    assert parts.drains.describe() == []


def test_lift_makes_the_owner_active_again(parts: Parts) -> None:
    parts.add("first")
    parts.drains.start(0, 600)

    drain = parts.drains.lift(0)

    assert (drain["ended"], drain["sessions"]) == ("undrained", 1)
    assert parts.states() == ("active", ACTIVE)
    assert parts.add("second").slot == 0
    with pytest.raises(SteeringError, match="nobody drains it"):
        parts.drains.lift(0)
    with pytest.raises(UnknownOwner):
        parts.drains.lift(7)


def test_lift_leaves_a_media_server_that_is_away_draining(parts: Parts) -> None:
    """An [[upstream]] whose HTTP is away is draining on its own account."""
    parts.drains.start(0, 600)
    parts.steering.set_owner_state(0, "draining")
    parts.drains.lift(0)
    assert parts.states() == ("draining", DRAINING)

    parts.drains.start(0, 600)
    parts.steering.set_owner_state(0, "active")
    assert parts.states() == ("draining", DRAINING)
    parts.drains.lift(0)
    assert parts.states() == ("active", ACTIVE)


async def test_step_process_that_comes_back_in_the_slot_is_not_drained(parts: Parts) -> None:
    parts.add("first")
    parts.drains.start(0, 600)

    transceiver(parts.steering, 0, incarnation=8)
    assert parts.add("second").slot == 0
    await parts.drains.step(LONG_AFTER)

    assert parts.drains.describe() == []
    assert parts.drains.ended == {"owner_gone": 1}
    assert len(parts.steering.sessions) == 1
    assert parts.states() == ("active", ACTIVE)


async def test_next_agent_goes_on_with_the_drain(parts: Parts) -> None:
    session = parts.add("first")
    parts.drains.start(0, 600)
    (before,) = parts.drains.describe()

    parts.start_agent()

    (after,) = parts.drains.describe()
    assert (after["sessions"], after["ended"]) == (1, "")
    assert before["seconds_left"] - 60 < after["seconds_left"] <= before["seconds_left"]
    # Its sessions are unconfirmed: neither empty nor to be ended before its owner has spoken.
    await parts.drains.step(time.monotonic())
    await parts.drains.step(LONG_AFTER)
    assert parts.drains.describe()[0]["ended"] == ""
    transceiver(parts.steering, 0)
    parts.steering.reconcile_owner(0, [(session.id, "first", PWD)])
    assert parts.states() == ("draining", DRAINING)
    await parts.drains.step(LONG_AFTER)
    assert parts.drains.describe()[0]["sessions_ended"] == 1


def test_next_agent_does_not_drain_what_was_lifted_or_came_back(parts: Parts) -> None:
    parts.steering.register_owner(20005)
    parts.drains.start(0, 600)
    parts.drains.start(2, 600)
    parts.drains.lift(2)
    transceiver(parts.steering, 0, incarnation=8)

    parts.start_agent()

    assert parts.drains.describe() == []
    assert parts.add("first", slot=2, kind="api").slot == 2


async def test_deadline_ends_what_nobody_confirmed_to_a_registered_owner(parts: Parts) -> None:
    parts.steering.register_owner(20005)
    parts.maps.sessions.update(ufrag_hash("old"), session_entry(0xABC, slot=2))
    parts.start_agent()
    assert parts.drains.start(2, 0)["sessions"] == 1

    await parts.drains.step(LONG_AFTER)

    assert parts.drains.describe()[0]["sessions_ended"] == 1
    assert parts.maps.sessions.records == {}


_WRONG_KIND = '[{"slot": 0, "generation": 1, "deadline_s": "soon"}]'


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"slot": 0}]', '{"a": 1}', _WRONG_KIND])
def test_file_that_cannot_be_read_drains_nobody(
    parts: Parts, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    parts.file.write_text(text)

    parts.start_agent()

    assert parts.drains.describe() == []
    assert "drains.json cannot be read" in caplog.text
