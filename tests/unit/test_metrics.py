"""/metrics: every counter of the maps is there, under a name that says what it is."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, generate_latest

from turnout.metrics import EdgeCollector, Tally, build_metrics_app, kernel_families
from turnout.settings import Settings
from turnout.steering import Steering
from unit.counted_maps import CountedMaps, CounterMap

SETTINGS = Settings(transceivers=2)


@pytest.fixture
def maps() -> CountedMaps:
    maps = CountedMaps()
    maps.counters.update(0, {"received": 5, "steered__rtp": 3, "drop__no_session": 2})
    maps.owner_counters.update(
        1, {"steered_packets": 3, "steered_bytes": 600, "returned_packets": 0}
    )
    return maps


class SomeDrains:
    """An edge that drains its second owner."""

    ended: Mapping[str, int] = MappingProxyType({"empty": 2})
    sessions_ended = 3

    def describe(self) -> list[Mapping[str, Any]]:
        return [{"slot": 1, "sessions": 4, "seconds_left": 50}]


def scrape(maps: CountedMaps, tally: Tally | None = None) -> dict[str, float]:
    steering = Steering(maps.as_maps(), SETTINGS)
    steering.register_owner(20001, slot=1, incarnation=7, kind="transceiver")
    steering.add_session("ufrag", "p" * 24, 1)
    return read(build_registry(maps, steering, tally or Tally()))


def build_registry(maps: CountedMaps, steering: Steering, tally: Tally) -> CollectorRegistry:
    def interfaces() -> list[Mapping[str, Any]]:
        return [{"name": "eth0", "mode": "native"}]

    registry = CollectorRegistry()
    registry.register(EdgeCollector(maps.as_maps(), steering, tally, interfaces, SomeDrains()))
    return registry


def read(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    series = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in series}


def test_scrape_kernel_counters_become_family_and_reason(maps: CountedMaps) -> None:
    series = scrape(maps)

    assert series["turnout_received_packets_total"] == 5
    assert series['turnout_steered_packets_total{reason="rtp"}'] == 3
    assert series['turnout_drop_packets_total{reason="no_session"}'] == 2


def test_scrape_owner_counters_are_labelled_by_slot(maps: CountedMaps) -> None:
    series = scrape(maps)

    assert series['turnout_owner_steered_packets_total{slot="1"}'] == 3
    assert series['turnout_owner_steered_bytes_total{slot="1"}'] == 600


def test_scrape_owners_and_sessions_show_every_state(maps: CountedMaps) -> None:
    series = scrape(maps)

    assert series['turnout_owners{state="active"}'] == 1
    assert series['turnout_owners{state="draining"}'] == 0
    assert series['turnout_owners{state="down"}'] == 0
    assert series['turnout_sessions{slot="1"}'] == 1


def test_scrape_drains_show_what_is_left_and_how_they_ended(maps: CountedMaps) -> None:
    series = scrape(maps)

    assert series['turnout_drain_sessions{slot="1"}'] == 4
    assert series['turnout_drain_deadline_left_seconds{slot="1"}'] == 50
    assert series['turnout_drains_ended_total{reason="empty"}'] == 2
    assert series['turnout_drains_ended_total{reason="deadline"}'] == 0
    assert series["turnout_drain_sessions_ended_total"] == 3


def test_scrape_attachment_is_a_label(maps: CountedMaps) -> None:
    assert scrape(maps)['turnout_xdp_attached{interface="eth0",mode="native"}'] == 1


def test_scrape_agent_counters_are_shown(maps: CountedMaps) -> None:
    series = scrape(maps, Tally(shared_port_datagrams=4))

    assert series["turnout_shared_port_datagrams_total"] == 4
    assert series["turnout_sessions_refused_total"] == 0


def test_scrape_flows_are_those_of_the_last_sweep(maps: CountedMaps) -> None:
    steering = Steering(maps.as_maps(), SETTINGS)
    steering.register_owner(20001, slot=1, incarnation=7, kind="transceiver")

    def run(bucket: int, buckets: int) -> int:
        maps.owner_flows.update(1, {"flows": 5, "unclaimed": 2})
        return bucket + buckets

    assert steering.sweep(run)

    series = read(build_registry(maps, steering, Tally()))
    assert series["turnout_flows"] == 5
    assert series['turnout_owner_flows{slot="1"}'] == 5


def test_kernel_families_what_the_sweep_removed_is_counted_in_flows() -> None:
    (family,) = kernel_families({"swept__idle": 3})

    assert family.name == "turnout_swept_flows"
    assert family.samples[0].labels == {"reason": "idle"}


def test_scrape_map_that_cannot_be_read_is_counted_and_the_rest_is_there(
    maps: CountedMaps,
) -> None:
    class Broken(CounterMap):
        def sum_per_cpu(self, key: Any) -> dict[str, Any]:
            raise OSError(9, f"Bad file descriptor, key {key}")

    maps.counters = Broken()

    series = scrape(maps)

    assert series["turnout_scrape_errors_total"] == 1
    assert "turnout_received_packets_total" not in series
    assert series['turnout_owner_steered_packets_total{slot="1"}'] == 3


def test_kernel_families_unknown_family_needs_no_line_here() -> None:
    (family,) = kernel_families({"brand_new__reason": 3})

    assert family.name == "turnout_brand_new_packets"
    assert family.documentation
    assert family.samples[0].labels == {"reason": "reason"}


def test_register_does_not_read_the_maps() -> None:
    class Untouchable(CounterMap):
        def sum_per_cpu(self, key: Any) -> dict[str, Any]:
            raise AssertionError(f"key {key} read at registration")

    maps = CountedMaps()
    steering = Steering(maps.as_maps(), SETTINGS)
    maps.counters = Untouchable()

    build_registry(maps, steering, Tally())


async def test_metrics_app_answers_in_the_text_format(maps: CountedMaps) -> None:
    steering = Steering(maps.as_maps(), SETTINGS)
    app = build_metrics_app(build_registry(maps, steering, Tally()))

    async with TestClient(TestServer(app)) as client:
        response = await client.get("/metrics")
        text = await response.text()

    assert response.status == 200
    assert response.content_type == "text/plain"
    assert "turnout_received_packets_total 5.0" in text
