"""Real calls (aiortc) that go on meanwhile, and new calls that are set up all the time.

A newcomer is either a real one (WHIP, ICE, DTLS, first packet back, hang-up) or, many times a
second so that a share of 99 % can be told, a light one: a session over the local API, a check until
it is answered, media until it comes back.
"""

import asyncio
import itertools
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from traffic.checks import build_check
from traffic.datagrams import NEWCOMER, build_media, build_transaction, parse
from traffic.sessions import Tuple
from traffic.worker import answer
from turnout.calling import Call
from turnout.client import Client
from turnout.errors import TurnoutError

LIGHT_A_SECOND = 20
REAL_A_SECOND = 1
LIGHT_SECONDS = 5.0  # in which a light newcomer must be through
REAL_SECONDS = 10.0
# As ICE: a check is sent again after 100 ms, then twice as long; media is not, the next follows.
_FIRST_WAIT = 0.1
_MEDIA_WAIT = 0.02
_FIRST_PORT = 10_000  # of light newcomers: a port of its own for each, below the ephemeral ones

Come = Callable[[], Coroutine[None, None, None]]


@dataclass(slots=True)
class Newcomers:
    """How the set-ups went since `begin`."""

    light: int = 0
    light_failed: int = 0
    real: int = 0
    real_failed: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Standing:
    """The figures of a call that goes on."""

    source: str | None  # address:port
    sent: int
    lost: int  # both ways, as RTP and RTCP count
    is_up: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where callers call from and to."""

    whip: str
    api: Path
    owner: int  # slot of the lanes that answer light newcomers
    pairs: tuple[tuple[str, Tuple], ...]  # own address, (VIP, shared port)
    mark: bytes


class Callers:
    """All of them, in one event loop."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._calls: list[Call] = []
        self._numbers = itertools.count()
        self._going_on: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []
        self._newcomers = Newcomers()
        self.tuples: list[Tuple] = []  # those that anybody here has had

    async def connect(self, count: int) -> None:
        """Set up calls that stay."""
        for number in range(count):
            call = Call(self._place.whip, tone=400 + 100 * number, connect_timeout=REAL_SECONDS)
            await call.connect()
            self.tuples += _candidates(call)
            self._calls.append(call)

    async def standing(self) -> list[Standing]:
        """Return the figures of those calls."""
        figures = []
        for call in self._calls:
            media = await call.peer.read_media()
            lost = media.lost_back + (media.lost_out or 0)
            is_up = (call.peer.ice_state, call.peer.dtls_state) == ("completed", "connected")
            figures.append(Standing(call.peer.pair()[0], media.sent, lost, is_up))
        return figures

    def begin(self) -> None:
        """Begin to set up new calls."""
        self._newcomers = Newcomers()
        self._background = [
            asyncio.create_task(self._keep_coming(1 / LIGHT_A_SECOND, self._come_lightly)),
            asyncio.create_task(self._keep_coming(1 / REAL_A_SECOND, self._come_really)),
        ]

    async def end(self) -> Newcomers:
        """Stop; those that have begun go on until they are through or have failed."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await asyncio.gather(*self._going_on)
        return self._newcomers

    async def hang_up(self) -> None:
        """End the calls that stayed."""
        for call in self._calls:
            with suppress(TurnoutError):
                await call.hang_up()

    async def _keep_coming(
        self, pause: float, come: Callable[[], Coroutine[None, None, None]]
    ) -> None:
        due = time.monotonic()
        while True:
            task = asyncio.create_task(come())
            self._going_on.add(task)
            task.add_done_callback(self._going_on.discard)
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _come_really(self) -> None:
        self._newcomers.real += 1
        try:
            async with Call(self._place.whip, connect_timeout=REAL_SECONDS) as call:
                await call.connect()
                self.tuples += _candidates(call)
        except (TurnoutError, OSError) as error:
            self._newcomers.real_failed += 1
            self._newcomers.errors.append(f"real: {error}")

    async def _come_lightly(self) -> None:
        self._newcomers.light += 1
        number = next(self._numbers)
        ufrag, pwd = f"new{number:06d}", f"passwordOfNewcomer{number:06d}"
        try:
            async with Client(self._place.api) as client:
                session = await client.add_session(ufrag, pwd, self._place.owner)
                try:
                    async with asyncio.timeout(LIGHT_SECONDS):
                        await self._exchange(number, ufrag, pwd)
                finally:
                    await client.remove_session(session["id"])
        except (TurnoutError, OSError) as error:
            self._newcomers.light_failed += 1
            self._newcomers.errors.append(f"light: {error or type(error).__name__}")

    async def _exchange(self, number: int, ufrag: str, pwd: str) -> None:
        """Check until the success comes, send media until an echo does. TimeoutError."""
        address, target = self._place.pairs[number % len(self._place.pairs)]
        source = (address, _FIRST_PORT + number)
        self.tuples.append(source)
        mark = self._place.mark
        check = build_check(ufrag, pwd, build_transaction(mark, NEWCOMER, number))
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
            opened.bind(source)
            opened.connect(target)
            wait = _FIRST_WAIT
            while not await self._sent(loop, opened, check, wait):
                wait *= 2
            media = build_media(mark, NEWCOMER, number, 1)
            while not await self._sent(loop, opened, media, _MEDIA_WAIT):
                pass

    async def _sent(
        self, loop: asyncio.AbstractEventLoop, opened: socket.socket, datagram: bytes, wait: float
    ) -> bool:
        """Send, and tell whether an answer of the same kind came within `wait` seconds."""
        await loop.sock_sendall(opened, datagram)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while True:
                    numbered = parse(self._place.mark, await loop.sock_recv(opened, 2048))
                    is_media = datagram[0] == 0x80
                    if numbered is not None and bool(numbered.sent_ns) is is_media:
                        return True
        return False


def _candidates(call: Call) -> list[Tuple]:
    """Return all tuples that a call may have checked from."""
    lines = call.peer.connection.localDescription.sdp.splitlines()
    fields = [line.split() for line in lines if line.startswith("a=candidate:")]
    return [(parts[4], int(parts[5])) for parts in fields]


async def _obey(pipe: Connection, place: Place) -> None:
    callers = Callers(place)
    loop = asyncio.get_running_loop()
    messages: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
    loop.add_reader(pipe.fileno(), lambda: messages.put_nowait(pipe.recv()))
    while True:
        verb, *arguments = await messages.get()
        if verb == "connect":
            await callers.connect(int(arguments[0]))
            answer(pipe)
        elif verb == "standing":
            answer(pipe, await callers.standing())
        elif verb == "begin":
            callers.begin()
            answer(pipe)
        elif verb == "end":
            newcomers = await callers.end()
            answer(pipe, (newcomers, callers.tuples))
        elif verb == "hang up":
            await callers.hang_up()
            answer(pipe)


def play(pipe: Connection, place: Place) -> None:
    """Do as the stage says until it ends us."""
    asyncio.run(_obey(pipe, place))
