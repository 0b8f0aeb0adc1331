"""The HTTP doors of an edge, open on loopback: the real applications before a real transceiver.

Only the kernel is missing: its maps are dictionaries. `ask` speaks HTTP by hand, so that a request
may be any bytes.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from fuzz.app.budget import Finding
from turnout.api import build_api
from turnout.metrics import EdgeCollector, Tally, build_metrics_app
from turnout.signaling.ended import EndedSessions
from turnout.signaling.policy import WhipPolicy
from turnout.signaling.problem import build_problem_middleware
from turnout.signaling.upstream import Upstream
from turnout.signaling.whip import build_whip
from turnout.steering import Steering
from turnout.transceiver.control import Control, Identity, listen_at
from turnout.transceiver.echo import Echo
from turnout.transceiver.handover import HandOvers
from turnout.transceiver.worker import Worker
from turnout.wire.problem import CONTENT_TYPE, parse_problem
from unit.counted_maps import CountedMaps
from unit.memory_maps import build_steering
from unit.steering_parts import build_drains, no_hand_offs

ADVERTISED = [("203.0.113.7", 3478), ("2001:db8::7", 3478)]
PATIENCE_S = 10.0
# A request that is not whole waits for so long.
IDLE_S = 0.05
LANE = 20000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a door said; status 0 if it closed without a word."""

    status: int
    headers: dict[str, str]
    body: bytes


