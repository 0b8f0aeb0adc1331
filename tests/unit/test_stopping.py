"""The drain before a stop: everybody is drained, it ends early, it is bounded."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from turnout import stopping
from turnout.api import build_api
from turnout.stopping import drain_all
from unit.memory_maps import MemoryMaps, build_steering
from unit.patience import until
from unit.steering_parts import build_drains, no_hand_offs

PWD = "abcdefghijklmnopqrstuv"


class Agent:
    """Owners in slots 2 and 3, and the local API over them."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "api.sock"
        self.steering = build_steering(MemoryMaps())
        self.drains = build_drains(self.steering, directory)
        for lane in (20500, 20501):
            self.steering.register_owner(lane)
        self.said: list[str] = []

    async def drain(self, seconds: int = 3600) -> None:
        await drain_all(self.socket, seconds, self.said.append)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    made = Agent(tmp_path)
    runner = web.AppRunner(
        build_api(made.steering, made.drains, no_hand_offs(made.steering), dict),
        shutdown_timeout=0.1,
    )
    await runner.setup()
    await web.UnixSite(runner, str(made.socket)).start()
    stepping = asyncio.create_task(made.drains.run())
    yield made
    stepping.cancel()
    await runner.cleanup()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "LOOK_S", 0.01)
    monkeypatch.setattr("turnout.draining.STEP_S", 0.01)


async def test_edge_without_sessions_is_drained_at_once(agent: Agent) -> None:
    await agent.drain()

    assert agent.steering.drained == {2, 3}
    assert agent.said[-1] == "drained: empty"


async def test_ends_early_with_the_last_session(agent: Agent) -> None:
    session = agent.steering.add_session("abcd", PWD, 2)
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.drain())
        await until(lambda: any("1 sessions left" in line for line in agent.said))
        agent.steering.remove_session(session.id)

    assert agent.said[-1] == "drained: empty"


async def test_deadline_ends_what_is_left(agent: Agent) -> None:
    agent.steering.add_session("abcd", PWD, 2)

    await agent.drain(seconds=0)

    assert dict(agent.steering.sessions) == {}
    assert agent.said[-1] == "drained; 1 sessions were ended by the deadline"


async def test_drain_with_a_later_deadline_gets_this_one(agent: Agent) -> None:
    agent.steering.add_session("abcd", PWD, 2)
    agent.drains.start(2, 3600)

    await agent.drain(seconds=0)

    assert dict(agent.steering.sessions) == {}


async def test_owner_that_comes_back_meanwhile_is_drained_too(agent: Agent) -> None:
    session = agent.steering.add_session("abcd", PWD, 2)
    async with asyncio.TaskGroup() as group:
        group.create_task(agent.drain())
        await until(lambda: agent.steering.drained == {2, 3})
        agent.steering.remove_owner(3)
        agent.steering.register_owner(20501, slot=3)
        await until(lambda: agent.steering.drained == {2, 3})
        agent.steering.remove_session(session.id)


async def test_without_an_agent_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stopping, "ENDING_S", 0.05)

    await drain_all(tmp_path / "api.sock", 0, lambda _line: None)

    assert "given up" in caplog.text
