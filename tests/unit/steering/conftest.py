"""Steering over maps that are dictionaries."""

import pytest

from turnout.steering import Steering
from unit.counted_maps import CountedMaps
from unit.steering_parts import SETTINGS


@pytest.fixture
def maps() -> CountedMaps:
    return CountedMaps()


@pytest.fixture
def steering(maps: CountedMaps) -> Steering:
    return Steering(maps.as_maps(), SETTINGS)
