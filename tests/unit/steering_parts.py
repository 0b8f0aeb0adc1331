"""What the tests of steering share: settings, an owner, entries of the maps."""

from turnout.settings import Settings
from turnout.steering import Steering
from turnout.wire.siphash import siphash24
from unit.counted_maps import CountedMaps

SETTINGS = Settings(transceivers=2, lane_first=20000, lane_last=20009)
KEY = bytes(range(16))
PWD = "p" * 24
NOW_NS = 1_000 * 10**9


def transceiver(steering: Steering, slot: int, incarnation: int = 7) -> None:
    steering.register_owner(
        SETTINGS.lane(slot), slot=slot, incarnation=incarnation, kind="transceiver"
    )


def ufrag_hash(ufrag: str) -> int:
    return siphash24(KEY, ufrag.encode())


def session_entry(session_id: int, slot: int, generation: int = 1) -> dict[str, object]:
    return {"session_id": session_id, "owner": {"slot": slot, "generation": generation}}


def add_flow(maps: CountedMaps, port: int, ufrag: str, session_id: int, **changes: object) -> None:
    key = {"client": bytes(16), "client_port": port, "vip": 0}
    flow = {
        "session_id": session_id,
        "ufrag_hash": ufrag_hash(ufrag) if ufrag else 0,
        "alive_ns": NOW_NS,
        "owner": {"slot": 0, "generation": 1},
    }
    maps.flows.update(key, flow | changes)


def flow_ports(maps: CountedMaps) -> list[int]:
    return sorted(key["client_port"] for key, _ in maps.flows.items())
