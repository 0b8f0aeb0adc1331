"""A short form of scripts/attack: some rows, briefly and gently; whose flows and what is lost.

How fast it was and how long anything took is not asserted: other tests run on the same machine.
"""

from collections.abc import Iterator

import pytest

from attack.campaign import Campaign, open_stage
from attack.judge import SESSION_FLOWS, excuse
from attack.rows import ROWS
from attack.stage import INSIDER_SESSIONS, Measured, Stage

pytestmark = pytest.mark.privileged

CAMPAIGN = Campaign(rate=5000, seconds=1.5, flows=8, calls=1, transceivers=1)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage(CAMPAIGN, print) as built:
        yield built


def attacked(stage: Stage, name: str) -> Measured:
    """Run a row, and hold it to what every row is held to."""
    row = ROWS[name]
    measured = stage.run(row, CAMPAIGN.rate, CAMPAIGN.seconds)
    assert measured.sent.frames > 1000
    assert measured.packets > CAMPAIGN.flows * 25
    assert measured.foreign.changed == ()
    assert measured.foreign.created == ()
    assert measured.lost <= sum(excuse(row, measured).values()), measured
    sent, lost, down = measured.calls
    assert sent > 0
    assert (lost, down) == (0, 0)
    came = measured.newcomers
    assert came.light > 0
    assert (came.light_failed, came.real_failed) == (0, 0), came.errors
    assert measured.adds_up
    if not row.delivered:
        assert not measured.arrivals.alien
    return measured


def test_attack_with_bad_integrity_makes_no_flow(stage: Stage) -> None:
    measured = attacked(stage, "bad-integrity")
    assert measured.counters["drop__bad_integrity"] > 0
    assert measured.counters["drop__verify_budget"] > 0


def test_attack_with_replayed_checks_takes_no_flow_from_a_call(stage: Stage) -> None:
    measured = attacked(stage, "replays-from-strangers")
    sessions = CAMPAIGN.flows + CAMPAIGN.calls
    assert 0 < measured.foreign.replayed <= SESSION_FLOWS * sessions


def test_attack_by_an_insider_from_live_tuples_moves_none(stage: Stage) -> None:
    measured = attacked(stage, "insider")
    assert measured.counters["flow__contested"] > 0
    assert 0 < measured.foreign.his_own <= SESSION_FLOWS * (INSIDER_SESSIONS + 1)


def test_attack_on_lanes_in_fragments_reaches_none(stage: Stage) -> None:
    measured = attacked(stage, "lanes-fragments")
    assert measured.counters["guard__lane_fragment"] > 0
