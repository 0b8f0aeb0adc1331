"""The agent's part of a hot hand-off: who takes what, and what becomes of a call on its way."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest

from turnout.cli.drain import describe_hand_off
from turnout.cli.main import main
from turnout.errors import SignalingError, SteeringError, UnknownOwner
from turnout.flows import Way
from turnout.handoff import HandOffs
from turnout.kernel.handoff import FlowToMove
from turnout.settings import Settings
from turnout.signaling.ended import EndedSessions
from turnout.signaling.offer_taker import OfferTaker, session_location
from turnout.signaling.restart import Restarts
from turnout.signaling.upstream import Door, Upstream
from turnout.steering import Steering
from turnout.wire.mapped_address import build_mapped
from turnout.wire.sdp import IceCredentials
from turnout.wire.sdpfrag import IceFragment
from unit.counted_maps import CountedMaps
from unit.steering_parts import PWD, transceiver, ufrag_hash

SETTINGS = Settings(transceivers=3, lane_first=20000, lane_last=20009)
VIP = "192.0.2.2"
WAYS = [(VIP, "198.51.100.7", 40000), ("192.0.2.99", "198.51.100.7", 40000)]
Outcome = tuple[str, str, Sequence[Way]]


class Transceiver:
    """Stands where an Upstream stands; `outcome` says what becomes of each session."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.doors = 0
        self.outcome: Callable[[str], Outcome] = lambda _id: ("moved", "", WAYS)
        self.given: list[tuple[str, str]] = []  # session, door
        self.deleted: list[str] = []
        self.left: list[str] = []
        self.has_ended = False

    async def open_door(self) -> Door:
        self.doors += 1
        return Door(f"door of {self.slot}", "secret")

    async def hand_off(self, door: Door, session_id: str) -> Outcome:
        self.given.append((session_id, door.name))
        return self.outcome(session_id)

    @contextmanager
    def expecting(self, _session_id: str) -> Iterator[Callable[[], bool]]:
        yield lambda: self.has_ended

    @contextmanager
    def leaving(self, session_id: str) -> Iterator[None]:
        self.left.append(session_id)
        yield

    async def delete(self, location: str) -> None:
        self.deleted.append(location)


class Edge:
    """Three transceivers; the first has two calls."""

    def __init__(self) -> None:
        self.maps = CountedMaps()
        record = {**(self.maps.settings.lookup(0) or {}), "vips": [build_mapped(VIP)]}
        self.maps.settings.update(0, record)
        self.steering = Steering(self.maps.as_maps(), SETTINGS)
        for slot in range(3):
            transceiver(self.steering, slot)
        self.calls = [self.steering.add_session(name, PWD, 0, kind="upstream") for name in "ab"]
        self.sides = [Transceiver(slot) for slot in range(3)]
        self.followed: list[tuple[int, FlowToMove]] = []
        self.ended = EndedSessions()
        upstreams = cast("dict[int, Upstream]", dict(enumerate(self.sides)))
        self.hand_offs = HandOffs(self.steering, upstreams, self.follow, self.ended)

    def follow(self, key: int, flow: FlowToMove) -> bool:
        # The kernel's sessions entry has its new owner by then.
        assert self.maps.sessions.records[key]["owner"]["slot"] != flow.slot
        self.followed.append((key, flow))
        return True

    def slots(self) -> list[int | None]:
        found = [self.steering.sessions.get(call.id) for call in self.calls]
        return [None if session is None else session.slot for session in found]


@pytest.fixture
def edge() -> Edge:
    return Edge()


def report_of(moved: int, **others: Any) -> dict[str, Any]:
    return {"slot": 0, "moved": moved, "stayed": [], "lost": [], **others}


