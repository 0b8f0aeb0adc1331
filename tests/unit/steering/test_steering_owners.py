"""Steering: owners come, go and come back, and what `owners` and `lanes` say then."""

import pytest

from turnout.errors import SteeringError, UnknownOwner
from turnout.steering import Steering
from unit.counted_maps import CountedMaps
from unit.steering_parts import PWD, transceiver


def test_register_owner_new_transceiver_writes_owner_and_lane(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 1)

    assert maps.owners.records[1] == {
        "incarnation": 7,
        "lane": 20001,
        "generation": 1,
        "state": 1,
    }
    assert maps.lanes.records[20001] == {"slot": 1, "generation": 1}
    assert steering.owners[1].kind == "transceiver"


def test_register_owner_same_incarnation_keeps_generation_and_sessions(steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)
    steering.set_owner_state(0, "down")

    transceiver(steering, 0)

    assert steering.owners[0].generation == 1
    assert steering.owners[0].state == "active"
    assert session.id in steering.sessions


def test_register_owner_same_incarnation_draining_stays_draining(steering: Steering) -> None:
    transceiver(steering, 0)
    steering.set_owner_state(0, "draining")

    transceiver(steering, 0)

    assert steering.owners[0].state == "draining"


def test_register_owner_reborn_moves_generation_and_ends_sessions(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0, incarnation=7)
    session = steering.add_session("ufrag", PWD, 0)

    transceiver(steering, 0, incarnation=8)

    assert steering.owners[0].generation == 2
    assert maps.lanes.records[20000] == {"slot": 0, "generation": 2}
    assert session.id not in steering.sessions
    assert maps.sessions.records == {}


def test_register_owner_generation_past_255_skips_zero(
    maps: CountedMaps, steering: Steering
) -> None:
    for incarnation in range(1, 257):
        transceiver(steering, 0, incarnation=incarnation)

    # The 255th life has generation 255; the next must not be nobody's.
    assert maps.owners.records[0]["generation"] == 1


def test_register_owner_without_slot_takes_slots_past_the_transceivers(steering: Steering) -> None:
    first = steering.register_owner(20005)
    second = steering.register_owner(20006)

    assert (first.slot, second.slot) == (2, 3)
    assert (first.kind, first.incarnation) == ("registered", 0)


def test_register_owner_lane_registered_before_is_the_same_owner(steering: Steering) -> None:
    owner = steering.register_owner(20005)

    assert steering.register_owner(20005) == owner


@pytest.mark.parametrize(
    ("lane", "message"),
    [
        (19999, "lane 19999: must be within 20000-20009"),
        (20010, "lane 20010: must be within 20000-20009"),
        (20001, "lane 20001: 20000-20001 belong to this edge's own transceivers"),
    ],
)
def test_register_owner_lane_not_to_be_had_says_which_are(
    steering: Steering, lane: int, message: str
) -> None:
    with pytest.raises(SteeringError, match=message):
        steering.register_owner(lane)


def test_register_owner_lane_of_another_slot_is_refused(steering: Steering) -> None:
    steering.register_owner(20005)

    with pytest.raises(SteeringError, match="lane 20005: belongs to owner 2"):
        steering.register_owner(20005, slot=3)


def test_register_owner_on_another_lane_frees_the_old_one(
    maps: CountedMaps, steering: Steering
) -> None:
    steering.register_owner(20005, slot=4)
    steering.register_owner(20006, slot=4)

    assert maps.lanes.records[20005]["generation"] == 0
    assert maps.lanes.records[20006] == {"slot": 4, "generation": 2}


def test_remove_owner_ends_sessions_and_next_one_gets_another_generation(
    maps: CountedMaps, steering: Steering
) -> None:
    slot = steering.register_owner(20005).slot
    steering.add_session("ufrag", PWD, slot)

    steering.remove_owner(slot)

    assert maps.sessions.records == {}
    assert maps.lanes.records[20005] == {"slot": 0, "generation": 0}
    assert maps.owners.records[slot] == {
        "incarnation": 0,
        "lane": 0,
        "generation": 1,
        "state": 0,
    }
    assert steering.register_owner(20005).generation == 2


def test_remove_owner_unknown_slot_raises(steering: Steering) -> None:
    with pytest.raises(UnknownOwner, match="owner 9"):
        steering.remove_owner(9)


def test_set_owner_state_writes_the_map_and_keeps_sessions(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    steering.add_session("ufrag", PWD, 0)

    steering.set_owner_state(0, "down")

    assert maps.owners.records[0]["state"] == 0
    assert len(steering.sessions) == 1


def test_set_owner_state_unknown_word_raises(steering: Steering) -> None:
    transceiver(steering, 0)

    with pytest.raises(SteeringError, match="owner state 'asleep'"):
        steering.set_owner_state(0, "asleep")
