"""Steering: what stands in the maps after owners and sessions come, go and die."""

import pytest

from turnout.errors import SteeringError, UfragInUse, UnknownOwner, UnknownSession
from turnout.settings import Limits
from turnout.steering import Steering
from unit.counted_maps import CountedMaps, SmallMap
from unit.steering_parts import (
    PWD,
    SETTINGS,
    session_entry,
    transceiver,
    ufrag_hash,
)


@pytest.fixture
def maps() -> CountedMaps:
    return CountedMaps()


@pytest.fixture
def steering(maps: CountedMaps) -> Steering:
    return Steering(maps.as_maps(), SETTINGS)


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


def test_add_session_writes_hash_id_and_owner(maps: CountedMaps, steering: Steering) -> None:
    transceiver(steering, 0)

    session = steering.add_session("ufrag", PWD, 0, session_id="00000000000000ff" + "a" * 16)

    assert maps.sessions.records == {ufrag_hash("ufrag"): session_entry(0xFF, 0)}
    assert steering.sessions[session.id] == session
    assert steering.owner_sessions(0) == [session]


def test_add_session_minted_id_is_32_hex_digits(steering: Steering) -> None:
    transceiver(steering, 0)

    session = steering.add_session("ufrag", PWD, 0)

    assert len(session.id) == 32
    assert int(session.id[:16], 16) != 0


