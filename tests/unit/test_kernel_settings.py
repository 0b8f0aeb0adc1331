"""The settings record: a VIP keeps its index, the edge key its value."""

from ipaddress import ip_address

from turnout.kernel_settings import (
    edge_key_bytes,
    place_vips,
    vips_in_use,
    write_kernel_settings,
)
from turnout.settings import Limits, Settings
from turnout.wire.mapped_address import build_mapped
from unit.counted_maps import CountedMaps
from unit.memory_maps import EDGE_KEY

FOUR = ip_address("192.0.2.2")
SIX = ip_address("2001:db8::2")
OTHER = ip_address("192.0.2.3")


def test_place_vips_empty_map_fills_from_the_first() -> None:
    places, mask = place_vips([], [FOUR, SIX])

    assert places == [build_mapped(FOUR), build_mapped(SIX), *[bytes(16)] * 6]
    assert mask == 0b11


def test_place_vips_known_ones_keep_their_index_whatever_the_order() -> None:
    before, _ = place_vips([], [FOUR, SIX])

    places, mask = place_vips(before, [OTHER, SIX, FOUR])

    assert places[:3] == [build_mapped(FOUR), build_mapped(SIX), build_mapped(OTHER)]
    assert mask == 0b111


def test_place_vips_dropped_one_leaves_its_index_unused_and_is_found_again() -> None:
    before, _ = place_vips([], [FOUR, SIX])

    without, mask = place_vips(before, [SIX, OTHER])
    again, mask_again = place_vips(without, [SIX, OTHER, FOUR])

    assert mask == 0b110
    assert without.index(build_mapped(OTHER)) == 2
    assert again == without
    assert mask_again == 0b111


def test_place_vips_all_indexes_used_takes_one_that_is_not_wanted() -> None:
    vips = [ip_address(f"192.0.2.{n}") for n in range(1, 9)]
    before, _ = place_vips([], vips)
    wanted = [*vips[:3], *vips[4:], SIX]

    places, mask = place_vips(before, wanted)

    assert places[3] == build_mapped(SIX)
    assert mask == 0xFF


def test_write_kernel_settings_first_start_makes_a_key() -> None:
    maps = CountedMaps()
    maps.settings.update(0, {"edge_key": [0, 0], "vips": [bytes(16)] * 8, "vip_mask": 0})

    write_kernel_settings(maps.as_maps(), Settings(vips=(FOUR, SIX)))

    record = maps.settings.lookup(0)
    assert record is not None
    assert any(record["edge_key"])
    assert record["shared_port"] == 3478
    assert (record["lane_first"], record["lane_last"]) == (20000, 20999)
    assert vips_in_use(record) == [FOUR, SIX]


def test_write_kernel_settings_restart_keeps_the_key() -> None:
    maps = CountedMaps()

    write_kernel_settings(maps.as_maps(), Settings(vips=(FOUR,)))

    record = maps.settings.lookup(0)
    assert record is not None
    assert record["edge_key"] == list(EDGE_KEY)


def test_write_kernel_settings_makes_flow_keys_once() -> None:
    maps = CountedMaps()
    write_kernel_settings(maps.as_maps(), Settings(vips=(FOUR,)))
    first = maps.settings.records[0]

    write_kernel_settings(maps.as_maps(), Settings(vips=(FOUR, SIX)))

    assert len(set(first["flow_keys"])) == 6
    assert maps.settings.records[0]["flow_keys"] == first["flow_keys"]
    assert first["flow_buckets"] == maps.flows.max_entries


def test_write_kernel_settings_limits_are_by_the_tick() -> None:
    maps = CountedMaps()
    limits = Limits(
        flows_per_session=4,
        flow_packets_per_second=0,
        checks_per_session_per_second=50,
        failed_checks_per_prefix_per_second=1,
    )

    write_kernel_settings(maps.as_maps(), Settings(vips=(FOUR,), limits=limits))

    record = maps.settings.records[0]
    assert record["session_flows"] == 4
    assert record["flow_packets"] == 0
    assert record["check_budget"] == 54  # 50 x 1.0737, rounded up
    assert record["prefix_failures"] == 2


def test_edge_key_bytes_is_little_endian() -> None:
    assert edge_key_bytes(EDGE_KEY) == bytes(range(16))
