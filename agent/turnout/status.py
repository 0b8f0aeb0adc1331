"""The whole picture of an edge as plain JSON values: for the local API and for `turnout status`.

With an agent, steering knows the owners and sessions. Without one the kernel steers on, and the
same picture comes from the pinned maps alone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from turnout import __version__
from turnout.adoption import read_owners
from turnout.kernel import host
from turnout.kernel.attach import attached
from turnout.kernel_settings import vips_in_use

if TYPE_CHECKING:
    from turnout.kernel.maps import Maps
    from turnout.kernel.pins import Pins
    from turnout.metrics import Tally
    from turnout.ownership import Owner
    from turnout.settings import Address, Settings
    from turnout.steering import Steering
    from turnout.vips import Vips

Picture = dict[str, Any]

# bpf/abi.h: every packet counted as received ends in one of these.
VERDICTS = ("steered", "drop", "pass")
# CPUs that may be between a packet's `received` and its verdict while the counters are read.
IN_FLIGHT_MOST = 64


def read_counters(maps: "Maps") -> tuple[dict[str, int], bool]:
    """Return the kernel's counters, and whether the verdicts add up to the packets received.

    Packets arrive while the counters are read, so with traffic the sum must lie between what was
    received just before (less a packet in flight a CPU) and just after.
    """
    before = maps.counters.sum_per_cpu(0)["received"]
    counters = maps.counters.sum_per_cpu(0)
    after = maps.counters.sum_per_cpu(0)["received"]
    return counters, add_up(counters, before, after)


def add_up(counters: Mapping[str, int], before: int, after: int) -> bool:
    """Tell whether the verdicts of one reading fit `received` just before and just after it."""
    verdicts = verdict_sum(counters)
    if before == after:
        return verdicts == counters["received"]
    return before - IN_FLIGHT_MOST <= verdicts <= after


def verdict_sum(counters: Mapping[str, int]) -> int:
    """Return the number of packets that got a verdict."""
    return sum(count for name, count in counters.items() if name.partition("__")[0] in VERDICTS)


def read_interfaces(pins: "Pins") -> list[Picture]:
    """Return where the programs are now. Asks netlink: not inside of an event loop."""
    return [
        {
            "name": attachment.interface,
            "mode": attachment.mode,
            "mtu": host.interface(attachment.interface).mtu,
            "egress": attachment.egress,
            "note": attachment.note,
        }
        for attachment in attached(pins)
    ]


def describe_vips(settings: "Settings", vips: "Vips") -> list[Picture]:
    """Return each VIP that is served: the addresses clients are told, whether it is there."""
    offered = vips.offered
    return [
        {
            "vip": str(vip),
            "advertised": [str(one) for one in settings.advertised_for(vip, offered) or [vip]]
            if vip in offered
            else [],
            "present": vips.is_present(vip),
        }
        for vip in vips.served
    ]


def warn_of(settings: "Settings", vips: "Sequence[Address]") -> list[str]:
    """Return what is likely to keep clients out, a line each, for whoever starts or looks."""
    return [
        f"VIP {vip} is a private address and clients are told of it: none from elsewhere gets "
        f"there. Behind 1:1 NAT give the public one: --advertise PUBLIC={vip}"
        for vip in settings.hidden_vips(vips)
    ]


def build_status(
    settings: "Settings",
    maps: "Maps",
    steering: "Steering",
    interfaces: Sequence[Picture],
    tally: "Tally",
    *,
    vips: "Vips",
    drains: Sequence[Picture] = (),
) -> Picture:
    """Return the picture of an edge whose agent is alive."""
    sessions = {slot: len(steering.owner_sessions(slot)) for slot in steering.owners}
    return {
        "instance": settings.instance,
        "version": __version__,
        "agent": True,
        "interfaces": list(interfaces),
        "vips": [str(vip) for vip in vips.served],
        "addresses": describe_vips(settings, vips),
        "warnings": warn_of(settings, vips.offered),
        "shared_port": settings.shared_port,
        "lanes": [settings.lane_first, settings.lane_last],
        "http": str(settings.http),
        "metrics": str(settings.metrics),
        "owners": _owners(maps, steering.owners.values(), sessions),
        "drains": list(drains),
        "confirmed_owners": sorted(steering.confirmed),
        "unconfirmed_sessions": steering.unconfirmed,
        "flows": steering.flows_seen,
        "shared_port_datagrams": tally.shared_port_datagrams,
        **_counters(maps),
    }


def build_status_without_agent(
    instance: str, maps: "Maps", interfaces: Sequence[Picture]
) -> Picture:
    """Return the picture that the pinned maps give on their own."""
    record = maps.settings.lookup(0) or {}
    owners, _ = read_owners(maps)
    sessions = Counter(session["owner"]["slot"] for _, session in maps.sessions.items())
    return {
        "instance": instance,
        "version": __version__,
        "agent": False,
        "interfaces": list(interfaces),
        "vips": [str(vip) for vip in vips_in_use(record)],
        "shared_port": record["shared_port"],
        "lanes": [record["lane_first"], record["lane_last"]],
        "owners": _owners(maps, owners.values(), sessions),
        **_counters(maps),
    }


def _counters(maps: "Maps") -> Picture:
    counters, verdicts_add_up = read_counters(maps)
    return {"counters": counters, "verdicts_add_up": verdicts_add_up}


def _owners(maps: "Maps", owners: "Iterable[Owner]", sessions: Mapping[int, int]) -> list[Picture]:
    return [
        {
            "slot": owner.slot,
            "generation": owner.generation,
            "state": owner.state,
            "lane": owner.lane,
            "kind": owner.kind,
            "sessions": sessions.get(owner.slot, 0),
            **maps.owner_counters.sum_per_cpu(owner.slot),
        }
        for owner in sorted(owners, key=lambda owner: owner.slot)
    ]
