"""VIPs that come and go under a living worker, and the door that says so."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from turnout.transceiver.echo import Echo
from turnout.transceiver.worker import Worker
from unit.transceiver.process import Process
from unit.transceiver.test_worker import Caller

# Linux has all of 127.0.0.0/8 on the loopback interface; 192.0.2.0/24 nobody has.
ONE, TWO, THREE, ABSENT = "127.0.0.1", "127.0.0.2", "127.0.0.3", "192.0.2.1"


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker([ONE], 0, Echo)
    worker.start()
    yield worker
    worker.close()


@pytest.fixture
def call(worker: Worker) -> Iterator[Callable[[str], Caller]]:
    with ExitStack() as stack:

        def open_caller(host: str) -> Caller:
            caller = Caller(worker, host)
            stack.enter_context(caller.socket)
            return caller

        yield open_caller


async def test_set_vips_one_more_serves_calls_there_and_keeps_those_that_are(
    worker: Worker, call: Callable[[str], Caller]
) -> None:
    before = call(ONE)
    await before.connect()

    worker.set_vips([TWO, ONE])

    after = call(TWO)
    await after.connect()
    for caller in (before, after):
        caller.say(1, b"hello")
        assert await caller.hear() == b"hello"


async def test_set_vips_one_less_ends_its_flows_and_no_session(
    worker: Worker, call: Callable[[str], Caller]
) -> None:
    worker.set_vips([ONE, TWO])
    stays, goes = call(ONE), call(TWO)
    await stays.connect()
    await goes.connect()

    worker.set_vips([ONE])

    assert len(worker.sessions) == 2
    assert goes.session.ice.flows == {}
    assert goes.session.ice.selected is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((TWO, worker.lane))
    stays.say(1, b"hello")
    assert await stays.hear() == b"hello"


async def test_set_vips_gone_and_back_the_client_s_next_check_brings_its_media_back(
    worker: Worker, call: Callable[[str], Caller]
) -> None:
    worker.set_vips([ONE, TWO])
    caller = call(TWO)
    await caller.connect()
    worker.set_vips([ONE])
    worker.set_vips([ONE, TWO])

    await caller.prove()

    caller.say(1, b"hello")
    assert await caller.hear() == b"hello"


async def test_set_vips_port_taken_changes_nothing(worker: Worker) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((TWO, worker.lane))

        with pytest.raises(OSError, match="UDP port"):
            worker.set_vips([THREE, TWO])

    assert worker.vips == [ONE]


async def test_set_vips_address_that_is_not_there_is_bound_for_when_it_is(worker: Worker) -> None:
    worker.set_vips([ONE, ABSENT])

    assert worker.vips == [ONE, ABSENT]


async def test_put_settings_changes_vips_and_log_level(running: Process) -> None:
    wanted = {"vips": [TWO, ONE], "log_level": "error"}
    async with running.http() as http, http.put("/settings", json=wanted) as response:
        assert response.status == 200
        assert sorted((await response.json())["vips"]) == [ONE, TWO]


async def test_put_settings_changes_the_limit_of_handshakes_and_leaves_it(running: Process) -> None:
    async with running.http() as http:
        for handshakes, holds in ({}, 100), ({"handshakes": 7}, 7), ({}, 7):
            wanted = {"vips": [ONE], "log_level": "info", **handshakes}
            async with http.put("/settings", json=wanted) as response:
                assert (await response.json())["handshakes"] == holds


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"vips": [], "log_level": "info"}',
        b'{"vips": ["x"], "log_level": "info"}',
        b'{"vips": 7, "log_level": "info"}',
        b'{"vips": ["127.0.0.1"]}',
        b'{"vips": ["127.0.0.1"], "log_level": "loud"}',
        b'{"vips": ["127.0.0.1"], "log_level": "info", "handshakes": -1}',
        b'{"vips": ["127.0.0.1"], "log_level": "info", "handshakes": "7"}',
        b'{"vips": ["127.0.0.1"], "log_level": ["info"]}',
    ],
)
async def test_put_settings_that_cannot_be_are_400_and_it_lives(
    running: Process, body: bytes
) -> None:
    async with running.http() as http:
        async with http.put("/settings", data=body) as response:
            problem = await response.json()
            assert response.status == 400
            assert problem["title"] == "Bad settings"
            assert "send" in problem["detail"]
        assert await asyncio.wait_for(running.status(), 5)
