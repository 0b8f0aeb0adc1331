"""An ICE restart as the transceiver lives it: two ufrags, then one, and media all the while."""

import pytest

from turnout.transceiver.credentials import Credentials
from turnout.wire.stun import BINDING_REQUEST, BINDING_SUCCESS, open_stun, parse_stun
from unit.transceiver.peer import (
    CLIENT,
    CREDENTIALS,
    OTHER,
    Line,
    build_check,
    build_probe_answer,
)

NEW = Credentials("newserver", "n" * 24, "newclient", "m" * 24)
OLD_UFRAG = CREDENTIALS.local_ufrag


def new_check(*, nominate: bool = True) -> bytes:
    return build_check(ufrag=NEW.local_ufrag, pwd=NEW.local_pwd, nominate=nominate)


@pytest.fixture
def line() -> Line:
    """A call that goes on, with a restart begun."""
    connected = Line()
    connected.connect()
    assert connected.session.ice.restart(NEW) is None
    return connected


def test_restart_that_is_only_begun_changes_nothing(line: Line) -> None:
    assert [one.payload for one in line.send_rtp(1, payload=b"on")] == [b"on"]
    assert line.deliver(build_check())[-1].stun_kind == BINDING_SUCCESS
    assert line.session.ice.is_restarting
    assert line.session.describe(line.now)["ufrag"] == NEW.local_ufrag
    assert line.retired == []


def test_check_with_the_new_ufrag_is_answered_with_the_new_password(line: Line) -> None:
    probe, success = line.deliver(new_check(nominate=False), OTHER)
    assert open_stun(parse_stun(success.data)).check_message_integrity(NEW.local_pwd.encode())
    asked = open_stun(parse_stun(probe.data))
    assert asked.attributes["USERNAME"] == "newclient:newserver"
    assert asked.check_message_integrity(NEW.remote_pwd.encode())


def test_check_with_the_new_ufrag_and_the_old_password_is_nothing(line: Line) -> None:
    assert line.deliver(build_check(ufrag=NEW.local_ufrag), OTHER) == []
    assert line.retired == []


def test_restart_is_done_when_the_new_flow_is_nominated_and_proven(line: Line) -> None:
    probe, _ = line.deliver(new_check(nominate=False), OTHER)
    line.deliver(build_probe_answer(probe.data, OTHER, pwd=NEW.remote_pwd), OTHER)
    assert line.retired == []
    assert [one.address for one in line.deliver_rtp(1)] == [CLIENT]
    line.deliver(new_check(), OTHER)
    assert line.retired == [OLD_UFRAG]
    assert list(line.session.ice.credentials) == [NEW.local_ufrag]
    assert [one.address for one in line.deliver_rtp(2)] == [OTHER]
    assert not line.session.ice.is_restarting


def test_restart_on_the_same_address_is_done_at_once(line: Line) -> None:
    line.deliver(new_check())
    assert line.retired == [OLD_UFRAG]
    assert [one.payload for one in line.send_rtp(1, payload=b"on")] == [b"on"]


def test_restart_nominated_but_not_proven_keeps_the_old(line: Line) -> None:
    line.deliver(new_check(), OTHER)
    line.pass_time(4)
    assert line.retired == []
    assert line.session.ice.selected is line.flows[CLIENT]
    assert OLD_UFRAG in line.session.ice.credentials


def test_old_flow_is_still_probed_with_the_old_credentials(line: Line) -> None:
    line.deliver(new_check(nominate=False), OTHER)
    silent = [one for one in line.pass_time(5.5) if one.address == CLIENT]
    assert [one.stun_kind for one in silent][:1] == [BINDING_REQUEST]
    asked = open_stun(parse_stun(silent[0].data))
    assert asked.attributes["USERNAME"] == "clientufrag:serverufrag"


def test_second_restart_gives_up_the_first_and_keeps_the_call(line: Line) -> None:
    again = Credentials("again", "a" * 24, "clientagain", "b" * 24)
    assert line.session.ice.restart(again) == NEW.local_ufrag
    assert list(line.session.ice.credentials) == [OLD_UFRAG, "again"]
    assert line.deliver(build_check())[-1].stun_kind == BINDING_SUCCESS
    line.deliver(build_check(ufrag="again", pwd="a" * 24))
    assert line.retired == [OLD_UFRAG]


def test_session_that_ends_in_a_restart_leaves_nothing(line: Line) -> None:
    line.deliver(new_check(nominate=False), OTHER)
    line.session.end("deleted", line.now)
    assert (line.flows, line.probes, line.ended) == ({}, {}, ["deleted"])
