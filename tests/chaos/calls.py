"""Real calls (aiortc) that go on meanwhile, with what came back accounted for packet by packet.

A worker of the stage (stage.py), in the clients' namespace.
"""

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import aiohttp

from traffic.datagrams import Gaps
from traffic.worker import answer
from turnout.calling import Call
from turnout.errors import TurnoutError

_CONNECT_SECONDS = 20.0
_FIRST_TONE, _TONE_STEP, _TONES = 400, 50, 40


@dataclass(frozen=True, slots=True)
class Standing:
    """The figures of one call, from its beginning; `gap_ns` since it was asked for last."""

    session: str
    sent: int
    lost_back: int  # as RTP counts
    gap_ns: int  # the longest between two packets that came
    heard: int  # windows of 100 ms with its own tone
    is_up: bool


class _Ear:
    """Stands before the receiver of a call and notes when packets come."""

    def __init__(self, call: Call) -> None:
        self.gaps = Gaps()
        receiver: Any = call.peer._receiver
        take = receiver._handle_rtp_packet

        async def note(packet: Any, arrival_time_ms: int) -> None:
            self.gaps.note(0, time.monotonic_ns())
            await take(packet, arrival_time_ms=arrival_time_ms)

        receiver._handle_rtp_packet = note


class Calls:
    """All of them, in one event loop."""

    def __init__(self, whip: str) -> None:
        self._whip = whip
        self._calls: dict[str, tuple[Call, _Ear]] = {}
        self._placed = 0

    async def keep(self, count: int) -> None:
        """Set up calls until there are so many."""
        while len(self._calls) < count:
            tone = _FIRST_TONE + self._placed % _TONES * _TONE_STEP
            self._placed += 1
            call = Call(self._whip, tone=tone, connect_timeout=_CONNECT_SECONDS)
            ear = _Ear(call)
            await call.connect()
            resource = call.report().session
            assert resource is not None
            self._calls[resource.rpartition("/")[2]] = call, ear

    async def standing(self) -> list[Standing]:
        """Return the figures of all."""
        return [await _look(session, *call) for session, call in self._calls.items()]

    async def resource(self, session: str) -> int:
        """Ask for the call's WHIP resource; returns the status of the answer."""
        url = self._calls[session][0].report().session
        assert url is not None
        async with aiohttp.ClientSession() as http, http.get(url) as reply:
            return reply.status

    async def hang_up(self, sessions: list[str]) -> None:
        """End these; that one is over already is as good."""
        for session in sessions:
            call, _ = self._calls.pop(session)
            with suppress(TurnoutError):
                await call.hang_up()


async def _look(session: str, call: Call, ear: _Ear) -> Standing:
    media = await call.peer.read_media()
    return Standing(
        session=session,
        sent=media.sent,
        lost_back=media.lost_back,
        gap_ns=max(ear.gaps.take(time.monotonic_ns()).values(), default=0),
        heard=call.detector.tone_windows,
        is_up=(call.peer.ice_state, call.peer.dtls_state) == ("completed", "connected"),
    )


async def _obey(pipe: Connection, whip: str) -> None:
    calls = Calls(whip)
    loop = asyncio.get_running_loop()
    messages: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
    loop.add_reader(pipe.fileno(), lambda: messages.put_nowait(pipe.recv()))
    while True:
        verb, *arguments = await messages.get()
        if verb == "keep":
            await calls.keep(*arguments)
            answer(pipe)
        elif verb == "standing":
            answer(pipe, await calls.standing())
        elif verb == "resource":
            answer(pipe, await calls.resource(*arguments))
        elif verb == "hang up":
            await calls.hang_up(*arguments)
            answer(pipe)


def play(pipe: Connection, whip: str) -> None:
    """Do as the stage says until it ends us."""
    # aioice sends its last checks again when the call is over; asyncio tells of each.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    asyncio.run(_obey(pipe, whip))
