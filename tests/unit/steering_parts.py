"""What the tests of steering share: settings, an owner, entries of the maps."""

from pathlib import Path

from turnout.draining import Drains
from turnout.handoff import HandOffs
from turnout.settings import Settings
from turnout.signaling.ended import EndedSessions
from turnout.steering import Steering
from turnout.wire.hmac_midstate import sha1_midstates
from turnout.wire.siphash import siphash24
from unit.counted_maps import CountedMaps
from unit.memory_maps import SESSION

SETTINGS = Settings(transceivers=2, lane_first=20000, lane_last=20009)
KEY = bytes(range(16))
PWD = "p" * 24


def transceiver(steering: Steering, slot: int, incarnation: int = 7) -> None:
    steering.register_owner(
        SETTINGS.lane(slot), slot=slot, incarnation=incarnation, kind="transceiver"
    )


def build_drains(steering: Steering, directory: Path) -> Drains:
    """Return drains that no media server is told of."""
    return Drains(steering, {}, EndedSessions(), directory / "drains.json")


def no_hand_offs(steering: Steering) -> HandOffs:
    """Return hand-offs of an edge that has no transceivers of its own."""
    return HandOffs(steering, {}, lambda _ufrag_hash, _flow: False, EndedSessions())


def fill_sessions(maps: CountedMaps) -> None:
    """Let the map take nothing new."""
    maps.sessions.max_entries = len(maps.sessions.records)


def ufrag_hash(ufrag: str) -> int:
    return siphash24(KEY, ufrag.encode())


def session_entry(
    session_id: int, slot: int, generation: int = 1, pwd: str = PWD
) -> dict[str, object]:
    inner, outer = sha1_midstates(pwd.encode())
    return {
        **SESSION,
        "session_id": session_id,
        "owner": {"slot": slot, "generation": generation},
        "hmac_inner": list(inner),
        "hmac_outer": list(outer),
    }
