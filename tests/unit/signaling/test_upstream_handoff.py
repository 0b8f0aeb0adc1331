"""What an upstream makes of a transceiver that is to hand a session over."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from turnout.errors import SignalingError
from turnout.signaling.upstream import Door
from unit.signaling.fake_transceiver import background, running, until
from unit.signaling.test_upstream import Scene

DOOR = Door("name", "secret")
SESSION = "ab" * 16


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def hand_off(scene: Scene) -> tuple[str, str, Any]:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        return await scene.upstream.hand_off(DOOR, SESSION)


@pytest.mark.parametrize("status", [400, 404, 502])
async def test_session_stays_with_a_transceiver_that_says_no(scene: Scene, status: int) -> None:
    scene.transceiver.hand_off_reply = (status, {})
    kind, reason, _ = await hand_off(scene)
    assert kind == "stayed"
    assert str(status) in reason


async def test_session_stays_with_a_transceiver_that_is_not_up(scene: Scene) -> None:
    assert (await scene.upstream.hand_off(DOOR, SESSION))[0] == "stayed"


async def test_session_stays_where_nobody_listens(scene: Scene) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        scene.transceiver.path.unlink()
        assert (await scene.upstream.hand_off(DOOR, SESSION))[0] == "stayed"


@pytest.mark.parametrize("fault", ["", "hang up"])
async def test_nobody_knows_what_a_transceiver_did_that_fails(scene: Scene, fault: str) -> None:
    scene.transceiver.fault = fault
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        with pytest.raises(SignalingError):
            await scene.upstream.hand_off(DOOR, SESSION)


async def test_outcome_and_ways_are_told(scene: Scene) -> None:
    flows = [{"vip": "192.0.2.2", "client": ["198.51.100.7", 40000]}]
    moved = {"moved": [{"id": SESSION, "flows": flows}], "stayed": [], "lost": []}
    scene.transceiver.hand_off_reply = (200, moved)
    assert await hand_off(scene) == ("moved", "", [("192.0.2.2", "198.51.100.7", 40000)])


async def test_delete_of_a_session_that_has_left_waits_until_it_is_steered_anew(
    scene: Scene,
) -> None:
    async with running(scene.transceiver), background(scene.follow()):
        await scene.until_up()
        with scene.upstream.leaving(SESSION):
            deleting = asyncio.create_task(scene.upstream.delete(f"/whip/{SESSION}"))
            await until(lambda: SESSION in scene.transceiver.deleted)
            await scene.upstream.delete("/whip/" + "cd" * 16)  # another's does not wait
            assert not deleting.done()
        async with asyncio.timeout(5):
            await deleting
