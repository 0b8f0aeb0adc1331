"""A client's own network beside this machine's: a namespace joined to it by a veth.

What the client sends comes in from outside, through the programs on the veth, as a real client's
packets do. Called by __main__.py.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import TracebackType
from typing import Self

from system.namespaces import command

PREFIX = "tn-run-"
NAMESPACES = Path("/run/netns")

Network = IPv4Network | IPv6Network

# RFC 2544 keeps the first for tests of network devices; fd00::/8 is for local use (RFC 4193).
POOLS: dict[int, Network] = {
    4: IPv4Network("198.18.0.0/15"),
    6: IPv6Network("fd74:7572:6e6f::/112"),
}
LENGTHS = {4: 30, 6: 126}


class ClientNamespace:
    """`with` builds it and removes it; `remove` may come earlier."""

    def __init__(self, families: Iterable[int]) -> None:
        """Take the IP versions that the client shall have: those of the VIPs."""
        self.name = f"{PREFIX}{os.getpid()}"
        self.interface = self.name  # our end of the veth: 14 characters at most, 15 are allowed
        self._families = sorted(set(families))

    def __enter__(self) -> Self:
        remove_stale()
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def _build(self) -> None:
        command("ip", "netns", "add", self.name)
        peer = ("peer", "name", "eth0", "netns", self.name)
        command("ip", "link", "add", self.interface, "type", "veth", *peer)
        command("ip", "link", "set", self.interface, "up")
        inside = ("ip", "-n", self.name)
        command(*inside, "link", "set", "lo", "up")
        command(*inside, "link", "set", "eth0", "up")
        for family in self._families:
            network = free_network(family)
            ours, theirs, length = network[1], network[2], network.prefixlen
            # Without nodad a v6 address cannot be used for a second.
            flags = ("nodad",) if family == 6 else ()
            command("ip", "address", "add", f"{ours}/{length}", "dev", self.interface, *flags)
            command(*inside, "address", "add", f"{theirs}/{length}", "dev", "eth0", *flags)
            command(*inside, "route", "add", "default", "via", str(ours))

    def remove(self) -> None:
        """Remove both ends of the veth and the namespace, as far as they are there."""
        with contextlib.suppress(RuntimeError):  # it goes with the namespace, but later
            command("ip", "link", "delete", self.interface)
        if (NAMESPACES / self.name).exists():
            command("ip", "netns", "delete", self.name)


def free_network(family: int) -> Network:
    """Return the first small network of the pool to which this machine has no route yet."""
    shown = json.loads(command("ip", "-json", f"-{family}", "route", "show", "table", "all"))
    routed = [
        ip_network(route["dst"]) for route in shown if route["dst"] not in ("default", "anycast")
    ]
    for network in POOLS[family].subnets(new_prefix=LENGTHS[family]):
        if not any(overlap(network, known) for known in routed):
            return network
    raise RuntimeError(f"this machine has routes to all of {POOLS[family]}")


def overlap(one: Network, other: Network) -> bool:
    """Tell whether two networks of one family share an address; a default route counts not."""
    return other.prefixlen > 0 and (one.network_address in other or other.network_address in one)


def remove_stale() -> None:
    """Remove what runs that were killed left behind: the name holds the pid."""
    names = [path.name for path in NAMESPACES.iterdir()] if NAMESPACES.is_dir() else []
    for name in names:
        pid = name.removeprefix(PREFIX)
        if pid != name and not Path(f"/proc/{pid}").exists():
            command("ip", "netns", "delete", name)