class Edge:
    """Ports of the doors, and what must be in step behind them."""

    def __init__(self, steering: Steering, worker: Worker) -> None:
        self.steering = steering
        self.worker = worker
        self.ports: dict[str, int] = {}
        self.faults: list[str] = []

    async def ask(self, door: str, request: bytes, *, idle: bool = False) -> Answer:
        """Send bytes and read what comes; when nothing does, say that this was all.

        Not before: aiohttp takes a half-closed connection for one whose client has gone.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[door])
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(request)
                await writer.drain()
                said = await _read_for(reader, IDLE_S if idle else PATIENCE_S)
                writer.write_eof()
                said += await reader.read(-1)
        except (ConnectionResetError, BrokenPipeError):
            return Answer(0, {}, b"")
        except TimeoutError as error:
            raise Finding(f"{door}: no end after {PATIENCE_S} s to {request!r}") from error
        finally:
            writer.close()
        return _parse_answer(said)

    async def require_good(self, offer: bytes) -> None:
        """Ask each door for what it is there for. Raises Finding."""
        made = await self.ask("whip", build_request("POST", "/whip", offer, "application/sdp"))
        self._require(made, 201, "whip: POST /whip")
        gone = await self.ask("whip", build_request("DELETE", made.headers["location"]))
        self._require(gone, 200, "whip: DELETE")
        for door, path in (("whip", "/"), ("api", "/status"), ("metrics", "/metrics")):
            self._require(await self.ask(door, build_request("GET", path)), 200, f"{door}: {path}")

    def _require(self, answer: Answer, status: int, what: str) -> None:
        if answer.status != status:
            raise Finding(f"{what}: {answer.status} {answer.body[:200]!r}")

    async def clear(self) -> None:
        """End all sessions as their clients would, and see that nothing is left. Raises Finding."""
        for session in list(self.steering.sessions.values()):
            if session.kind == "upstream":
                await self.ask("whip", build_request("DELETE", f"/whip/{session.id}"))
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while self.worker.sessions or any(
            session.kind == "upstream" for session in self.steering.sessions.values()
        ):
            if asyncio.get_running_loop().time() > deadline:
                raise Finding(f"left: {list(self.worker.sessions)}, {list(self.steering.sessions)}")
            await asyncio.sleep(0.01)
        for owner in [o for o in self.steering.owners.values() if o.kind == "registered"]:
            self.steering.remove_owner(owner.slot)
        if self.faults:
            raise Finding(self.faults[0])


def build_request(method: str, path: str, body: bytes = b"", content_type: str = "") -> bytes:
    """Build a plain request that asks for the connection to be closed."""
    lines = [f"{method} {path} HTTP/1.1", "Host: edge", "Connection: close"]
    if body or method in {"POST", "PATCH"}:
        lines.append(f"Content-Length: {len(body)}")
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _read_for(reader: asyncio.StreamReader, seconds: float) -> bytes:
    """Read until the end, or until nothing has come for that long."""
    said = b""
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await reader.read(1 << 16)
        except TimeoutError:
            return said
        if not chunk:
            return said
        said += chunk


def _parse_answer(said: bytes) -> Answer:
    while said.startswith(b"HTTP/1.1 100"):
        said = said.partition(b"\r\n\r\n")[2]
    if not said:
        return Answer(0, {}, b"")
    head, _, body = said.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if "content-length" in headers:
        body = body[: int(headers["content-length"])]
    return Answer(int(status.split(" ")[1]), headers, body)


def judge(door: str, request: bytes, answer: Answer) -> None:
    """Raise Finding for an answer that no request may have."""
    what = f"{door}: {answer.status} {answer.body[:300]!r} to {request[:3000]!r}"
    if answer.status >= 500:
        raise Finding(what)
    if answer.status < 400 or request.startswith(b"HEAD"):
        return
    problem = parse_problem(answer.body)
    kind = answer.headers.get("content-type", "").partition(";")[0]
    if kind != CONTENT_TYPE and _is_of_aiohttp(answer):
        return
    if kind != CONTENT_TYPE or problem is None or not problem[1]:
        raise Finding(f"no problem+json: {what}")
    if json.loads(answer.body)["status"] != answer.status:
        raise Finding(f"another status in its body: {what}")


def _is_of_aiohttp(answer: Answer) -> bool:
    """Whether aiohttp refused by itself: it does not ask the door.

    Bytes that are no HTTP, an Expect it does not know, conditions and ranges of the page's files.
    """
    match answer.status:
        case 400:
            return answer.body != b"400: Bad Request"
        case 412 | 416:
            return answer.body in {b"", b"0\r\n\r\n"}  # or one empty chunk
        case 417:
            return answer.body.startswith(b"Unknown Expect")
    return False


@asynccontextmanager
async def open_edge() -> AsyncIterator[Edge]:
    """Open all doors; at the end they are closed and every task has ended."""
    maps = CountedMaps()
    steering = build_steering(maps, transceivers=1)
    worker = Worker(["127.0.0.1"], 0, Echo)
    worker.lane = LANE  # it says so; no packet is sent here, and another test may have that port
    edge = Edge(steering, worker)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: edge.faults.append(str(context)))
    worker.start()
    registry = CollectorRegistry()
    try:
        with tempfile.TemporaryDirectory() as directory:
            drains = build_drains(steering, Path(directory))
            registry.register(EdgeCollector(maps.as_maps(), steering, Tally(), list, drains))
            path = Path(directory) / "transceiver.sock"
            upstream, ended = Upstream(0, path), EndedSessions()
            whip = build_whip(steering, {0: upstream}, lambda: ADVERTISED, WhipPolicy, ended)
            applications = {
                "whip": whip,
                "api": build_api(
                    steering, drains, no_hand_offs(steering), lambda: {"instance": "fuzz"}
                ),
                "metrics": build_metrics_app(registry, [build_problem_middleware("GET /metrics")]),
            }
            control = Control(worker, Identity(0, 1), HandOvers(worker, "echo"))
            async with control.serve(listen_at(path)):
                follow = loop.create_task(upstream.run(steering, ended.remember))
                try:
                    await _until(lambda: upstream.is_up)
                    async with _serving(edge, applications):
                        yield edge
                finally:
                    follow.cancel()
                    await asyncio.gather(follow, return_exceptions=True)
    finally:
        worker.close()


@asynccontextmanager
async def _serving(edge: Edge, applications: dict[str, web.Application]) -> AsyncIterator[None]:
    runners = []
    try:
        for door, application in applications.items():
            runner: Any = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            edge.ports[door] = runner.addresses[0][1]
        yield
    finally:
        for runner in runners:
            await runner.cleanup()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is polled has no event to wait for
            await asyncio.sleep(0.01)
