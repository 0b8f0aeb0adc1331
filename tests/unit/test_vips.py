"""Which VIPs are served and which are offered, as addresses, defaults and settings change."""

from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from turnout.doors import SharedPorts
from turnout.kernel_settings import vips_in_use, write_kernel_settings
from turnout.metrics import Tally
from turnout.settings import VIPS_MAX, Settings
from turnout.vips import Vips, choose_served
from unit.counted_maps import CountedMaps

# RFC 5737 and RFC 3849: no host has them, so their ports are free.
FOUR, OTHER, SIX = (ip_address(text) for text in ("192.0.2.1", "192.0.2.2", "2001:db8::1"))
SETTINGS = Settings(vips=(FOUR, SIX))


@pytest.fixture
def maps() -> CountedMaps:
    return CountedMaps()


@pytest.fixture
def shared_ports() -> Iterator[SharedPorts]:
    with SharedPorts(SETTINGS.shared_port, Tally()) as opened:
        yield opened


@pytest.fixture
def vips(maps: CountedMaps, shared_ports: SharedPorts) -> Vips:
    vips = Vips(maps.as_maps(), shared_ports)
    vips.start(SETTINGS, {FOUR, SIX})
    return vips


def steered(maps: CountedMaps) -> list[object]:
    record = maps.settings.lookup(0)
    assert record is not None
    return list(vips_in_use(record))


def test_start_serves_and_offers_what_the_settings_name(
    vips: Vips, maps: CountedMaps, shared_ports: SharedPorts
) -> None:
    assert vips.served == vips.offered == [FOUR, SIX]
    assert steered(maps) == [FOUR, SIX]
    assert list(shared_ports.vips) == [FOUR, SIX]


def test_follow_address_gone_is_not_offered_and_stays_served(
    vips: Vips, maps: CountedMaps, caplog: pytest.LogCaptureFixture
) -> None:
    vips.follow(SETTINGS, {SIX}, [])

    assert vips.offered == [SIX]
    assert vips.served == steered(maps) == [FOUR, SIX]
    assert "VIP 192.0.2.1: the host lost this address" in caplog.text

    vips.follow(SETTINGS, {FOUR, SIX}, [])

    assert vips.offered == [FOUR, SIX]
    assert "VIP 192.0.2.1: the address is back" in caplog.text


def test_follow_nothing_changed_says_nothing(vips: Vips, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    vips.follow(SETTINGS, {FOUR, SIX}, [OTHER])

    assert caplog.text == ""


def test_follow_vip_taken_out_of_the_settings_is_served_on(vips: Vips, maps: CountedMaps) -> None:
    vips.follow(SETTINGS.replace(vips=(OTHER,)), {FOUR, OTHER, SIX}, [])

    assert vips.offered == [OTHER]
    assert vips.served == [OTHER, FOUR, SIX]
    # Flows hold a VIP's index in the map.
    assert steered(maps) == [FOUR, SIX, OTHER]


def test_follow_host_s_new_default_is_offered_instead_of_the_old(vips: Vips) -> None:
    settings = SETTINGS.replace(vips=(FOUR,), follow_vips=True)

    vips.follow(settings, {FOUR, OTHER}, [OTHER])
    assert vips.offered == [OTHER]
    assert vips.served == [OTHER, FOUR, SIX]

    # No default at all for a moment, as between two leases: what was there is kept.
    vips.follow(settings, {FOUR}, [])
    assert vips.offered == [FOUR]


def test_follow_shared_port_that_is_taken_is_said_and_the_others_are_served(
    vips: Vips, caplog: pytest.LogCaptureFixture
) -> None:
    with SharedPorts(SETTINGS.shared_port, Tally()) as stranger, ExitStack() as gone:
        gone.callback(stranger.close, OTHER)
        stranger.open(OTHER)
        vips.follow(SETTINGS.replace(vips=(FOUR, OTHER)), {FOUR, OTHER}, [])
        assert vips.served == [FOUR, SIX]
        assert vips.offered == [FOUR]
        assert "not served: vip 192.0.2.2: UDP port 3478 is taken" in caplog.text

    vips.follow(SETTINGS.replace(vips=(FOUR, OTHER)), {FOUR, OTHER}, [])
    assert vips.offered == [FOUR, OTHER]


def test_choose_served_without_room_lets_those_not_wanted_go() -> None:
    served = [ip_address(f"192.0.2.{n}") for n in range(1, VIPS_MAX + 1)]

    assert choose_served([SIX], served) == [SIX, *served[: VIPS_MAX - 1]]


def test_follow_without_room_closes_the_port_of_what_goes(
    maps: CountedMaps, shared_ports: SharedPorts
) -> None:
    many = tuple(ip_address(f"192.0.2.{n}") for n in range(1, VIPS_MAX + 1))
    vips = Vips(maps.as_maps(), shared_ports)
    vips.start(Settings(vips=many), set(many))

    vips.follow(Settings(vips=(SIX,)), {SIX}, [])

    assert set(shared_ports.vips) == {SIX, *many[:-1]} == set(steered(maps))


def test_start_after_another_agent_serves_what_it_had_followed_the_host_to(
    maps: CountedMaps, shared_ports: SharedPorts
) -> None:
    settings = SETTINGS.replace(vips=(FOUR,), follow_vips=True)
    write_kernel_settings(maps.as_maps(), settings, [FOUR, OTHER, SIX])
    vips = Vips(maps.as_maps(), shared_ports)

    vips.start(settings, {FOUR, OTHER})

    assert vips.served == [FOUR, OTHER]
