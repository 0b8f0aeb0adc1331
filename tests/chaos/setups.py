"""Sessions made and ended all the time, many a second: by WHIP, by the local API, for real.

By WHIP: an offer, a check from a new address until it is answered, then DELETE, or, where the plan
says so, nothing: then the transceiver ends the session for its silence. Over the local API: the
same as software with its own media server does it; what it was not answered it asks again. Each
twentieth is a real call (aiortc) up to the first packet. A worker of the stage, in the clients'
namespace.
"""

import asyncio
import random
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import aiohttp

from traffic.checks import BINDING_SUCCESS, build_check
from traffic.offering import HEADERS, OFFER, OFFER_UFRAG, parse_answer
from traffic.sessions import Credentials, Tuple
from traffic.worker import answer
from turnout.calling import Call
from turnout.client import Client
from turnout.errors import ApiError, TurnoutError

REAL_OF = 20  # each how manieth is a real call
API_OF = 4
_PATIENCE_SECONDS = 10.0
_FIRST_WAIT = 0.1  # as ICE: then twice as long
_ERRORS = (TurnoutError, OSError, aiohttp.ClientError, RuntimeError)


@dataclass(frozen=True, slots=True)
class Place:
    """Where sessions are made."""

    whip: str
    api: Path
    owner: int  # a registered one
    client: str  # own address
    target: Tuple  # (VIP, shared port)


@dataclass(slots=True)
class Setups:
    """How they went since `begin`."""

    made: int = 0
    failed: int = 0
    kept: int = 0  # left to the transceiver to end
    errors: list[str] = field(default_factory=list)


class Crowd:
    """Everybody who sets up."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._setups = Setups()
        self._going_on: set[asyncio.Task[None]] = set()
        self._coming: asyncio.Task[None] | None = None

    def begin(self, a_second: float, kept: float) -> None:
        """Begin; `kept` is the share of WHIP sessions that nobody deletes."""
        self._setups = Setups()
        self._coming = asyncio.create_task(self._keep_coming(1 / a_second, kept))

    async def end(self) -> Setups:
        """Stop; those that have begun go on until they are through or have failed."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        await asyncio.gather(*self._going_on)
        return self._setups

    async def _keep_coming(self, pause: float, kept: float) -> None:
        chance = random.Random("setups")
        due = time.monotonic()
        number = 0
        while True:
            number += 1
            task = asyncio.create_task(self._come(number, keep=chance.random() < kept))
            self._going_on.add(task)
            task.add_done_callback(self._going_on.discard)
            due += pause
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _come(self, number: int, *, keep: bool) -> None:
        try:
            # Software on the edge's host does not give up what it may have: it knows no other way.
            is_api = number % REAL_OF and number % API_OF == 0
            async with asyncio.timeout(None if is_api else 2 * _PATIENCE_SECONDS):
                if number % REAL_OF == 0:
                    async with Call(self._place.whip, connect_timeout=_PATIENCE_SECONDS) as call:
                        await call.connect()
                elif is_api:
                    await self._use_api()
                else:
                    await self._use_whip(keep=keep)
        except _ERRORS as error:
            self._setups.failed += 1
            self._setups.errors.append(f"{error or type(error).__name__}")
        else:
            self._setups.made += 1

    async def _use_whip(self, *, keep: bool) -> None:
        whip = self._place.whip
        async with aiohttp.ClientSession() as http:
            async with http.post(whip, data=OFFER, headers=HEADERS) as reply:
                text = await reply.text()
                if reply.status != 201:
                    raise RuntimeError(f"an offer was answered {reply.status}: {text[:200]}")
                made = parse_answer(urljoin(whip, reply.headers["Location"]), text)
            await self._check(made.credentials)
            if keep:
                self._setups.kept += 1
                return
            async with http.delete(made.location) as reply:
                if reply.status != 200:
                    raise RuntimeError(f"a DELETE was answered {reply.status}")

    async def _use_api(self) -> None:
        """Make and end a session; software that was not answered asks again."""
        ufrag, pwd = secrets.token_hex(4), secrets.token_hex(16)
        session = None
        while session is None:
            try:
                async with Client(self._place.api) as client:
                    session = await client.add_session(ufrag, pwd, self._place.owner)
            except ApiError as error:
                if error.status:
                    raise
                await asyncio.sleep(_FIRST_WAIT)
        is_asked = False
        while True:
            try:
                async with Client(self._place.api) as client:
                    await client.remove_session(session["id"])
                    return
            except ApiError as error:
                # The agent before may have ended it and not come to say so.
                if error.status and not (is_asked and error.status == 404):
                    raise
                if error.status:
                    return
                is_asked = True
            await asyncio.sleep(_FIRST_WAIT)

    async def _check(self, credentials: Credentials) -> None:
        """Check until it is answered. TimeoutError."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as opened:
            opened.bind((self._place.client, 0))
            opened.connect(self._place.target)
            transaction = secrets.token_bytes(12)
            check = build_check(credentials.ufrag, credentials.pwd, transaction, OFFER_UFRAG)
            wait = _FIRST_WAIT
            while True:
                await loop.sock_sendall(opened, check)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        while True:
                            came = await loop.sock_recv(opened, 2048)
                            kind = int.from_bytes(came[:2])
                            if kind == BINDING_SUCCESS and came[8:20] == transaction:
                                return
                wait *= 2
                if wait > _PATIENCE_SECONDS:
                    raise TimeoutError("a check was not answered")


async def _obey(pipe: Connection, place: Place) -> None:
    crowd = Crowd(place)
    loop = asyncio.get_running_loop()
    messages: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
    loop.add_reader(pipe.fileno(), lambda: messages.put_nowait(pipe.recv()))
    while True:
        verb, *arguments = await messages.get()
        if verb == "begin":
            crowd.begin(*arguments)
            answer(pipe)
        elif verb == "end":
            answer(pipe, await crowd.end())


def play(pipe: Connection, place: Place) -> None:
    """Do as the stage says until it ends us."""
    asyncio.run(_obey(pipe, place))
