"""Steering: an agent killed before any of its writes to the maps, and what the next makes of it.

A story of owners and sessions is told again and again, cut short before its first write, its
second, and so on to its end. After each cut a new agent adopts the maps, and the transceivers that
live say hello.
"""

from collections.abc import Mapping
from typing import Any

from turnout.ownership import kernel_session_id
from turnout.steering import Steering
from unit.counted_maps import CountedMaps
from unit.steering_parts import PWD, SETTINGS, session_entry, transceiver, ufrag_hash

LANE = 20005
NEW_PWD = "q" * 24


class Killed(Exception):
    """The agent has ended."""


class MortalMaps(CountedMaps):
    """Maps whose writer is killed before write number `last`."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.left = last
        for entries in (self.sessions, self.owners, self.lanes):
            self._guard(entries)

    def _guard(self, entries: Any) -> None:
        update, delete = entries.update, entries.delete

        def guarded_update(key: Any, value: Mapping[str, Any]) -> None:
            self._count()
            update(key, value)

        def guarded_delete(key: Any) -> bool:
            self._count()
            return bool(delete(key))

        entries.update, entries.delete = guarded_update, guarded_delete

    def _count(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


class World:
    """What is true whatever the agent knows: who lives and has which sessions."""

    def __init__(self) -> None:
        self.incarnations = {0: 7, 1: 7}
        # By slot of a transceiver: (id, ufrag, pwd), as its hello names them.
        self.has: dict[int, list[tuple[str, str, str]]] = {0: [], 1: []}
        self.asked: set[str] = set()  # ufrags that software has asked the local API to steer
        self.told: set[str] = set()  # of them, those that it was told are

    def tell(self, steering: Steering) -> None:
        """Tell the story."""
        for slot, incarnation in self.incarnations.items():
            transceiver(steering, slot, incarnation)
        media_server = steering.register_owner(LANE).slot
        for number, slot in enumerate((0, 0, 1)):
            self.has[slot].append((f"{number + 1:032x}", f"made{number}", PWD))
        for slot in (0, 1):
            for session_id, ufrag, pwd in self.has[slot]:
                steering.add_session(ufrag, pwd, slot, session_id=session_id, kind="upstream")
        for ufrag in ("asked0", "asked1"):
            self.asked.add(ufrag)
            asked = steering.add_session(ufrag, PWD, media_server)
            self.told.add(ufrag)
        # ICE is restarted, and the client uses what is new.
        restarted = self.has[0][0][0]
        self.has[0].append((restarted, "anew", NEW_PWD))
        steering.add_restart(restarted, "anew", NEW_PWD)
        del self.has[0][0]
        steering.finish_restart(restarted, "anew")
        # One ends on each side.
        ended = self.has[1].pop()[0]
        steering.remove_session(ended)
        self.told.discard("asked1")
        steering.remove_session(asked.id)
        self.asked.discard("asked1")
        # A transceiver dies, and another one comes in its place.
        self.has[0] = []
        steering.set_owner_state(0, "down")
        self.incarnations[0] = 8
        transceiver(steering, 0, 8)
        steering.reconcile_owner(0, ())
        self.has[0].append((f"{9:032x}", "last", PWD))
        steering.add_session("last", PWD, 0, session_id=f"{9:032x}", kind="upstream")
        self.told.clear()
        steering.remove_owner(media_server)
        self.asked.clear()


def told_until(writes: int) -> tuple[World, MortalMaps, bool]:
    """Tell the story until the agent has made so many writes; True if that was all of it."""
    world, maps = World(), MortalMaps(writes)
    try:
        world.tell(Steering(maps.as_maps(), SETTINGS))
    except Killed:
        return world, maps, False
    finally:
        maps.left = -1  # nobody kills the next one
    return world, maps, True


def check(world: World, maps: MortalMaps) -> None:
    """Have the next agent come, and hold the maps to what is true."""
    steering = Steering(maps.as_maps(), SETTINGS)
    for slot, incarnation in world.incarnations.items():
        transceiver(steering, slot, incarnation)
        steering.reconcile_owner(slot, world.has[slot])

    owners = steering.owners
    true = {
        ufrag_hash(ufrag): session_entry(
            kernel_session_id(session_id), slot, owners[slot].generation, pwd
        )
        for slot, sessions in world.has.items()
        for session_id, ufrag, pwd in sessions
    }
    in_doubt = {ufrag_hash(ufrag) for ufrag in world.asked}
    surplus = {key: entry for key, entry in maps.sessions.records.items() if key not in true}
    assert {key: maps.sessions.records.get(key) for key in true} == true
    assert surplus.keys() <= in_doubt
    assert surplus.keys() >= {ufrag_hash(ufrag) for ufrag in world.told}
    for entry in surplus.values():
        slot = entry["owner"]["slot"]
        assert entry["owner"]["generation"] == owners[slot].generation
    lanes = {
        lane: (entry["slot"], entry["generation"])
        for lane, entry in maps.lanes.records.items()
        if entry["generation"]
    }
    assert lanes == {owner.lane: (owner.slot, owner.generation) for owner in owners.values()}
    assert {owners[0].state, owners[1].state} == {"active"}
    # What software was not answered it asks again.
    for ufrag in world.asked if LANE in lanes else ():
        steering.add_session(ufrag, PWD, lanes[LANE][0])
        assert ufrag_hash(ufrag) in maps.sessions.records
    assert steering.unconfirmed == 0


def test_agent_killed_before_any_write_the_next_one_arrives_at_the_truth() -> None:
    writes = 0
    is_told = False
    while not is_told:
        world, maps, is_told = told_until(writes)
        check(world, maps)
        writes += 1
    assert writes > 20
