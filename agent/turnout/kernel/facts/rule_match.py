"""What one expression of a firewall rule says about a packet of a lane.

Used by ruleset.py only. Names and shapes are those of libnftables-json(5); whatever is not
understood here is UNKNOWN, never guessed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

Address = IPv4Address | IPv6Address
Expression = Mapping[str, Any]
_NOT_UDP = ("tcp", "sctp", "dccp", "udplite", "icmp", "icmpv6", "igmp", "esp", "ah", "arp")


class Certainty(IntEnum):
    """Whether an expression holds for a packet. `and` is min, `or` is max."""

    NO = 0
    UNKNOWN = 1  # the expression is not understood here
    SOME = 2  # for some clients or at some times (source address, limit, mark)
    YES = 3


@dataclass(frozen=True, slots=True)
class Packet:
    """A UDP packet of a lane as the firewall sees it: `in` towards the VIP, `out` from it."""

    direction: str  # "in" or "out"
    interface: str
    vip: Address
    lane: int

    @property
    def family(self) -> str:
        """The nft name of the address family."""
        return f"ip{'' if self.vip.version == 4 else 6}"

    @property
    def ct_state(self) -> str:
        """A client's first packet is new; an owner only ever answers."""
        return "new" if self.direction == "in" else "established"


def negate_if(op: str, held: Certainty) -> Certainty:
    """Turn the answer round for `!=`; what is not certain stays so."""
    if op != "!=" or held in (Certainty.SOME, Certainty.UNKNOWN):
        return held
    return Certainty.NO if held is Certainty.YES else Certainty.YES


def element_of(element: Any) -> Any:
    """Strip what nft wraps around an element that has a timeout, a counter or a comment."""
    if isinstance(element, Mapping) and "elem" in element:
        return element["elem"]["val"]
    return element


def equals(value: object, right: Any) -> Certainty:
    """Compare what the packet has with one value, range or prefix of a rule."""
    if isinstance(right, Mapping):
        return _in_interval(value, right)
    if isinstance(value, IPv4Address | IPv6Address):
        return _yes(str(value) == right)
    if isinstance(value, str) and isinstance(right, str) and right.endswith("*"):
        return _yes(value.startswith(right[:-1]))
    if isinstance(value, tuple):
        return _yes(right in value)
    return _yes(value == right)


def _in_interval(value: object, right: Mapping[str, Any]) -> Certainty:
    if "range" in right and isinstance(value, int):
        first, last = right["range"]
        return _yes(first <= value <= last)
    if isinstance(value, IPv4Address | IPv6Address):
        if "prefix" in right:
            prefix = right["prefix"]
            return _yes(value in ip_network(f"{prefix['addr']}/{prefix['len']}"))
        if "range" in right:
            first, last = (int(ip_address(end)) for end in right["range"])
            return _yes(first <= int(value) <= last)
    return Certainty.UNKNOWN


def compare(value: object, op: str, right: Any) -> Certainty:
    """Compare with <, >, <= or >=; anything but numbers is UNKNOWN."""
    if not isinstance(value, int) or not isinstance(right, int):
        return Certainty.UNKNOWN
    return _yes(
        {"<": value < right, ">": value > right, "<=": value <= right}.get(op, value >= right)
    )


def _yes(held: bool) -> Certainty:
    return Certainty.YES if held else Certainty.NO


# --- what a packet has at the left-hand side of a match, or how certain it is to match -----------


def left_value(left: Expression, packet: Packet) -> Any:
    """Return what the packet has there, or how certain it is to match when that is not a value."""
    for kind, value_of in _LEFT.items():
        if kind in left:
            return value_of(left[kind], packet)
    return Certainty.UNKNOWN


def _payload(body: Mapping[str, Any], packet: Packet) -> Any:
    protocol, name = body.get("protocol"), body.get("field")
    incoming = packet.direction == "in"
    if protocol in ("udp", "th"):
        return packet.lane if name == ("dport" if incoming else "sport") else Certainty.SOME
    if protocol in ("ip", "ip6"):
        fields: dict[Any, Any] = {
            "protocol": ("udp", 17),
            "nexthdr": ("udp", 17),
            "daddr" if incoming else "saddr": packet.vip,
        }
        return fields.get(name, Certainty.SOME) if protocol == packet.family else Certainty.NO
    return Certainty.NO if protocol in _NOT_UDP else Certainty.UNKNOWN


def _meta(body: Mapping[str, Any], packet: Packet) -> Any:
    key = body["key"]
    ours, other = ("i", "o") if packet.direction == "in" else ("o", "i")
    version = packet.vip.version
    values: dict[str, Any] = {
        f"{ours}if": packet.interface,
        f"{ours}ifname": packet.interface,
        f"{other}if": Certainty.UNKNOWN,
        f"{other}ifname": Certainty.UNKNOWN,
        "l4proto": ("udp", 17),
        "nfproto": (f"ipv{version}",),
        "protocol": ("ip", "ipv4") if version == 4 else ("ip6", "ipv6"),
        "pkttype": ("host", "unicast"),
        "mark": Certainty.SOME,
        "skuid": Certainty.SOME,
        "skgid": Certainty.SOME,
    }
    return values.get(key, Certainty.UNKNOWN)


def _ct(body: Mapping[str, Any], packet: Packet) -> Any:
    return packet.ct_state if body["key"] == "state" else Certainty.SOME


def _fib(body: Mapping[str, Any], packet: Packet) -> Any:
    if body.get("result") == "type" and "daddr" in body.get("flags", ()):
        return "local" if packet.direction == "in" else Certainty.SOME
    return Certainty.SOME  # reverse path checks: doctor looks at routes and rp_filter itself


_LEFT: dict[str, Callable[[Mapping[str, Any], Packet], Any]] = {
    "payload": _payload,
    "meta": _meta,
    "ct": _ct,
    "fib": _fib,
}
