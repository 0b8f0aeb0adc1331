"""Does the host's firewall let the lanes through? A check of `turnout doctor`, pure, on facts.

The firewall comes after XDP and before TC egress, so a steered packet bears its lane there. The
rules are walked with one packet for each stretch of lanes, interface, VIP and direction. Called by
network.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from turnout.doctor.finding import Finding, fail, ok, warn
from turnout.kernel.facts.firewall import Firewall
from turnout.kernel.facts.rule_match import Packet
from turnout.kernel.facts.ruleset import Blocked, Chain
from turnout.settings import Settings


@dataclass(frozen=True, slots=True)
class _Stop:
    """Where lanes are stopped, over all packets that share chain and cause."""

    chain: Chain
    cause: str
    certain: bool
    direction: str


def check_firewall(settings: Settings, firewall: Firewall) -> Iterator[Finding]:
    """Look for base chains that stop packets of a lane on their way in or out."""
    if firewall.unread:
        yield warn(
            "firewall",
            "; ".join(firewall.unread),
            "whether it lets the lanes through cannot be told from here",
            "run as root with the packages nftables and iptables installed, or read the rules "
            f"yourself: UDP {settings.lane_first}-{settings.lane_last} has to be let in",
        )
    stops = _find_stops(settings, firewall)
    for stop, segments in stops.items():
        yield _firewall_finding(settings, stop, segments)
    if not stops and not firewall.unread:
        count = sum(1 for chain in firewall.ruleset.chains.values() if chain.hook)
        rules = f"{count} base chains read" if count else "no rules"
        yield ok("firewall", f"lets the lanes through in both directions ({rules})")


def _find_stops(
    settings: Settings, firewall: Firewall
) -> dict[_Stop, list[tuple[tuple[int, int], Packet]]]:
    stops: dict[_Stop, list[tuple[tuple[int, int], Packet]]] = {}
    ruleset = firewall.ruleset
    for segment in ruleset.lane_segments(settings.lane_first, settings.lane_last):
        for direction in ("in", "out"):
            for interface in settings.attach_interfaces:
                for vip in settings.vips:
                    packet = Packet(direction, interface, vip, segment[0])
                    for blocked in ruleset.walk(packet):
                        stop = _stop(blocked, direction)
                        stops.setdefault(stop, []).append((segment, packet))
    return stops


def _stop(blocked: Blocked, direction: str) -> _Stop:
    return _Stop(blocked.chain, blocked.cause, blocked.certain, direction)


def _firewall_finding(
    settings: Settings, stop: _Stop, stopped: list[tuple[tuple[int, int], Packet]]
) -> Finding:
    lanes = ", ".join(_range(*one) for one in _joined({segment for segment, _ in stopped}))
    packets = [packet for _, packet in stopped]
    names = "/".join(dict.fromkeys(packet.interface for packet in packets))
    vips = ", ".join(dict.fromkeys(str(packet.vip) for packet in packets))
    way = f"from {names} to {vips}" if stop.direction == "in" else f"from {vips} by {names}"
    chain = f"chain {stop.chain.family} {stop.chain.table} {stop.chain.name}"
    make = fail if stop.certain else warn
    return make(
        "firewall",
        f"{chain} ({stop.chain.tool}, hook {stop.chain.hook}) stops UDP of lanes {lanes} {way}: "
        f"{stop.cause}",
        "the firewall comes after XDP and before TC egress: it sees the lane, not the shared port",
        _firewall_mend(settings, stop),
    )


def _joined(segments: set[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join segments that lie side by side."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(segments):
        if joined and joined[-1][1] + 1 == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined


def _firewall_mend(settings: Settings, stop: _Stop) -> str:
    """Build the command that lets all lanes through; at the head, before any rule that drops."""
    chain, first, last = stop.chain, settings.lane_first, settings.lane_last
    port = "dport" if stop.direction == "in" else "sport"
    if chain.tool == "nft":
        where = f"{chain.family} {chain.table} {chain.name}"
        return f"nft insert rule {where} udp {port} {first}-{last} accept"
    rule = f"-I {chain.name} -p udp --{port} {first}:{last} -j ACCEPT"
    return f"{chain.tool} -t {chain.table} {rule}"


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
