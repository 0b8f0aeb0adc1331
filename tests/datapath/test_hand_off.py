"""What `follow` moves to a session's new owner, and what it leaves alone."""

import os

import packets as p
import pytest

from datapath import (
    GENERATION,
    OTHER_SESSION,
    OTHER_SLOT,
    SESSION,
    SLOT,
    Datapath,
)
from turnout.kernel.handoff import FlowToMove, FollowProgram

CHECK = p.ip4(p.check("srvr:c"))
HANDED = FlowToMove(p.CLIENT4, p.CLIENT_PORT, 0, SLOT, GENERATION)


def follow(datapath: Datapath, flow: FlowToMove = HANDED) -> bool:
    with FollowProgram(os.dup(datapath.follow)) as program:
        return program.run(datapath.session_key("srvr"), flow)


@pytest.fixture
def handed(datapath: Datapath) -> Datapath:
    """A call that was talking, and whose session has a new owner since."""
    datapath.add_session("srvr", SESSION, SLOT)
    datapath.receive(bytes(CHECK))
    datapath.send(bytes(p.from_lane(p.RTP)))
    datapath.add_session("srvr", SESSION, OTHER_SLOT)
    return datapath


def test_flow_goes_to_the_new_owner_at_once(handed: Datapath) -> None:
    before = handed.flow()
    assert before is not None
    media = p.ip4(p.RTP)
    assert handed.receive(bytes(media)).frame == p.to_lane(media, p.LANE)

    assert follow(handed)

    assert handed.receive(bytes(media)).frame == p.to_lane(media, p.OTHER_LANE)
    after = handed.flow()
    assert after is not None
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"owner"}  # proof, age and session are what they were
    assert after["owner"]["slot"] == OTHER_SLOT


def test_second_time_there_is_nothing_to_move(handed: Datapath) -> None:
    assert follow(handed)
    assert not follow(handed)


def test_healed_flow_of_the_old_owner_goes_too(datapath: Datapath) -> None:
    datapath.add_session("srvr", SESSION, OTHER_SLOT)
    datapath.add_flow(session=0)
    assert follow(datapath)
    flow = datapath.flow()
    assert flow is not None
    assert (flow["owner"]["slot"], flow["session_id"], flow["proven"]) == (OTHER_SLOT, 0, True)


def test_flow_that_is_another_sessions_by_now_stays(handed: Datapath) -> None:
    handed.add_session("other", OTHER_SESSION, SLOT)
    flow = handed.flow()
    assert flow is not None
    handed.maps.flow_details.update(
        flow["place"],
        {"key": flow["key"], "session_id": OTHER_SESSION, "ufrag_hash": 1},
    )
    assert not follow(handed)


@pytest.mark.parametrize(
    "other",
    [
        FlowToMove(p.CLIENT4, p.CLIENT_PORT, 0, SLOT, GENERATION + 1),
        FlowToMove(p.CLIENT4, p.CLIENT_PORT, 0, OTHER_SLOT, GENERATION),
        FlowToMove(p.CLIENT4, p.CLIENT_PORT, 1, SLOT, GENERATION),
        FlowToMove(p.CLIENT4, p.CLIENT_PORT + 1, 0, SLOT, GENERATION),
    ],
    ids=["another generation", "another owner", "another VIP", "another port"],
)
def test_only_the_flow_that_was_named_goes(handed: Datapath, other: FlowToMove) -> None:
    assert not follow(handed, other)
    flow = handed.flow()
    assert flow is not None
    assert flow["owner"]["slot"] == SLOT


def test_session_that_has_ended_takes_nothing(handed: Datapath) -> None:
    handed.maps.sessions.delete(handed.session_key("srvr"))
    assert not follow(handed)
