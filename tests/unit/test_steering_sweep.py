"""The sweep of the flow table: what is over goes, what lives stays."""

import itertools
from typing import Any

import pytest

from turnout import flows
from turnout.flows import IDLE_NS
from turnout.steering import Steering
from unit.counted_maps import CountedMaps
from unit.steering_parts import (
    NOW_NS,
    PWD,
    SETTINGS,
    add_flow,
    flow_ports,
    transceiver,
)


@pytest.fixture
def maps() -> CountedMaps:
    return CountedMaps()


@pytest.fixture
def steering(maps: CountedMaps) -> Steering:
    return Steering(maps.as_maps(), SETTINGS)


def test_sweep_live_flow_stays(maps: CountedMaps, steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)
    add_flow(maps, 1000, "ufrag", int(session.id[:16], 16))

    report = steering.sweep(NOW_NS)

    assert flow_ports(maps) == [1000]
    assert report.complete
    assert steering.flows_seen == 1


def test_sweep_removes_ended_stale_and_idle_flows(maps: CountedMaps, steering: Steering) -> None:
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)
    kernel_id = int(session.id[:16], 16)
    add_flow(maps, 1, "ufrag", kernel_id)
    add_flow(maps, 2, "nobody", 5)
    add_flow(maps, 3, "ufrag", kernel_id + 1)
    add_flow(maps, 4, "", 0, owner={"slot": 0, "generation": 9})
    add_flow(maps, 5, "", 0, owner={"slot": 1, "generation": 1})
    add_flow(maps, 6, "ufrag", kernel_id, alive_ns=NOW_NS - IDLE_NS - 1)

    report = steering.sweep(NOW_NS)

    assert flow_ports(maps) == [1]
    assert (report.ended, report.stale, report.idle) == (2, 2, 1)


def test_sweep_flow_given_to_another_session_meanwhile_stays(
    maps: CountedMaps, steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)
    add_flow(maps, 1, "nobody", 5)
    take = maps.flows.take

    def move_then_take(key: Any) -> Any:
        add_flow(maps, 1, "ufrag", int(session.id[:16], 16))
        return take(key)

    monkeypatch.setattr(maps.flows, "take", move_then_take)

    assert steering.sweep(NOW_NS).ended == 0
    assert flow_ports(maps) == [1]


def test_sweep_walk_that_starts_over_ends_after_a_table(
    maps: CountedMaps, steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's walk starts over when the key it stands on is evicted."""
    transceiver(steering, 0)
    session = steering.add_session("ufrag", PWD, 0)
    add_flow(maps, 1, "ufrag", int(session.id[:16], 16))
    maps.flows.max_entries = 5
    again = itertools.cycle(list(maps.flows.items()))
    monkeypatch.setattr(maps.flows, "items", lambda: again)

    report = steering.sweep(NOW_NS)

    assert (report.looked_at, report.complete) == (5, True)


def test_sweep_flow_healed_on_egress_lives_by_its_owner(
    maps: CountedMaps, steering: Steering
) -> None:
    transceiver(steering, 0)
    add_flow(maps, 1, "", 0)

    steering.sweep(NOW_NS)

    assert flow_ports(maps) == [1]


def test_sweep_flow_alive_a_little_ahead_of_us_stays(maps: CountedMaps, steering: Steering) -> None:
    transceiver(steering, 0)
    add_flow(maps, 1, "", 0, alive_ns=NOW_NS + 10**6)

    steering.sweep(NOW_NS)

    assert flow_ports(maps) == [1]


def test_sweep_flow_of_an_unconfirmed_session_stays(maps: CountedMaps) -> None:
    before = Steering(maps.as_maps(), SETTINGS)
    transceiver(before, 0)
    session = before.add_session("ufrag", PWD, 0)
    add_flow(maps, 1, "ufrag", int(session.id[:16], 16))

    Steering(maps.as_maps(), SETTINGS).sweep(NOW_NS)

    assert flow_ports(maps) == [1]


def test_sweep_large_table_is_walked_in_steps(
    maps: CountedMaps, steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "STEP_FLOWS", 10)
    transceiver(steering, 0)
    for port in range(25):
        add_flow(maps, port, "" if port % 2 else "nobody", 5)

    reports = [steering.sweep(NOW_NS) for _ in range(3)]

    assert [report.looked_at for report in reports] == [10, 10, 5]
    assert [report.complete for report in reports] == [False, False, True]
    assert flow_ports(maps) == [port for port in range(25) if port % 2]
    assert steering.flows_seen == 12
