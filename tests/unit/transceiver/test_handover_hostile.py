"""Hand-offs among strangers, liars and the dying: a call is whole somewhere, or it has ended."""

import array
import asyncio
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from turnout.errors import WireError
from turnout.transceiver.link import GIVER, TAKER, Link, build_proof
from turnout.transceiver.moving import FORMAT, build_blob, parse_blob
from unit.transceiver.peer import build_check
from unit.transceiver.test_handover import Roamer, Side, sides
from unit.transceiver.test_worker import PATIENCE_SECONDS, until

VIP = "127.0.0.1"


async def open_link(to: Side) -> Link:
    door = to.hand_overs.open_door()
    return await Link.open(door["door"], door["secret"])


def let_go(side: Side, caller: Roamer, link: Link, **changes: Any) -> bytes:
    """Let go of a call; returns the message that carries it, with lies in it."""
    given = side.worker.give_session(caller.session.id, [VIP])
    return b"S" + build_blob({**given.state, "format": FORMAT, "ticket": link.ticket, **changes})


def count_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_who_takes_a_door_s_name_learns_nothing() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as squatter:
        name = f"turnout-test-{os.getpid()}"
        squatter.bind(f"\0{name}")
        squatter.listen()
        async with asyncio.timeout(PATIENCE_SECONDS):
            opening = asyncio.create_task(Link.open(name, "the secret"))
            opened, _ = await loop.sock_accept(squatter)
            with opened:
                said = await loop.sock_recv(opened, 1000)
                assert b"secret" not in said
                # What the giver said, said again, proves nothing.
                greeting = {"ticket": "t", "room": 9, "proof": said.decode()}
                await loop.sock_sendall(opened, json.dumps(greeting).encode())
                with pytest.raises(WireError, match="secret"):
                    await opening
                assert await loop.sock_recv(opened, 1000) == b""


def test_each_side_and_door_has_its_own_proof() -> None:
    assert len({build_proof(secret, side) for secret in "ab" for side in (GIVER, TAKER)}) == 4


async def test_stranger_s_descriptors_are_not_taken() -> None:
    async with sides() as (_, second, _third):
        door = second.hand_overs.open_door()
        before = count_descriptors()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(f"\0{door['door']}")
            stranger.settimeout(PATIENCE_SECONDS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
            stranger.sendmsg([b"let me in"], rights)
            assert await asyncio.to_thread(stranger.recv, 10) == b""
        assert count_descriptors() == before


async def test_descriptor_that_is_no_socket_is_closed() -> None:
    async with sides() as (first, second, _):
        caller = await first.call()
        link = await open_link(second)
        before = count_descriptors()
        with open("/dev/null", "rb") as null:  # noqa: ASYNC230, PTH123 - its descriptor is wanted
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()]))]
            link._socket.sendmsg([let_go(first, caller, link)], rights)
            assert (await link.answer())["taken"]
        assert count_descriptors() == before
        link.close()


async def test_call_whose_giver_hears_no_answer_ends_where_it_went() -> None:
    async with sides() as (first, second, _):
        caller = await first.call()
        link = await open_link(second)
        link.send(let_go(first, caller, link))
        link.close()
        await until(lambda: second.worker.counters.sessions_taken == 1)
        assert not second.worker.sessions
        assert second.worker.counters.sessions_ended__failed == 1


async def test_call_is_not_let_go_of_for_one_who_waits_no_longer() -> None:
    async with sides() as (first, second, _):
        caller = await first.call()
        door = second.hand_overs.open_door()
        report = await first.hand_overs.give(
            door["door"], door["secret"], [caller.session.id], until=time.monotonic() - 1
        )
        assert "too long" in report["stayed"][0]["reason"]
        assert await caller.echo(2, b"2") == b"2"


async def test_refused_call_is_not_forwarded_in_a_ring() -> None:
    async with sides() as (first, second, _):
        caller = await first.call()
        await first.give(second, caller.session.id)
        await second.give(first, caller.session.id)
        way = (VIP, caller.socket.getsockname())
        assert way in second.hand_overs._by_client
        link = await open_link(second)
        link.send(let_go(first, caller, link, media={}))
        assert not (await link.answer())["taken"]
        assert way not in second.hand_overs._by_client
        link.close()


@pytest.mark.parametrize(
    "lies",
    [
        {"ice": {}},
        {"ice": {"flows": [{"vip": VIP, "address": 5}], "credentials": ["a"]}},
        {"media": {}},
        {"media": None},
        {"id": ["x"]},
        {"farewell": 7},
        {"transport_mid": "0", "created_at": "soon", "media": {"emission": 1}},
    ],
    ids=",".join,
)
async def test_call_of_which_nonsense_is_told_is_refused_and_leaves_nothing(
    lies: dict[str, Any],
) -> None:
    async with sides() as (first, second, _):
        caller = await first.call()
        link = await open_link(second)
        link.send(let_go(first, caller, link, **lies))
        assert not (await link.answer())["taken"]
        assert not second.worker.sessions
        second.worker.receive_forwarded(VIP, caller.socket.getsockname(), b"\x80" * 40)
        assert second.worker.counters.drop__no_flow == 1
        # The connection is as good as before.
        other = await first.call()
        link.send(let_go(first, other, link))
        assert (await link.answer())["taken"]
        link.close()


def test_blob_that_is_too_deep_is_refused() -> None:
    with pytest.raises(WireError, match="JSON"):
        parse_blob(b'{"format":1,"x":' + b"[" * 100_000)


async def test_way_that_a_forged_check_made_is_not_moved() -> None:
    async with sides() as (first, second, _):
        victim, insider = await first.call(), await first.call()
        forged = build_check(ufrag=insider.ufrag, pwd=insider.pwd)
        first.worker.receive_forwarded(VIP, victim.socket.getsockname(), forged)
        assert len(insider.session.ice.flows) == 2
        (moved,) = (await first.give(second, insider.session.id))["moved"]
        assert [flow["client"] for flow in moved["flows"]] == [list(insider.socket.getsockname())]
        assert await victim.echo(2, b"2") == b"2"


async def test_later_proof_counts_more_than_one_that_comes_with_a_call() -> None:
    async with sides() as (first, second, _):
        before = await first.call()
        # Its address is another client's by now, whose call is at the taker.
        after = Roamer(second.worker, VIP, before.socket)
        await after.connect()
        second.callers.append(after)
        assert [*await first.give(second, before.session.id)] == ["lost"]
        assert await after.echo(1, b"1") == b"1"
