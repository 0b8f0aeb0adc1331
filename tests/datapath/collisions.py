"""Client ports by what the keyed hash makes of them: the same buckets, the same meter."""

from functools import cache

import packets as p

from datapath import FLOW_KEYS, PLACES, Datapath, flow_key
from reference.table import METERS, hash_flow

PORTS = range(1024, 65536)


def flow_hash_of(port: int, client: str = p.CLIENT4) -> int:
    return hash_flow(tuple(FLOW_KEYS), flow_key(client, port))


def buckets_of(datapath: Datapath, port: int, client: str = p.CLIENT4) -> tuple[int, int]:
    """First and second bucket of a flow."""
    places = datapath.table.places(flow_hash_of(port, client))
    return places[0] // PLACES, places[-1] // PLACES


def ports_of(
    datapath: Datapath, buckets: tuple[int, int], count: int, client: str = p.CLIENT4
) -> list[int]:
    """So many ports whose flows may stand in these two buckets, the first one first."""
    ports = _ports_by_buckets(datapath, client)[buckets]
    assert len(ports) >= count, f"only {len(ports)} ports have the buckets {buckets}"
    return ports[:count]


@cache
def _ports_by_buckets(datapath: Datapath, client: str) -> dict[tuple[int, int], list[int]]:
    """Keys and size of the table stay as long as the programs do."""
    ports: dict[tuple[int, int], list[int]] = {}
    for port in PORTS:
        ports.setdefault(buckets_of(datapath, port, client), []).append(port)
    return ports


def ports_of_one_meter() -> tuple[int, int]:
    """Two ports whose flows are counted at one place, under different marks."""
    seen: dict[int, int] = {}
    for port in PORTS:
        flow_hash = flow_hash_of(port)
        other = seen.setdefault(flow_hash % METERS, port)
        if other != port and flow_hash_of(other) >> 16 & 0xFFFFFF != flow_hash >> 16 & 0xFFFFFF:
            return other, port
    raise AssertionError("no two ports meet at a meter")
