"""Steering: a session in an ICE restart has two ufrags for a while."""

import pytest

from turnout.errors import SteeringError, UfragInUse, UnknownSession
from turnout.steering import Steering
from unit.counted_maps import CountedMaps
from unit.steering_parts import PWD, SETTINGS, fill_sessions, transceiver


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
