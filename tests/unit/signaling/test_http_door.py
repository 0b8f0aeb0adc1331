"""The limits of an HTTP door, on real sockets: clients that are slow, many, or both."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from turnout.signaling.door_metrics import DoorCollector
from turnout.signaling.http_door import DoorLimits, HttpDoor
from turnout.signaling.policy import TlsFiles
from turnout.signaling.tls import TlsDoor
from unit.certificates import write_certificate
from unit.patience import until

PATIENT = DoorLimits(connections=4, first_request=60, next_request=60, request=60)
REQUEST = b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n"


class Served:
    """A door that is open, and its clients."""

    def __init__(self, door: HttpDoor, port: int) -> None:
        self.door = door
        self.counters = door.counters
        self.port = port
        self.may_answer = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    async def get(self) -> bytes:
        """Connect, ask, and return the first line of the answer."""
        reader, writer = await self.connect()
        writer.write(REQUEST)
        return await reader.readline()

    async def leave(self) -> None:
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def serve(limits: DoorLimits, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def wait(_request: web.Request) -> web.Response:
        await served.may_answer.wait()
        return web.Response(text="at last")

    async def read(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    app = web.Application()
    app.router.add_get("/", answer)
    app.router.add_get("/wait", wait)
    app.router.add_post("/", read)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        door = HttpDoor(app, listener, tls, limits)
        served = Served(door, listener.getsockname()[1])
        task = asyncio.create_task(door.serve())
        try:
            yield served
        finally:
            await served.leave()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert len(door) == 0


async def test_request_is_answered_and_counted_by_its_status() -> None:
    async with serve(PATIENT) as served:
        reader, writer = await served.connect()
        for path, status in ((b"/", b"200"), (b"/nothing", b"404"), (b"/", b"200")):
            writer.write(REQUEST.replace(b"/ ", path + b" ", 1))
            head = await reader.readuntil(b"\r\n\r\n")
            assert status in head
            await reader.readexactly(2 if status == b"200" else len(b"404: Not Found"))
        assert served.counters.as_dict()["answered__200"] == 2
        assert served.counters.as_dict()["answered__404"] == 1
        assert served.counters.accepted == len(served.door) == 1


async def test_metrics_show_every_counter_of_a_door() -> None:
    async with serve(PATIENT) as served:
        assert (await served.get()).startswith(b"HTTP/1.1 200")
        registry = CollectorRegistry()
        registry.register(DoorCollector({"http": served.door}))
        lines = generate_latest(registry).decode().splitlines()
        assert 'turnout_http_connections{door="http"} 1.0' in lines
        assert 'turnout_http_connections_accepted_total{door="http"} 1.0' in lines
        assert 'turnout_http_answers_total{door="http",status="200"} 1.0' in lines
        for name in served.counters.as_dict():
            reason = name.partition("__")[2] or "http"
            assert any(f'"{reason}"' in line for line in lines), name


@pytest.mark.parametrize("sent", [b"", b"GET / HTT", REQUEST[:-2]], ids=["nothing", "part", "all"])
async def test_connection_whose_request_does_not_come_is_closed(sent: bytes) -> None:
    async with serve(replace(PATIENT, first_request=0.3)) as served:
        reader, writer = await served.connect()
        writer.write(sent)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        assert served.counters.closed__no_request == 1
        assert len(served.door) == 0


async def test_slowloris_that_sends_byte_by_byte_is_closed() -> None:
    async with serve(replace(PATIENT, first_request=0.5)) as served:
        _, writer = await served.connect()
        writer.write(REQUEST[:-2] + b"A: ")
        # Drips for as long as it may; a door that waits for silence would wait for ever.
        async with asyncio.timeout(20):
            while not served.counters.closed__no_request:
                writer.write(b"x")
                await asyncio.sleep(0.02)
        assert (await served.get()).startswith(b"HTTP/1.1 200")


async def test_slowlorises_in_any_number_do_not_keep_anybody_out() -> None:
    async with serve(PATIENT) as served:
        for _ in range(20):
            _, writer = await served.connect()
            writer.write(b"GET / HTTP/1.1\r\n")
        await until(lambda: served.counters.accepted == 20)
        assert len(served.door) == PATIENT.connections
        assert (await served.get()).startswith(b"HTTP/1.1 200")
        assert served.counters.closed__for_another == 17
        assert len(served.door) == PATIENT.connections


async def test_kept_connection_that_asks_no_more_is_closed() -> None:
    async with serve(replace(PATIENT, next_request=0.3)) as served:
        assert (await served.get()).startswith(b"HTTP/1.1 200")
        await until(lambda: len(served.door) == 0)
        # aiohttp keeps the same time; one of the two closes it.
        assert served.counters.closed__idle <= 1
        assert served.counters.closed__no_request == 0


async def test_newcomer_while_every_connection_has_a_request_under_way_is_refused() -> None:
    async with serve(PATIENT) as served:
        asked = []
        for _ in range(PATIENT.connections):
            reader, writer = await served.connect()
            writer.write(REQUEST.replace(b"/", b"/wait", 1))
            asked.append(reader)
        await until(lambda: not served.door._waiting and len(served.door) == 4)
        with suppress(ConnectionResetError):
            assert await served.get() == b""
        assert served.counters.refused__full == 1
        served.may_answer.set()
        for reader in asked:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert (await served.get()).startswith(b"HTTP/1.1 200")


async def test_request_that_takes_too_long_is_cut() -> None:
    async with serve(replace(PATIENT, request=0.3)) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: edge\r\nContent-Length: 100\r\n\r\nabc")
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        assert served.counters.closed__stuck == 1
        assert len(served.door) == 0


async def test_client_that_hangs_up_leaves_nothing_behind() -> None:
    async with serve(PATIENT) as served:
        _, writer = await served.connect()
        await until(lambda: len(served.door) == 1)
        writer.close()
        await until(lambda: len(served.door) == 0)
        assert not served.door._waiting


async def test_tls_handshake_that_does_not_come_has_a_place_and_a_limit(tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    write_certificate(files, 1)
    limits = replace(PATIENT, first_request=0.5)
    async with serve(limits, TlsDoor(files).context) as served:
        _, writer = await served.connect()
        writer.write(b"hello")  # no TLS at all
        await until(lambda: served.counters.refused__tls == 1)
        for _ in range(3):
            await served.connect()  # silent
        await until(lambda: served.counters.accepted == 4)
        assert len(served.door) == 3
        await until(lambda: len(served.door) == 0)
        trusting = ssl.create_default_context(cafile=str(files.cert))
        trusting.check_hostname = False
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=trusting)
        writer.write(REQUEST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
