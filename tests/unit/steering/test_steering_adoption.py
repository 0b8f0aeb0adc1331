"""Steering: what a new agent makes of what the maps hold from the one before."""

import pytest

from turnout.errors import SteeringError, UfragInUse, UnknownSession
from turnout.settings import Settings
from turnout.steering import Steering
from unit.counted_maps import CountedMaps
from unit.steering_parts import (
    PWD,
    SETTINGS,
    session_entry,
    transceiver,
    ufrag_hash,
)


def test_restart_adopts_owners_with_generation_and_state(maps: CountedMaps) -> None:
    before = Steering(maps.as_maps(), SETTINGS)
    transceiver(before, 0, incarnation=7)
    transceiver(before, 0, incarnation=8)
    before.register_owner(20005)

    after = Steering(maps.as_maps(), SETTINGS)

    assert dict(after.owners) == dict(before.owners)


def test_restart_unconfirmed_sessions_are_steered_until_the_hello(maps: CountedMaps) -> None:
    before = Steering(maps.as_maps(), SETTINGS)
    transceiver(before, 0)
    alive = before.add_session("alive", PWD, 0, kind="upstream")
    before.add_session("ended", PWD, 0, kind="upstream")

    after = Steering(maps.as_maps(), SETTINGS)
    assert after.unconfirmed == 2
    assert len(maps.sessions.records) == 2
    transceiver(after, 0)
    after.reconcile_owner(0, [(alive.id, "alive", PWD)])

    assert after.unconfirmed == 0
    assert list(maps.sessions.records) == [ufrag_hash("alive")]
    assert after.sessions[alive.id] == alive


def test_restart_transceiver_reborn_meanwhile_loses_its_sessions(maps: CountedMaps) -> None:
    before = Steering(maps.as_maps(), SETTINGS)
    transceiver(before, 0, incarnation=7)
    before.add_session("ufrag", PWD, 0)

    after = Steering(maps.as_maps(), SETTINGS)
    transceiver(after, 0, incarnation=8)

    assert after.owners[0].generation == 2
    assert maps.sessions.records == {}


def test_restart_registered_owner_claims_its_session_and_flows_go_on(maps: CountedMaps) -> None:
    before = Steering(maps.as_maps(), SETTINGS)
    slot = before.register_owner(20005).slot
    session = before.add_session("ufrag", PWD, slot)

    after = Steering(maps.as_maps(), SETTINGS)
    again = after.add_session("ufrag", PWD, slot)

    assert again.id[:16] == session.id[:16]
    assert maps.sessions.records[ufrag_hash("ufrag")]["session_id"] == int(session.id[:16], 16)
    assert after.unconfirmed == 0


def test_restart_unconfirmed_ufrag_of_another_owner_is_in_use(maps: CountedMaps) -> None:
    before = Steering(maps.as_maps(), SETTINGS)
    slot = before.register_owner(20005).slot
    before.add_session("ufrag", PWD, slot)

    after = Steering(maps.as_maps(), SETTINGS)
    transceiver(after, 0)

    with pytest.raises(UfragInUse, match=f"owner {slot}"):
        after.add_session("ufrag", PWD, 0)


@pytest.mark.parametrize(
    "changed",
    [
        Settings(transceivers=1, lane_first=20000, lane_last=20009),
        Settings(transceivers=2, lane_first=21000, lane_last=21009),
    ],
)
def test_restart_owner_without_place_in_the_settings_goes(
    maps: CountedMaps, changed: Settings
) -> None:
    before = Steering(maps.as_maps(), SETTINGS)
    transceiver(before, 1)
    before.add_session("ufrag", PWD, 1)

    after = Steering(maps.as_maps(), changed)

    assert 1 not in after.owners
    assert maps.lanes.records[20001]["generation"] == 0
    assert maps.owners.records[1]["generation"] == 1
    assert maps.sessions.records == {}


def test_restart_owner_without_its_lane_gets_it(maps: CountedMaps) -> None:
    """The agent before died between the two writes."""
    before = Steering(maps.as_maps(), SETTINGS)
    owner = before.register_owner(20005)
    maps.lanes.records.clear()

    Steering(maps.as_maps(), SETTINGS)

    assert maps.lanes.records[20005] == {"slot": owner.slot, "generation": owner.generation}


def test_restart_unconfirmed_session_can_be_removed_by_its_id(maps: CountedMaps) -> None:
    before = Steering(maps.as_maps(), SETTINGS)
    session = before.add_session("ufrag", PWD, before.register_owner(20005).slot)

    after = Steering(maps.as_maps(), SETTINGS)
    after.remove_session(session.id)

    assert maps.sessions.records == {}
    with pytest.raises(UnknownSession):
        after.remove_session(session.id)


def test_restart_session_of_a_past_generation_goes(maps: CountedMaps) -> None:
    before = Steering(maps.as_maps(), SETTINGS)
    transceiver(before, 0)
    maps.sessions.update(5, session_entry(1, 0, generation=200))

    Steering(maps.as_maps(), SETTINGS)

    assert maps.sessions.records == {}


def test_start_without_settings_in_the_kernel_raises() -> None:
    maps = CountedMaps()
    maps.settings.records.clear()

    with pytest.raises(SteeringError, match="settings map is empty"):
        Steering(maps.as_maps(), SETTINGS)
