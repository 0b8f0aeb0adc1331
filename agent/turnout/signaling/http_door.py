"""A TCP door for HTTP that nobody can hold shut: bounded in connections, and in time for each.

The edge serves its WHIP door and its metrics with it. What the application answers is counted too,
by status: 413, 429 and the like are limits that held. aiohttp speaks HTTP; what it has no limit
for is here.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

SHUTDOWN_PATIENCE_S = 1.0  # for requests under way when the door closes
# There is nobody to make room and the host has nothing more to give: not asked in a busy loop.
_ACCEPT_PAUSE_S = 0.1
_NO_MORE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """What one door gives its clients, in connections and in seconds."""

    connections: int = 1024
    first_request: float = 10.0  # to the end of a request's headers, TLS handshake included
    next_request: float = 75.0  # the same for a kept connection
    request: float = 60.0  # from there until the application has its answer
    write: float = 30.0  # that the client may leave what is sent to it unacknowledged


@dataclass(slots=True)
class DoorCounters:
    """Connections of one door, and what its application answered by HTTP status."""

    accepted: int = 0
    closed__no_request: int = 0  # the first request did not come in time
    closed__idle: int = 0  # the next one did not
    closed__stuck: int = 0  # a request took too long
    closed__for_another: int = 0  # waited the longest when a newcomer needed its place
    refused__full: int = 0  # every connection has a request under way
    refused__no_descriptor: int = 0  # the host gives no more
    refused__tls: int = 0  # the handshake failed
    answered: Counter[int] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, int]:
        """Return name -> value; an answer's name is answered__<status>."""
        named = {
            name: getattr(self, name) for name in self.__dataclass_fields__ if name != "answered"
        }
        return named | {f"answered__{status}": n for status, n in sorted(self.answered.items())}


class _Connection(asyncio.Protocol):
    """One connection: passes everything on to aiohttp's protocol and hears of its end."""

    def __init__(self, http: RequestHandler, lost: Callable[["_Connection"], None]) -> None:
        self.http = http
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None  # while it is set up
        self.has_asked = False
        self._lost = lost
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.http.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.http.data_received(data)

    def eof_received(self) -> None:
        self.http.eof_received()

    def pause_writing(self) -> None:
        self.http.pause_writing()

    def resume_writing(self) -> None:
        self.http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self)
        self.http.connection_lost(exc)

    def cut(self) -> None:
        """End it at once, whatever it is at."""
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()
        elif self.task is not None:
            self.task.cancel()


class HttpDoor:
    """One application on one listening socket."""

    def __init__(
        self,
        app: web.Application,
        listener: socket.socket,
        tls: ssl.SSLContext | None = None,
        limits: DoorLimits | None = None,
    ) -> None:
        """Take an application that is not served yet and a socket that listens."""
        self.counters = DoorCounters()
        self._app = app
        self._listener = listener
        self._tls = tls
        self._limits = limits or DoorLimits()
        # Every connection, by its protocol of aiohttp's, which is what a request knows.
        self._connections: dict[object, _Connection] = {}
        # Those without a request under way, the one that has waited longest first.
        self._waiting: dict[_Connection, None] = {}
        app.middlewares.insert(0, self._watch)

    def __len__(self) -> int:
        return len(self._connections)

    async def serve(self) -> None:
        """Serve for ever."""
        limits = self._limits
        runner = web.AppRunner(
            self._app,
            access_log=None,
            shutdown_timeout=SHUTDOWN_PATIENCE_S,
            keepalive_timeout=limits.next_request,
        )
        await runner.setup()
        self._listener.setblocking(False)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    accepted = await self._accept()
                    if accepted is not None:
                        self._let_in(accepted, runner, group)
                    # What is in the queue already is taken without a turn for anybody else.
                    await asyncio.sleep(0)
        finally:
            await runner.cleanup()

    async def _accept(self) -> socket.socket | None:
        try:
            accepted, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        except OSError as error:
            if error.errno in _NO_MORE:
                self.counters.refused__no_descriptor += 1
                if not self._make_room():
                    await asyncio.sleep(_ACCEPT_PAUSE_S)
            else:
                log.debug("a connection ended before it was taken: %s", error)
            return None
        self.counters.accepted += 1
        return accepted

    def _let_in(
        self, accepted: socket.socket, runner: web.AppRunner, group: asyncio.TaskGroup
    ) -> None:
        if len(self._connections) >= self._limits.connections and not self._make_room():
            self.counters.refused__full += 1
            accepted.close()
            return
        if runner.server is None:
            raise RuntimeError("the runner is not set up")
        connection = _Connection(runner.server(), self._forget)
        self._connections[connection.http] = connection
        self._wait(connection, self._limits.first_request)
        connection.task = group.create_task(self._set_up(connection, accepted))

    async def _set_up(self, connection: _Connection, accepted: socket.socket) -> None:
        limits = self._limits
        try:
            # Holds for a client that reads nothing as well (tcp(7)).
            accepted.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.write * 1000)
            )
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else limits.first_request,
            )
        except OSError as error:  # ssl.SSLError is one
            self.counters.refused__tls += 1
            log.debug("a connection was not set up: %s", error)
            self._forget(connection)
            accepted.close()
        except asyncio.CancelledError:
            self._forget(connection)
            accepted.close()
            raise
        finally:
            connection.task = None

    def _make_room(self) -> bool:
        """End the connection that has waited longest for a request; False if none waits."""
        connection = next(iter(self._waiting), None)
        if connection is None:
            return False
        self.counters.closed__for_another += 1
        self._forget(connection)
        connection.cut()
        return True

    def _forget(self, connection: _Connection) -> None:
        self._connections.pop(connection.http, None)
        self._waiting.pop(connection, None)
        if connection.timer is not None:
            connection.timer.cancel()
            connection.timer = None

    def _wait(self, connection: _Connection, seconds: float) -> None:
        """Give the connection so long for its next request."""
        self._waiting[connection] = None
        reason = "closed__idle" if connection.has_asked else "closed__no_request"
        self._limit(connection, seconds, reason)

    def _limit(self, connection: _Connection, seconds: float, reason: str) -> None:
        if connection.timer is not None:
            connection.timer.cancel()
        loop = asyncio.get_running_loop()
        connection.timer = loop.call_later(seconds, self._expire, connection, reason)

    def _expire(self, connection: _Connection, reason: str) -> None:
        setattr(self.counters, reason, getattr(self.counters, reason) + 1)
        self._forget(connection)
        connection.cut()

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._connections.get(request.protocol)
        if connection is not None:
            connection.has_asked = True
            self._waiting.pop(connection, None)
            self._limit(connection, self._limits.request, "closed__stuck")
        status = web.HTTPInternalServerError.status_code
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            self.counters.answered[status] += 1
            # It may have ended meanwhile.
            if connection is not None and request.protocol in self._connections:
                self._wait(connection, self._limits.next_request)
        return response