def test_add_session_live_ufrag_raises_and_leaves_the_living(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    transceiver(steering, 1)
    steering.add_session("ufrag", PWD, 0)
    before = dict(maps.sessions.records)

    with pytest.raises(UfragInUse, match="'ufrag'"):
        steering.add_session("ufrag", PWD, 1)

    assert maps.sessions.records == before


def test_add_session_the_very_same_is_answered_again(steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)

    assert steering.add_session("ufrag", PWD, 0, session_id=session.id) == session


def test_add_session_known_id_with_another_ufrag_raises(steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)

    with pytest.raises(SteeringError, match="exists with another ufrag"):
        steering.add_session("other", PWD, 0, session_id=session.id)


def test_add_session_unknown_owner_raises(steering: Steering) -> None:
    with pytest.raises(UnknownOwner):
        steering.add_session("ufrag", PWD, 0)


def test_add_session_full_map_raises_and_keeps_nothing(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    fill_sessions(maps)

    with pytest.raises(SteeringError, match="does not take it"):
        steering.add_session("ufrag", PWD, 0)

    assert steering.sessions == {}


def test_add_session_over_the_limit_raises_and_counts_until_one_has_ended(
    steering: Steering,
) -> None:
    steering.follow_settings(SETTINGS.replace(limits=Limits(max_sessions=2)))
    transceiver(steering, 0)
    first = steering.add_session("first", PWD, 0)
    steering.add_session("second", PWD, 0)

    with pytest.raises(SteeringError, match="has 2 sessions, which is all it may have"):
        steering.add_session("third", PWD, 0)
    assert (len(steering.sessions), steering.sessions_refused) == (2, 1)

    steering.add_restart(first.id, "again", PWD)
    steering.remove_session(first.id)
    steering.add_session("third", PWD, 0)


def test_add_session_that_claims_what_an_earlier_agent_left_is_not_over_the_limit(
    maps: CountedMaps, steering: Steering
) -> None:
    steering.register_owner(20005)
    steering.add_session("ufrag", PWD, 2)

    again = Steering(maps.as_maps(), SETTINGS.replace(limits=Limits(max_sessions=1)))

    with pytest.raises(SteeringError, match="all it may have"):
        again.add_session("other", PWD, 2)
    assert again.add_session("ufrag", PWD, 2).ufrag == "ufrag"


def test_put_keeps_what_the_kernel_wrote_of_the_same_session(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    session = steering.add_session("old", PWD, 0)
    written = {"check_tick": 9, "checks": 3, "failures": 2, "flows": [5, *[0] * 15]}
    maps.sessions.update(ufrag_hash("old"), {**maps.session_of("old"), **written})  # type: ignore[dict-item]

    steering.add_restart(session.id, "new", "q" * 24)

    kernel_id = int(session.id[:16], 16)
    assert maps.session_of("old") == {**session_entry(kernel_id, 0), **written}
    assert maps.session_of("new") == session_entry(kernel_id, 0, pwd="q" * 24)


def test_put_over_an_entry_of_another_session_keeps_nothing_of_it(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    maps.sessions.update(ufrag_hash("ufrag"), {"session_id": 5, "checks": 50})

    steering.add_session("ufrag", PWD, 0, session_id="00000000000000ff" + "a" * 16)

    assert maps.session_of("ufrag") == session_entry(0xFF, 0)


def fill_sessions(maps: CountedMaps) -> None:
    """Let the map take nothing new."""
    assert isinstance(maps.sessions, SmallMap)
    maps.sessions.max_entries = len(maps.sessions.records)


def test_add_restart_both_ufrags_lead_to_the_one_session(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    session = steering.add_session("old", PWD, 0)

    restarting = steering.add_restart(session.id, "new", PWD)

    assert restarting.ufrags == ("old", "new")
    assert restarting.newest_ufrag == "new"
    assert steering.sessions == {session.id: restarting}
    assert steering.owner_sessions(0) == [restarting]
    assert maps.session_of("old") == maps.session_of("new") is not None


def test_finish_restart_retires_the_old_ufrag_alone(maps: CountedMaps, steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("old", PWD, 0)
    steering.add_restart(session.id, "new", "q" * 24)

    done = steering.finish_restart(session.id, "new")

    assert (done.ufrags, done.pwd) == (("new",), "q" * 24)
    assert maps.session_of("old") is None
    assert maps.session_of("new") is not None
    assert steering.finish_restart(session.id, "new") == done
    steering.add_session("old", PWD, 0)


def test_finish_restart_of_a_ufrag_nobody_began_with_changes_nothing(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    session = steering.add_session("old", PWD, 0)
    assert steering.finish_restart(session.id, "else") == session
    assert maps.session_of("old") is not None


def test_add_restart_again_gives_up_the_one_before(maps: CountedMaps, steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("old", PWD, 0)
    steering.add_restart(session.id, "first", PWD)
    restarting = steering.add_restart(session.id, "second", PWD)
    assert steering.add_restart(session.id, "second", PWD) == restarting
    assert restarting.ufrags == ("old", "second")
    assert maps.session_of("first") is None
    assert len(maps.sessions.records) == 2


def test_add_restart_that_fails_keeps_the_session(maps: CountedMaps, steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("old", PWD, 0)
    other = steering.add_session("taken", PWD, 0)
    with pytest.raises(UfragInUse, match=other.id):
        steering.add_restart(session.id, "taken", PWD)
    with pytest.raises(UfragInUse, match=session.id):
        steering.add_restart(session.id, "old", PWD)
    fill_sessions(maps)
    with pytest.raises(SteeringError, match="does not take it"):
        steering.add_restart(session.id, "new", PWD)
    with pytest.raises(UnknownSession):
        steering.add_restart("ab" * 16, "new", PWD)
    assert steering.sessions[session.id] == session
    assert len(maps.sessions.records) == 2


def test_remove_session_in_a_restart_takes_both_entries(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    session = steering.add_session("old", PWD, 0)
    steering.add_restart(session.id, "new", PWD)
    steering.remove_session(session.id)
    assert maps.sessions.records == {}


def test_reconcile_owner_session_that_stands_twice_is_in_a_restart(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    session_id = "ab" * 16
    steering.reconcile_owner(0, [(session_id, "old", PWD), (session_id, "new", PWD)])
    assert steering.sessions[session_id].ufrags == ("old", "new")

    # The next hello: the client used the new one meanwhile.
    steering.reconcile_owner(0, [(session_id, "new", PWD)])
    assert steering.sessions[session_id].ufrags == ("new",)
    assert maps.session_of("old") is None


def test_restart_of_an_earlier_agent_is_confirmed_with_both_ufrags(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    session = steering.add_session("old", PWD, 0)
    steering.add_restart(session.id, "new", PWD)

    adopting = Steering(maps.as_maps(), SETTINGS)
    assert adopting.unconfirmed == 2
    adopting.reconcile_owner(0, [(session.id, "old", PWD), (session.id, "new", PWD)])

    assert adopting.unconfirmed == 0
    assert adopting.sessions[session.id].ufrags == ("old", "new")


def test_remove_session_takes_the_map_entry_and_frees_the_ufrag(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)

    assert steering.remove_session(session.id) == session

    assert maps.sessions.records == {}
    assert steering.add_session("ufrag", PWD, 0).id != session.id


def test_remove_session_twice_raises(steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)
    steering.remove_session(session.id)

    with pytest.raises(UnknownSession, match=session.id):
        steering.remove_session(session.id)


def test_reconcile_owner_leaves_exactly_what_the_owner_has(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    transceiver(steering, 1)
    kept = steering.add_session("kept", PWD, 0, kind="upstream")
    gone = steering.add_session("gone", PWD, 0, kind="upstream")
    others = steering.add_session("others", PWD, 1, kind="upstream")

    steering.reconcile_owner(0, [(kept.id, "kept", PWD), ("1" * 32, "unheard", PWD)])

    assert set(steering.sessions) == {kept.id, "1" * 32, others.id}
    assert gone.id not in steering.sessions
    assert set(maps.sessions.records) == {
        ufrag_hash("kept"),
        ufrag_hash("unheard"),
        ufrag_hash("others"),
    }


def test_reconcile_owner_ufrag_of_another_owner_stays_there(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    transceiver(steering, 1)
    live = steering.add_session("ufrag", PWD, 0)

    steering.reconcile_owner(1, [("1" * 32, "ufrag", PWD)])

    assert maps.sessions.records[ufrag_hash("ufrag")]["owner"]["slot"] == 0
    assert list(steering.sessions) == [live.id]


def test_reconcile_owner_new_password_is_taken(steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)

    steering.reconcile_owner(0, [(session.id, "ufrag", "q" * 24)])

    assert steering.sessions[session.id].pwd == "q" * 24
