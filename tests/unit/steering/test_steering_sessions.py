"""Steering: sessions are added, refused, removed, named by a hello; what `sessions` says then."""

import pytest

from turnout.errors import SteeringError, UfragInUse, UnknownOwner, UnknownSession
from turnout.settings import Limits
from turnout.steering import Steering
from unit.counted_maps import CountedMaps
from unit.steering_parts import PWD, SETTINGS, fill_sessions, session_entry, transceiver, ufrag_hash


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
