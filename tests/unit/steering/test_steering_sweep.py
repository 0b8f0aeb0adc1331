"""The flow table: swept in slices, counted by owner, asked for a session's flows."""

from collections.abc import Callable

import pytest

from turnout import flows
from turnout.flows import FlowTable, OwnerFlows
from turnout.steering import Steering
from unit.counted_maps import CountedMaps
from unit.memory_maps import BUCKETS, PLACES
from unit.steering_parts import PWD, transceiver, ufrag_hash


@pytest.fixture
def steering(steering: Steering) -> Steering:
    transceiver(steering, 0)
    transceiver(steering, 1)
    return steering


def counting(maps: CountedMaps, *counts: tuple[int, int, int]) -> Callable[[int, int], int]:
    """Return a sweep that counts (slot, flows, unclaimed) in its first slice."""

    def run(bucket: int, buckets: int) -> int:
        for slot, count, unclaimed in counts if bucket == 0 else ():
            seen = maps.owner_flows.lookup(slot)
            assert seen is not None
            maps.owner_flows.update(
                slot,
                {"flows": seen["flows"] + count, "unclaimed": seen["unclaimed"] + unclaimed},
            )
        return bucket + buckets

    return run


def test_sweep_walks_the_table_in_slices_and_begins_anew(
    steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "SLICE_BUCKETS", BUCKETS // 2 - 1)
    seen: list[int] = []

    def run(bucket: int, buckets: int) -> int:
        seen.append(bucket)
        return bucket + buckets

    assert [steering.sweep(run) for _ in range(4)] == [False, False, True, False]
    assert seen == [0, 31, 62, 0]


def test_sweep_counts_are_those_of_the_last_whole_pass(
    maps: CountedMaps, steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "SLICE_BUCKETS", BUCKETS // 2)
    maps.owner_flows.update(0, {"flows": 99, "unclaimed": 9})  # of an agent before this one

    steering.sweep(counting(maps, (0, 5, 0), (1, 3, 2)))
    assert (steering.flows_seen, steering.flows_of(0)) == (0, OwnerFlows())

    assert steering.sweep(counting(maps))
    assert steering.flows_of(0) == OwnerFlows(5, 0)
    assert steering.flows_of(1) == OwnerFlows(3, 2)
    assert steering.flows_seen == 8

    steering.sweep(counting(maps, (0, 1, 0)))
    assert steering.flows_seen == 8
    steering.sweep(counting(maps))
    assert steering.flows_seen == 1


def test_sweep_owner_registered_meanwhile_is_counted_from_the_next_pass_on(
    maps: CountedMaps, steering: Steering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "SLICE_BUCKETS", BUCKETS // 2)
    maps.owner_flows.update(2, {"flows": 99})  # of the slot's owner long ago
    steering.sweep(counting(maps))
    steering.register_owner(20005, slot=2)

    steering.sweep(counting(maps))

    assert steering.flows_of(2) == OwnerFlows()


def test_has_flow_of_a_session_that_noted_one(maps: CountedMaps, steering: Steering) -> None:
    session = steering.add_session("ufrag", PWD, 0)
    assert not steering.has_flow(session.id)

    maps.add_flow(PLACES + 3, "ufrag", int(session.id[:16], 16))

    assert steering.has_flow(session.id)


def test_has_flow_in_an_ice_restart_is_of_either_ufrag(
    maps: CountedMaps, steering: Steering
) -> None:
    session = steering.add_session("old", PWD, 0)
    steering.add_restart(session.id, "new", PWD)

    maps.add_flow(0, "new", int(session.id[:16], 16))

    assert steering.has_flow(session.id)


def test_has_flow_that_was_removed_or_given_to_another_is_none(
    maps: CountedMaps, steering: Steering
) -> None:
    session = steering.add_session("ufrag", PWD, 0)
    kernel_id = int(session.id[:16], 16)
    maps.add_flow(0, "ufrag", kernel_id)
    maps.add_flow(1, "ufrag", kernel_id)

    maps.fill(0, 0)
    maps.flow_details.update(1, {"session_id": kernel_id + 1, "ufrag_hash": ufrag_hash("ufrag")})
    assert not steering.has_flow(session.id)

    maps.flow_details.update(1, {"session_id": kernel_id, "ufrag_hash": ufrag_hash("other")})
    assert not steering.has_flow(session.id)


def test_read_tells_every_flow_with_its_owner_and_none_that_is_being_written(
    maps: CountedMaps,
) -> None:
    for place in range(BUCKETS * PLACES):
        maps.flow_details.update(place, {"session_id": place})
    for bucket in range(BUCKETS):
        maps.flows.update(bucket, {"entry": [0] * PLACES, "age": [bucket] * PLACES})
    maps.fill(10, 0xABCDE << 24 | 7 << 16 | 300)
    maps.fill(11, 0xABCDE << 24 | 300)

    table = FlowTable(maps.as_maps())

    assert [(flow["session_id"], flow["owner"], flow["age"]) for flow in table.read()] == [
        (10, {"slot": 300, "generation": 7}, 1)
    ]