async def test_calls_go_to_who_has_the_fewest_sessions_then_flows(edge: Edge) -> None:
    assert await edge.hand_offs.move_all(0) == report_of(2)
    assert edge.slots() == [1, 2]
    assert edge.steering.owner_sessions(0) == []
    assert [side.doors for side in edge.sides] == [0, 1, 1]
    # Of two ways one is at a VIP that the kernel does not know.
    flow = FlowToMove("198.51.100.7", 40000, 0, 0, 1)
    assert edge.followed == [(ufrag_hash("a"), flow), (ufrag_hash("b"), flow)]
    entry = edge.maps.sessions.records[ufrag_hash("b")]
    assert entry["owner"] == {"slot": 2, "generation": 1}


async def test_one_door_serves_all_calls_to_one_taker(edge: Edge) -> None:
    assert await edge.hand_offs.move_all(0, 2) == report_of(2)
    assert edge.slots() == [2, 2]
    assert edge.sides[2].doors == 1
    assert [door for _, door in edge.sides[0].given] == ["door of 2"] * 2


async def test_call_that_cannot_move_stays_as_it_is(edge: Edge) -> None:
    edge.sides[0].outcome = lambda _id: ("stayed", "an ICE restart is going on", ())
    report = await edge.hand_offs.move_all(0)
    assert [entry["reason"] for entry in report["stayed"]] == ["an ICE restart is going on"] * 2
    assert edge.slots() == [0, 0]
    assert edge.followed == []
    assert edge.sides[1].deleted == []


async def test_call_that_is_lost_is_ended_at_the_taker_and_its_client_told(edge: Edge) -> None:
    edge.sides[0].outcome = lambda _id: ("lost", "no answer in time", ())
    report = await edge.hand_offs.move_all(0, 1)
    assert [entry["reason"] for entry in report["lost"]] == ["no answer in time"] * 2
    assert edge.slots() == [None, None]
    assert edge.sides[1].deleted == [session_location(call.id) for call in edge.calls]
    assert "lost" in (edge.ended.why(edge.calls[0].id) or "")


async def test_giver_that_dies_in_between_loses_that_call(edge: Edge) -> None:
    def die(_session_id: str) -> Outcome:
        raise SignalingError(503, "Transceiver unreachable", "it has gone")

    edge.sides[0].outcome = die
    report = await edge.hand_offs.move_all(0, 1)
    assert len(report["lost"]) == 2
    assert len(edge.sides[1].deleted) == 2


async def test_door_that_does_not_open_changes_nothing(edge: Edge) -> None:
    async def refuse() -> Door:
        raise SignalingError(503, "Transceiver unreachable", "connection refused")

    edge.sides[1].open_door = refuse  # type: ignore[method-assign]
    report = await edge.hand_offs.move_all(0, 1)
    assert len(report["stayed"]) == 2
    assert edge.slots() == [0, 0]
    assert edge.sides[0].given == []


async def test_lost_call_is_followed_by_a_new_door(edge: Edge) -> None:
    edge.sides[0].outcome = lambda _id: ("lost", "no answer in time", ())
    await edge.hand_offs.move_all(0, 1)
    assert edge.sides[1].doors == 2


async def test_two_hand_offs_at_once_do_not_meet(edge: Edge) -> None:
    under_way: list[str] = []

    async def hand_off(door: Door, session_id: str) -> Outcome:
        assert under_way == []
        under_way.append(session_id)
        await asyncio.sleep(0)
        under_way.remove(session_id)
        edge.sides[0].given.append((session_id, door.name))
        return "moved", "", ()

    edge.sides[0].hand_off = hand_off  # type: ignore[method-assign]
    first, second = await asyncio.gather(edge.hand_offs.move_all(0), edge.hand_offs.move_all(0))
    assert (first, second) == (report_of(2), report_of(0))
    assert len(edge.sides[0].given) == 2


