import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from turnout import client as client_module
from turnout.api import build_api
from turnout.client import Client
from turnout.errors import ApiError
from unit.memory_maps import MemoryMaps, build_steering
from unit.steering_parts import build_drains, no_hand_offs

PWD = "abcdefghijklmnopqrstuv"


async def serve(app: web.Application, path: Path) -> web.AppRunner:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    return runner


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    runtime = tmp_path / "east"
    runtime.mkdir()
    return runtime / "api.sock"


@pytest.fixture
async def client(socket_path: Path) -> AsyncIterator[Client]:
    steering = build_steering(MemoryMaps())
    drains = build_drains(steering, socket_path.parent)
    api = build_api(steering, drains, no_hand_offs(steering), lambda: {"instance": "east"})
    runner = await serve(api, socket_path)
    async with Client(socket_path) as opened:
        yield opened
    await runner.cleanup()


async def test_client_walks_through_an_owner_s_life(client: Client) -> None:
    assert await client.status() == {"instance": "east"}
    owner = await client.register_owner(lane=20500)
    assert await client.owners() == [owner]
    session = await client.add_session("abcd", PWD, owner["slot"])
    assert await client.sessions() == [session]
    await client.remove_session(session["id"])
    assert await client.sessions() == []
    await client.remove_owner(owner["slot"])
    assert await client.owners() == []


async def test_client_drains_and_lifts_the_drain(client: Client) -> None:
    slot = (await client.register_owner(lane=20500))["slot"]
    await client.add_session("abcd", PWD, slot)
    drain = await client.drain(slot, deadline_seconds=60)
    assert (drain["sessions"], drain["ended"]) == (1, "")
    assert [one["slot"] for one in await client.drains()] == [slot]
    assert (await client.undrain(slot))["ended"] == "undrained"
    assert await client.drains() == []


async def test_client_error_carries_status_and_reason(client: Client) -> None:
    with pytest.raises(ApiError, match="ufrag: 'x'; allowed: 4 to 256") as caught:
        await client.add_session("x", PWD, 0)
    assert caught.value.status == 400
    with pytest.raises(ApiError, match="slot 9") as caught:
        await client.remove_owner(9)
    assert caught.value.status == 404


async def test_client_without_socket_says_how_to_start_an_agent(socket_path: Path) -> None:
    async with Client(socket_path) as client:
        with pytest.raises(ApiError) as caught:
            await client.status()
    assert str(caught.value) == "no agent runs for instance east: start one with `turnout run`"
    assert caught.value.status == 0


async def test_client_with_a_dead_agent_s_socket_says_so_too(socket_path: Path) -> None:
    runner = await serve(web.Application(), socket_path)
    # The name stays when a process is killed.
    kept = socket_path.with_name("kept.sock")
    kept.hardlink_to(socket_path)
    await runner.cleanup()
    async with Client(kept) as client:
        with pytest.raises(ApiError, match="no agent runs for instance east"):
            await client.status()


async def test_client_of_something_else_says_what_came(socket_path: Path) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    app = web.Application()
    app.router.add_get("/status", answer)
    runner = await serve(app, socket_path)
    async with Client(socket_path) as client:
        with pytest.raises(ApiError, match="not JSON: b'<html>'"):
            await client.status()
        with pytest.raises(ApiError, match="not JSON") as caught:
            await client.owners()
    assert caught.value.status == 404
    await runner.cleanup()


async def test_client_of_an_agent_that_hangs_gives_up(
    socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    monkeypatch.setattr(client_module, "TIMEOUT_S", 0.05)
    app = web.Application()
    app.router.add_get("/status", hang)
    runner = await serve(app, socket_path)
    async with Client(socket_path) as client:
        with pytest.raises(ApiError, match="did not answer") as caught:
            await client.status()
    assert caught.value.status == 0
    await runner.cleanup()


async def test_client_outside_its_context_is_a_mistake(socket_path: Path) -> None:
    with pytest.raises(RuntimeError, match="async with Client"):
        await Client(socket_path).status()
