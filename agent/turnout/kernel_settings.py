"""The one record of the kernel's `settings` map: written by the agent before anything is attached.

A VIP keeps its index for as long as the map lives, because flows hold the index; the edge key and
the flow keys keep their values for as long, because sessions and flows are hashed with them.
"""

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from turnout.settings import VIPS_MAX, Address, Settings
from turnout.wire.mapped_address import build_mapped, parse_mapped

if TYPE_CHECKING:
    from turnout.kernel.maps import Maps, Record

_UNUSED = bytes(16)
# bpf/clock.h: the kernel counts by ticks of 2^30 ns, a little longer than a second.
_TICK_SECONDS = (2**30, 10**9)
_FLOW_KEYS = 6  # bpf/abi.h: multipliers of the five words of a flow's key, and what is added


def place_vips(held: Sequence[bytes], vips: Sequence[Address]) -> tuple[list[bytes], int]:
    """Return the VIPs by index and the mask of those in use, `held` being what the map has.

    A VIP of before keeps its index. A new one takes an index that never had one; only when there
    is none, that of a VIP that is no longer wanted.
    """
    places = [*held, *[_UNUSED] * (VIPS_MAX - len(held))]
    wanted = [build_mapped(vip) for vip in vips]
    for vip in wanted:
        if vip in places:
            continue
        free = [index for index, place in enumerate(places) if place == _UNUSED]
        free += [index for index, place in enumerate(places) if place not in wanted]
        places[free[0]] = vip
    mask = sum(1 << index for index, place in enumerate(places) if place in wanted)
    return places, mask


def vips_in_use(record: "Record") -> list[Address]:
    """Return the VIPs that the kernel steers, from the record of the settings map."""
    return [
        parse_mapped(place)
        for index, place in enumerate(record["vips"])
        if record["vip_mask"] >> index & 1
    ]


def edge_key_bytes(halves: Sequence[int]) -> bytes:
    """Return the 16-byte SipHash key that the kernel holds as two little-endian u64."""
    return b"".join(half.to_bytes(8, "little") for half in halves)


def per_tick(rate_per_second: int) -> int:
    """Return how many a tick are at least so many a second."""
    tick, second = _TICK_SECONDS
    return -(-rate_per_second * tick // second)


def write_kernel_settings(
    maps: "Maps", settings: Settings, vips: Sequence[Address] | None = None
) -> None:
    """Write the settings the kernel steers by; indexes and keys of an earlier agent stay.

    `vips` are all that are steered, those of the settings if nothing else is said.
    """
    record = maps.settings.lookup(0) or {}
    edge_key = record.get("edge_key", [0, 0])
    if not any(edge_key):
        edge_key = [secrets.randbits(64) for _ in range(2)]
    flow_keys = record.get("flow_keys", [0] * _FLOW_KEYS)
    if not any(flow_keys):
        flow_keys = [secrets.randbits(64) for _ in range(_FLOW_KEYS)]
    limits = settings.limits
    places, mask = place_vips(record.get("vips", ()), settings.vips if vips is None else vips)
    maps.settings.update(
        0,
        {
            "edge_key": edge_key,
            "vips": places,
            "shared_port": settings.shared_port,
            "lane_first": settings.lane_first,
            "lane_last": settings.lane_last,
            "vip_mask": mask,
            "flow_keys": flow_keys,
            "flow_buckets": maps.flows.max_entries,
            "session_flows": limits.flows_per_session,
            "flow_packets": per_tick(limits.flow_packets_per_second),
            "check_budget": per_tick(limits.checks_per_session_per_second),
            "prefix_failures": per_tick(limits.failed_checks_per_prefix_per_second),
        },
    )
