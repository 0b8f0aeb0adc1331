"""Telling transceivers: those that are up, once, and again when they are new or it failed."""

from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from turnout.settings import Settings
from turnout.steering import Steering
from turnout.transceiver_settings import TransceiverSettings
from unit.memory_maps import MemoryMaps, build_steering

VIPS = [ip_address("192.0.2.1"), ip_address("2001:db8::1")]


class Transceiver:
    """Answers PUT /settings with `status` and keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.status = 200

    async def put(self, request: web.Request) -> web.Response:
        self.told.append(await request.json())
        return web.Response(status=self.status)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(transceivers=2, runtime_root=tmp_path)
    settings.runtime.mkdir()
    return settings


@pytest.fixture
async def transceiver(settings: Settings) -> AsyncIterator[Transceiver]:
    served = Transceiver()
    application = web.Application()
    application.router.add_put("/settings", served.put)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(settings.transceiver_socket(0))).start()
    yield served
    await runner.cleanup()


@pytest.fixture
def steering() -> Steering:
    steering = build_steering(MemoryMaps())
    steering.register_owner(20000, slot=0, incarnation=7, kind="transceiver")
    steering.register_owner(20500)
    return steering


async def test_tell_says_it_once_and_again_when_something_is_new(
    settings: Settings, transceiver: Transceiver, steering: Steering
) -> None:
    telling = TransceiverSettings(steering)
    first = {"vips": ["192.0.2.1", "2001:db8::1"], "log_level": "info", "handshakes": 100}

    for _ in range(2):
        await telling.tell(settings, VIPS)
    assert transceiver.told == [first]
    await telling.tell(settings.replace(log_level="debug"), VIPS[:1])
    assert transceiver.told[1:] == [
        {"vips": ["192.0.2.1"], "log_level": "debug", "handshakes": 100}
    ]
    # It was started again, with what the supervisor knew.
    steering.register_owner(20000, slot=0, incarnation=8, kind="transceiver")
    await telling.tell(settings, VIPS)
    assert transceiver.told[2:] == [first]


async def test_tell_refused_is_said_and_tried_again(
    settings: Settings,
    transceiver: Transceiver,
    steering: Steering,
    caplog: pytest.LogCaptureFixture,
) -> None:
    telling = TransceiverSettings(steering)
    transceiver.status = 409
    await telling.tell(settings, VIPS)
    assert "transceiver 0: settings not taken: 409" in caplog.text

    transceiver.status = 200
    await telling.tell(settings, VIPS)
    await telling.tell(settings, VIPS)

    assert len(transceiver.told) == 2


async def test_tell_one_that_is_down_or_gone_is_no_obstacle(
    settings: Settings, steering: Steering, caplog: pytest.LogCaptureFixture
) -> None:
    telling = TransceiverSettings(steering)
    await telling.tell(settings, VIPS)
    assert "transceiver 0: settings not taken" in caplog.text

    caplog.clear()
    steering.set_owner_state(0, "down")
    await telling.tell(settings, VIPS)
    assert caplog.text == ""


async def test_tell_reaches_one_that_is_drained(
    settings: Settings, transceiver: Transceiver, steering: Steering
) -> None:
    steering.set_drained(0, is_drained=True)

    await TransceiverSettings(steering).tell(settings, VIPS)

    assert len(transceiver.told) == 1
