"""The status picture: with an agent, from the maps alone, and the sum of the verdicts."""

from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from turnout.doors import SharedPorts
from turnout.kernel_settings import write_kernel_settings
from turnout.metrics import Tally
from turnout.settings import Settings
from turnout.status import add_up, build_status, build_status_without_agent, verdict_sum
from turnout.steering import Steering
from turnout.vips import Vips
from unit.counted_maps import CountedMaps

SETTINGS = Settings(transceivers=1, vips=(ip_address("192.0.2.2"),))
INTERFACES = [{"name": "eth0", "mode": "native", "mtu": 1500, "egress": True, "note": ""}]


@pytest.fixture
def maps() -> CountedMaps:
    maps = CountedMaps()
    write_kernel_settings(maps.as_maps(), SETTINGS)
    maps.counters.update(0, {"received": 5, "steered__rtp": 3, "drop__no_session": 2})
    maps.owner_counters.update(0, {"steered_packets": 3, "returned_packets": 1})
    return maps


@pytest.fixture
def steering(maps: CountedMaps) -> Steering:
    steering = Steering(maps.as_maps(), SETTINGS)
    steering.register_owner(20000, slot=0, incarnation=7, kind="transceiver")
    steering.add_session("ufrag", "p" * 24, 0)
    return steering


@pytest.fixture
def vips(maps: CountedMaps) -> Iterator[Vips]:
    with SharedPorts(0, Tally()) as shared_ports:
        vips = Vips(maps.as_maps(), shared_ports)
        vips.start(SETTINGS, SETTINGS.vips)
        yield vips


def test_build_status_shows_owners_with_sessions_and_packets(
    maps: CountedMaps, steering: Steering, vips: Vips
) -> None:
    tally = Tally(shared_port_datagrams=4)

    picture = build_status(SETTINGS, maps.as_maps(), steering, INTERFACES, tally, vips=vips)

    assert picture["owners"] == [
        {
            "slot": 0,
            "generation": 1,
            "state": "active",
            "lane": 20000,
            "kind": "transceiver",
            "sessions": 1,
            "steered_packets": 3,
            "returned_packets": 1,
        }
    ]
    assert picture["verdicts_add_up"] is True
    assert picture["shared_port_datagrams"] == 4
    assert picture["agent"] is True


def test_build_status_without_agent_tells_the_same_of_the_kernel(
    maps: CountedMaps, steering: Steering, vips: Vips
) -> None:
    with_agent = build_status(SETTINGS, maps.as_maps(), steering, INTERFACES, Tally(), vips=vips)

    picture = build_status_without_agent("default", maps.as_maps(), INTERFACES)

    assert picture["agent"] is False
    for same in ("owners", "counters", "vips", "shared_port", "lanes", "interfaces"):
        assert picture[same] == with_agent[same]


def test_verdict_sum_counts_verdicts_and_nothing_else() -> None:
    counters = {
        "received": 10,
        "steered__rtp": 1,
        "pass__fragment": 2,
        "drop__empty": 4,
        "guard__lane": 100,
        "flow__learned": 100,
        "returned__rewritten": 100,
    }

    assert verdict_sum(counters) == 7


@pytest.mark.parametrize(
    ("before", "verdicts", "after", "fits"),
    [
        (10, 10, 10, True),
        (10, 9, 10, False),
        (10, 11, 10, False),
        (1000, 1005, 1010, True),
        (1000, 999, 1010, True),
        (1000, 1011, 1010, False),
        (1000, 900, 1010, False),
    ],
)
def test_add_up_allows_only_what_arrived_meanwhile(
    before: int, verdicts: int, after: int, fits: bool
) -> None:
    assert add_up({"received": before, "steered__rtp": verdicts}, before, after) is fits
