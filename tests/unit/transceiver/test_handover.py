"""Two workers on loopback and one call that goes to and fro between them, over the real sockets.

No kernel program is here: the client goes on sending to the first lane, so all of it is forwarded.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from turnout.errors import SignalingError
from turnout.transceiver.app import AppFactory
from turnout.transceiver.bridge import Backend, Bridges
from turnout.transceiver.echo import Echo
from turnout.transceiver.handover import HandOvers
from turnout.transceiver.link import Link
from turnout.transceiver.moving import FORMAT, build_blob
from turnout.transceiver.worker import Worker
from turnout.wire.rtp import build_rtp, is_rtcp, parse_rtp
from unit.transceiver.test_worker import Caller, until


@dataclass
class Side:
    """A transceiver without its process."""

    worker: Worker
    hand_overs: HandOvers
    callers: list["Roamer"] = field(default_factory=list)

    async def call(self) -> "Roamer":
        """Place a call here; it is connected and has been heard."""
        caller = Roamer(self.worker, "127.0.0.1")
        self.callers.append(caller)
        await caller.connect()
        assert await caller.echo(1, b"1") == b"1"
        return caller

    async def give(self, to: "Side", *session_ids: str) -> dict[str, Any]:
        door = to.hand_overs.open_door()
        report = await self.hand_overs.give(door["door"], door["secret"], session_ids)
        return {kind: entries for kind, entries in report.items() if entries}


@asynccontextmanager
async def sides(app: AppFactory = Echo, *, name: str = "echo", most: int = 9) -> AsyncIterator[Any]:
    made = []
    try:
        for _ in range(3):
            worker = Worker(["127.0.0.1"], 0, app, sessions_max=most)
            made.append(Side(worker, HandOvers(worker, name)))
            worker.start()
        yield made
    finally:
        for side in made:
            side.hand_overs.close()
            side.worker.close()
            for caller in side.callers:
                caller.socket.close()


class Roamer(Caller):
    """A caller that hears every lane: without a kernel program each has its own port."""

    async def connect(self) -> None:
        await super().connect()
        own = self.socket.getsockname()
        lane = self.socket.getpeername()
        self.socket.close()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(own)
        self.lane = lane

    def send(self, data: bytes) -> None:
        if hasattr(self, "lane"):
            self.socket.sendto(data, self.lane)
        else:
            super().send(data)


async def test_call_goes_on_through_many_hands() -> None:
    async with sides() as (first, second, third):
        caller = await first.call()
        session_id = caller.session.id
        number = 1
        for giver, taker in ((first, second), (second, third), (third, first), (first, third)):
            report = await giver.give(taker, session_id)
            client = list(caller.socket.getsockname())
            flows = [{"vip": "127.0.0.1", "client": client}]
            assert report == {"moved": [{"id": session_id, "flows": flows}]}
            assert [*taker.worker.sessions] == [session_id]
            assert not giver.worker.sessions
            for _ in range(5):
                number += 1
                assert await caller.echo(number, b"%d" % number) == b"%d" % number
        # A check still finds its session: it goes to the first lane and has another's answer.
        caller.check()
        await until(lambda: third.worker.counters.handled__stun_request == 1)
        for side in (first, second, third):
            counted = side.worker.counters.as_dict()
            ends = ("handled__", "ignored__", "drop__")
            assert counted["received"] == sum(counted[n] for n in counted if n.startswith(ends))
            assert sum(counted[name] for name in counted if name.startswith("drop__")) == 0


async def test_what_arrives_during_the_move_is_forwarded_in_order() -> None:
    async with sides() as (first, second, _):
        caller = await first.call()
        door = second.hand_overs.open_door()
        give = first.hand_overs.give(door["door"], door["secret"], [caller.session.id])
        moving = asyncio.create_task(give)
        for number in range(2, 200):
            caller.say(number, b"%d" % number)
            if number % 10 == 0:
                await asyncio.sleep(0)
        heard = [await caller.hear() for _ in range(2, 200)]
        await moving
        assert heard == [b"%d" % number for number in range(2, 200)]
        assert second.worker.counters.handled__rtp > 0


async def test_blob_is_taken_once() -> None:
    async with sides() as (first, second, third):
        caller = await first.call()
        given = first.worker.give_session(caller.session.id, ["127.0.0.1"])
        door = second.hand_overs.open_door()
        link = await Link.open(door["door"], door["secret"])
        blob = build_blob({**given.state, "format": FORMAT, "ticket": link.ticket})
        link.send(b"S" + blob)
        assert (await link.answer())["taken"]
        # Ended there, so that it is not for its id that it is refused.
        second.worker.end_session(caller.session.id, "deleted")
        link.send(b"S" + blob)
        again = await link.answer()
        assert (again["taken"], "used before" in again["reason"]) == (False, True)
        link.close()
        # Nor does another process take it.
        door = third.hand_overs.open_door()
        link = await Link.open(door["door"], door["secret"])
        link.send(b"S" + blob)
        assert not (await link.answer())["taken"]
        link.close()
        assert not second.worker.sessions
        assert not third.worker.sessions


async def test_door_lets_nobody_in_without_the_secret() -> None:
    async with sides() as (_, second, _third):
        door = second.hand_overs.open_door()
        with pytest.raises((OSError, ValueError)):
            await Link.open(door["door"], "wrong")
        (await Link.open(door["door"], door["secret"])).close()
        with pytest.raises(ConnectionRefusedError):  # one is let in, once
            await Link.open(door["door"], door["secret"])


async def test_taker_that_dies_before_it_answers_ends_the_call() -> None:
    async with sides() as (first, second, _):
        caller = await first.call()
        door = second.hand_overs.open_door()
        give = first.hand_overs.give

        def die(*_: object) -> None:
            for guest in list(second.hand_overs._guests):
                guest.close()

        second.hand_overs.take = die
        report = await give(door["door"], door["secret"], [caller.session.id])
        (lost,) = report["lost"]
        assert lost["id"] == caller.session.id
        assert not first.worker.sessions
        assert first.worker.counters.sessions_spoiled == 1
        # What still comes is nobody's.
        caller.say(2, b"2")
        await until(lambda: first.worker.counters.drop__no_flow == 1)


async def test_session_stays_where_it_cannot_be_taken() -> None:
    async with sides(most=1) as (first, second, third):
        caller, other = await first.call(), Roamer(second.worker, "127.0.0.1")
        second.callers.append(other)
        door = {"door": "nobody", "secret": "x"}
        with pytest.raises(SignalingError, match="nobody"):
            await first.hand_overs.give(door["door"], door["secret"], [caller.session.id])
        report = await first.give(second, caller.session.id, "0" * 32)
        reasons = [entry["reason"] for entry in report["stayed"]]
        assert [*report] == ["stayed"]
        assert reasons == ["the other transceiver has no room"] * 2
        report = await second.give(third, other.session.id)
        assert "keys" in report["stayed"][0]["reason"]
        assert await caller.echo(2, b"2") == b"2"


async def test_transceiver_with_another_app_takes_nothing() -> None:
    async with sides() as (first, second, _):
        caller = await first.call()
        second.hand_overs._app = "rtp://127.0.0.1:5004"
        report = await first.give(second, caller.session.id)
        assert "app" in report["stayed"][0]["reason"]
        assert await caller.echo(2, b"2") == b"2"


async def test_bridged_call_keeps_its_socket_and_what_waits_in_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as backend:
        backend.bind(("127.0.0.1", 0))
        backend.setblocking(False)
        told: list[Any] = []
        url = f"rtp://127.0.0.1:{backend.getsockname()[1]}"
        async with sides(Bridges(Backend.find(url), told.append), name=url) as (first, second, _):
            caller = Roamer(first.worker, "127.0.0.1")
            first.callers.append(caller)
            await caller.connect()
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(5):
                caller.say(1, b"1")
                data, address = await loop.sock_recvfrom(backend, 2048)
                packet = parse_rtp(data)
                for number in (10, 11, 12):
                    backend.sendto(build_rtp(packet), address)
                    if number == 11:
                        report = await first.give(second, caller.session.id)
                        assert [*report] == ["moved"]
                for _ in range(3):
                    assert await caller.hear() == b"1"
                caller.say(2, b"2")
                _, later = await loop.sock_recvfrom(backend, 2048)
            assert later == address
            assert [announced["event"] for announced in told] == ["call_started"]
            assert not is_rtcp(data)
        assert [announced["event"] for announced in told] == ["call_started", "call_ended"]