async def test_call_whose_ice_restart_has_just_ended_is_steered_by_its_new_ufrag(
    edge: Edge,
) -> None:
    edge.steering.add_restart(edge.calls[0].id, "c", PWD)
    # Its transceiver gives it away, so it is over; the event may still be on its way.
    assert await edge.hand_offs.move_all(0, 1) == report_of(2)
    session = edge.steering.sessions[edge.calls[0].id]
    assert (session.ufrag, session.restart, session.slot) == ("c", None, 1)
    assert ufrag_hash("a") not in edge.maps.sessions.records
    assert edge.followed[0][0] == ufrag_hash("c")


async def test_call_that_ends_while_others_are_moved_is_in_no_list(edge: Edge) -> None:
    def end_other(session_id: str) -> Outcome:
        (other,) = {call.id for call in edge.calls} - {session_id}
        edge.steering.remove_session(other)
        return "moved", "", WAYS

    edge.sides[0].outcome = end_other
    assert await edge.hand_offs.move_all(0) == report_of(1)
    assert len(edge.sides[0].given) == 1


async def test_call_deleted_by_its_client_meanwhile_is_deleted_where_it_went(edge: Edge) -> None:
    def delete(session_id: str) -> Outcome:
        edge.steering.remove_session(session_id)
        return "moved", "", WAYS

    edge.sides[0].outcome = delete
    assert await edge.hand_offs.move_all(0, 1) == report_of(0)
    assert edge.sides[1].deleted == [session_location(call.id) for call in edge.calls]
    assert edge.followed == []


async def test_call_that_ended_at_the_taker_before_it_was_steered_there_is_over(edge: Edge) -> None:
    edge.sides[1].has_ended = True
    assert await edge.hand_offs.move_all(0, 1) == report_of(0)
    assert edge.slots() == [None, None]


async def test_hand_off_needs_a_giver_and_an_active_taker(edge: Edge) -> None:
    with pytest.raises(UnknownOwner):
        await edge.hand_offs.move_all(7)
    with pytest.raises(SteeringError, match="owner 0"):
        await edge.hand_offs.move_all(0, 0)
    edge.steering.set_drained(1, is_drained=True)
    with pytest.raises(SteeringError, match="owner 1"):
        await edge.hand_offs.move_all(0, 1)
    edge.steering.set_drained(2, is_drained=True)
    with pytest.raises(SteeringError, match="no other"):
        await edge.hand_offs.move_all(0)
    edge.steering.register_owner(20005)
    with pytest.raises(SteeringError, match="own transceivers"):
        await edge.hand_offs.move_all(3)


def test_report_names_each_call_that_did_not_move() -> None:
    report = report_of(3, stayed=[{"id": "a", "reason": "x"}], lost=[{"id": "b", "reason": "y"}])
    assert describe_hand_off(report).splitlines() == [
        "owner 0: 3 calls handed over, 1 stay, 1 lost",
        "  a stays: x",
        "  b is lost: y",
    ]


def test_to_without_hand_off_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drain", "0", "--to", "1"]) == 2
    assert "--hand-off" in capsys.readouterr().err


async def test_ice_restart_that_meets_a_move_goes_to_the_new_owner(edge: Edge) -> None:
    call = edge.calls[0]
    asked: list[int] = []

    class Taker:
        def __init__(self, slot: int) -> None:
            self.slot = slot

        async def restart(self, session_id: str, _fragment: str) -> str | None:
            asked.append(self.slot)
            if self.slot == 0:
                edge.steering.hand_over(session_id, 1, (), edge.follow)
                raise SignalingError(410, "Session ended", "it has left")
            if len(asked) > 2:
                raise SignalingError(410, "Session ended", "it has ended here")
            return None

    restarts = Restarts(edge.steering, cast("dict[int, OfferTaker]", [Taker(0), Taker(1)]))
    fragment = IceFragment(credentials=IceCredentials("newufrag", "n" * 24))
    assert await restarts.restart(call, fragment, ()) is None
    assert asked == [0, 1]
    with pytest.raises(SignalingError, match="ended here"):
        await restarts.restart(edge.steering.sessions[call.id], fragment, ())
