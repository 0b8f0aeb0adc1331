"""The flow table carried into that of another version while both steer: nothing lost or doubled."""

from collections.abc import Iterator

import pytest

from datapath import OTHER_SLOT, PLACES, SLOT, TAG_SHIFT, Datapath
from turnout.kernel import bpf
from turnout.kernel.carry import Flows
from turnout.kernel.maps import KernelMap


def write(table: KernelMap, place: int, entry: int) -> None:
    """Write one entry, as a program does."""
    bucket = table.lookup(place // PLACES)
    assert bucket is not None
    bucket["entry"][place % PLACES] = entry
    table.update(place // PLACES, bucket | {"age": list(bucket["age"])})


class Versions:
    """The table that the datapath steers by, and the one of the version that comes."""

    def __init__(self, datapath: Datapath, tables: list[KernelMap]) -> None:
        self.old = datapath
        self.new, self.new_details = tables
        # As the carry sees it: the maps are its own.
        maps = datapath.maps
        self.carry = Flows(maps.flows, self.new, maps.flow_details, self.new_details)

    def entry(self, place: int) -> int:
        bucket = self.new.lookup(place // PLACES)
        assert bucket is not None
        entry: int = bucket["entry"][place % PLACES]
        return entry

    def is_same(self, place: int) -> bool:
        """Tell whether both have the same flow there."""
        details = self.old.maps.flow_details.lookup(place) == self.new_details.lookup(place)
        return details and self.entry(place) == self.old.entry(place)


@pytest.fixture
def versions(datapath: Datapath) -> Iterator[Versions]:
    names = ("flows", "flow_details")
    tables = [KernelMap(bpf.make_map(datapath.descriptors[name])) for name in names]
    yield Versions(datapath, tables)
    for table in tables:
        table.close()


def test_copy_makes_the_new_table_the_old_one_whatever_it_was(versions: Versions) -> None:
    gone, stays = (versions.old.add_flow(port=port) for port in (1, 2))
    versions.carry.copy()
    assert versions.carry.count == 2
    write(versions.old.maps.flows, gone, 0)
    came = versions.old.add_flow(port=3)

    versions.carry.copy()

    places = {place for place in range(versions.old.buckets * PLACES) if versions.entry(place)}
    assert places == {came, stays}
    assert all(versions.is_same(place) for place in places)


def test_merge_adds_what_the_old_programs_learned_moved_and_ended(versions: Versions) -> None:
    moved, ended = (versions.old.add_flow(port=port) for port in (1, 2))
    versions.carry.copy()
    learned = versions.old.add_flow(port=3, session=77)
    for place, entry in ((moved, versions.old.entry(moved) ^ SLOT ^ OTHER_SLOT), (ended, 0)):
        write(versions.old.maps.flows, place, entry)

    versions.carry.merge()

    assert versions.entry(moved) & 0xFFFF == OTHER_SLOT
    assert versions.entry(ended) == 0
    assert all(versions.is_same(place) for place in (learned, moved))
    assert versions.new_details.lookup(learned)["session_id"] == 77  # type: ignore[index]


def test_merge_leaves_what_the_new_programs_changed(versions: Versions) -> None:
    place = versions.old.add_flow(port=1)
    versions.carry.copy()
    entry = versions.old.entry(place)
    write(versions.old.maps.flows, place, 0)
    write(versions.new, place, entry ^ SLOT ^ OTHER_SLOT)

    versions.carry.merge()

    assert versions.entry(place) == entry ^ SLOT ^ OTHER_SLOT


def test_merge_of_a_flow_that_both_have_learned_does_not_double_it(versions: Versions) -> None:
    versions.carry.copy()
    place = versions.old.add_flow(port=1)
    beside = place // PLACES * PLACES + (place + 1) % PLACES
    write(versions.new, beside, versions.old.entry(place) ^ SLOT ^ OTHER_SLOT)

    versions.carry.merge()

    tag = versions.old.entry(place) >> TAG_SHIFT
    entries = versions.new.lookup(place // PLACES)["entry"]  # type: ignore[index]
    assert [entry >> TAG_SHIFT for entry in entries].count(tag) == 1
    assert versions.entry(beside) & 0xFFFF == OTHER_SLOT


def test_place_that_some_cpu_is_filling_counts_as_empty(versions: Versions) -> None:
    place = versions.old.add_flow(port=1)
    claimed = versions.old.entry(place) >> TAG_SHIFT << TAG_SHIFT
    write(versions.old.maps.flows, place, claimed)

    versions.carry.copy()
    versions.carry.merge()

    assert versions.entry(place) == 0
    assert versions.carry.count == 0
