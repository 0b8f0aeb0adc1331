"""Facts of the host by netlink: links, addresses, default routes; and the reserved ports.

Called by the edge (defaults, checks before it attaches) and by `turnout doctor`.
"""

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from turnout.errors import KernelError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK = "lo"
RESERVED_PORTS = Path("/proc/sys/net/ipv4/ip_local_reserved_ports")

_ARPHRD_ETHER = 1
_ARPHRD_LOOPBACK = 772
_IFF_UP = 1
_SCOPE_GLOBAL = 0
_TABLE_MAIN = 254
# IFA_F_TEMPORARY (of IPv6; of IPv4 it means "secondary"), DEPRECATED, TENTATIVE, DADFAILED.
_UNFIT_ADDRESS = 0x01 | 0x20 | 0x40 | 0x08
# IFLA_XDP_ATTACHED as pyroute2 decodes it.
_XDP_MODES = {None: "", "xdp": "native", "xdpgeneric": "generic"}


@dataclass(frozen=True, slots=True)
class Interface:
    """One link. `xdp_mode` "" and `xdp_program` 0: no XDP program; `master`, `lower`: 0 if none."""

    name: str
    index: int
    mtu: int
    kind: str
    up: bool
    ethernet: bool
    master: int
    lower: int
    xdp_mode: str
    xdp_program: int


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A default route of the main table; `gateway` None on a point-to-point link."""

    interface: str
    family: int
    gateway: IPAddress | None
    preferred_source: IPAddress | None
    metric: int


def network_namespace() -> int:
    """Return the inode of this process's network namespace."""
    return Path("/proc/self/ns/net").stat().st_ino


def interfaces(ipr: IPRoute | None = None) -> list[Interface]:
    """All links of this network namespace."""
    if ipr is None:
        with IPRoute() as own:
            return interfaces(own)
    return [_interface(message) for message in ipr.get_links()]


def interfaces_below(link: Interface, every: list[Interface]) -> Iterator[Interface]:
    """Walk down all the way: the parent of a VLAN or macvlan, the ports of a bridge or bond."""
    for other in every:
        if other.master == link.index or link.lower == other.index:
            yield other
            yield from interfaces_below(other, every)


def interface(name: str) -> Interface:
    """One link; KernelError names those there are."""
    found = interfaces()
    for link in found:
        if link.name == name:
            return link
    msg = f"no interface {name!r}; there are {', '.join(link.name for link in found)}"
    raise KernelError(msg)


def default_routes() -> list[DefaultRoute]:
    """Default routes, IPv4 first, best metric first."""
    routes = []
    with IPRoute() as ipr:
        names = {link.index: link.name for link in interfaces(ipr)}
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in ipr.get_routes(family=family, table=_TABLE_MAIN):
                if message["dst_len"] or message["type"] != 1:  # RTN_UNICAST
                    continue
                oif = message.get_attr("RTA_OIF")
                if oif not in names:
                    continue
                routes.append(
                    DefaultRoute(
                        interface=names[oif],
                        family=family,
                        gateway=_address(message.get_attr("RTA_GATEWAY")),
                        preferred_source=_address(message.get_attr("RTA_PREFSRC")),
                        metric=message.get_attr("RTA_PRIORITY") or 0,
                    )
                )
    return sorted(routes, key=lambda route: (route.family, route.metric))


def default_interfaces() -> list[str]:
    """Interfaces that carry a default route; without one, the only one with an address."""
    routed = list(dict.fromkeys(route.interface for route in default_routes()))
    if routed:
        return routed
    candidates = [
        link.name
        for link in interfaces()
        if link.up and link.ethernet and link.name != LOOPBACK and addresses(link.name)
    ]
    if len(candidates) == 1:
        return candidates
    what = "no interface with an address is up" if not candidates else ", ".join(candidates)
    msg = f"there is no default route to tell the public interface ({what}): name it, --interface"
    raise KernelError(msg)


def addresses(name: str) -> list[IPAddress]:
    """Global addresses of an interface, IPv4 first, never temporary, deprecated or tentative."""
    index = interface(name).index
    found: list[IPAddress] = []
    with IPRoute() as ipr:
        for message in ipr.get_addr(index=index):
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            address = _address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
            if message["scope"] == _SCOPE_GLOBAL and not flags & _UNFIT_ADDRESS and address:
                found.append(address)
    return sorted(found, key=lambda address: address.version)


def local_addresses() -> frozenset[IPAddress]:
    """Every address of this network namespace, of all interfaces and scopes."""
    with IPRoute() as ipr:
        found = [
            _address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"))
            for message in ipr.get_addr()
        ]
    return frozenset(address for address in found if address is not None)


def default_vips(names: list[str]) -> list[IPAddress]:
    """One address of each family: the default route's preferred source, else the first fit one."""
    preferred = [route for route in default_routes() if route.interface in names]
    vips: list[IPAddress] = []
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        wanted = [r.preferred_source for r in preferred if r.family == family]
        own = [a for name in names for a in addresses(name) if a.version == version]
        choice = next((a for a in wanted if a is not None), own[0] if own else None)
        if choice is not None:
            vips.append(choice)
    return vips


def reserve_ports(first: int, last: int) -> str | None:
    """Keep lanes from being handed out as ephemeral ports.

    Returns the previous text of ip_local_reserved_ports, or None when they are reserved already.
    """
    before = RESERVED_PORTS.read_text().strip()
    if is_reserved(first, last, before):
        return None
    RESERVED_PORTS.write_text(",".join(part for part in (before, f"{first}-{last}") if part))
    return before


def restore_ports(before: str) -> None:
    """Put ip_local_reserved_ports back."""
    RESERVED_PORTS.write_text(before + "\n")


def is_reserved(first: int, last: int, text: str) -> bool:
    """Say whether every port of a range stands in a text like "80,20000-20999"."""
    reserved: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        low, _, high = part.partition("-")
        reserved.update(range(int(low), int(high or low) + 1))
    return all(port in reserved for port in range(first, last + 1))


def _address(text: str | None) -> IPAddress | None:
    return ipaddress.ip_address(text) if text else None


def _interface(message: Any) -> Interface:
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    xdp = message.get_attr("IFLA_XDP")
    mode = xdp.get_attr("IFLA_XDP_ATTACHED") if xdp else None
    program = (xdp.get_attr("IFLA_XDP_PROG_ID") if xdp else 0) or 0
    # A veth's IFLA_LINK is its peer, which may be in another namespace: not what it stands on.
    lower = 0 if kind == "veth" else message.get_attr("IFLA_LINK") or 0
    return Interface(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        mtu=message.get_attr("IFLA_MTU") or 0,
        kind=kind,
        up=bool(message["flags"] & _IFF_UP),
        ethernet=message["ifi_type"] in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK),
        master=message.get_attr("IFLA_MASTER") or 0,
        lower=0 if lower == message["index"] else lower,
        xdp_mode=_XDP_MODES.get(mode, str(mode)),
        xdp_program=program,
    )
