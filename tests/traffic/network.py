"""The stage: an edge, the clients and the attacker, each a namespace, on one bridge.

    clients --veth--\
                     bridge (namespace `net`, also the edge's default gateway) --veth-- edge
    attacker --veth-/

All that reaches the edge comes over its one interface, whoever sent it. The attacker can forge any
address: nobody between filters. The edge reaches everybody but these hosts through its gateway, as
on the open Internet, and the gateway swallows what is answered to strangers. (Were they on the
edge's own link, answers would wait for ARP in its sockets' send buffers.)
"""

import json
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

from system.namespaces import (
    CLIENT_ADDRESSES,
    EDGE_ADDRESSES,
    INTERFACE,
    Namespaces,
    command,
    run_in_namespace,
)

ATTACKER_ADDRESSES = {4: "10.77.0.66", 6: "fd77::66"}
GATEWAY_ADDRESSES = {4: "10.77.0.254", 6: "fd77::fe"}
PREFIX_LENGTHS = {4: 24, 6: 64}
_BRIDGE = "bridge"

Drops = Counter[int]


class Network(Namespaces):
    """The four namespaces."""

    def __init__(self, uid: str) -> None:
        super().__init__(uid)
        self.attacker = f"tn-{uid}-attacker"
        self.middle = f"tn-{uid}-net"
        self._hosts = {
            self.edge: list(EDGE_ADDRESSES.values()),
            self.client: [address for both in CLIENT_ADDRESSES.values() for address in both],
            self.attacker: list(ATTACKER_ADDRESSES.values()),
        }

    def build(self) -> None:
        """Create everything and bring it up."""
        for name in (*self._hosts, self.middle):
            command("ip", "netns", "add", name)
            command("ip", "-n", name, "link", "set", "lo", "up")
            run_in_namespace(name, _switch_off_duplicate_detection)
        middle = ("ip", "-n", self.middle)
        command(*middle, "link", "add", _BRIDGE, "type", "bridge", "mcast_snooping", "0")
        command(*middle, "link", "set", _BRIDGE, "up")
        self._add_addresses(self.middle, _BRIDGE, list(GATEWAY_ADDRESSES.values()))
        for number, (name, addresses) in enumerate(self._hosts.items()):
            port = f"port{number}"
            command(
                *("ip", "-n", name, "link", "add", INTERFACE, "type", "veth"),
                *("peer", "name", port, "netns", self.middle),
            )
            command(*middle, "link", "set", port, "master", _BRIDGE, "up")
            self._add_addresses(name, INTERFACE, addresses)
            command("ip", "-n", name, "link", "set", INTERFACE, "up")
        self._add_routes()

    def remove(self) -> None:
        """Remove the namespaces; what is inside goes with them."""
        for name in (*self._hosts, self.middle):
            if (Path("/run/netns") / name).exists():
                command("ip", "netns", "delete", name)

    def hardware_address(self, namespace: str) -> bytes:
        """Return the MAC address of a host's interface."""
        shown = json.loads(command("ip", "-n", namespace, "-json", "link", "show", INTERFACE))
        return bytes.fromhex(shown[0]["address"].replace(":", ""))

    def dropped_by_links(self) -> int:
        """Return how many packets the links between clients and edge had no room for.

        Full rings and full backlogs alike, whoever the packet was for: a veth counts at its sending
        end what the other end could not take. What a program drops is not among them, nor is what
        goes on elsewhere on this machine.
        """
        dropped = 0
        for name in (self.client, self.edge):
            port = f"port{list(self._hosts).index(name)}"
            for namespace, interface in ((name, INTERFACE), (self.middle, port)):
                ip = ("ip", "-n", namespace, "-json", "-s", "link", "show", interface)
                dropped += json.loads(command(*ip))[0]["stats64"]["tx"]["dropped"]
        return dropped

    def socket_drops(self, namespace: str) -> Drops:
        """Return by port how many datagrams a host's UDP sockets had no room for."""

        def read() -> Drops:
            drops: Drops = Counter()
            for name in ("udp", "udp6"):
                # /proc/net is that of the process's first thread: we are another one.
                rows = Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
                for fields in map(str.split, rows):
                    drops[int(fields[1].rpartition(":")[2], 16)] += int(fields[-1])
            return drops

        return run_in_namespace(namespace, read)

    def _add_routes(self) -> None:
        """Give the edge a route to each host, and one through the gateway to all else."""
        hosts = [*self._hosts[self.client], *self._hosts[self.attacker]]
        hosts += GATEWAY_ADDRESSES.values()
        routes: list[tuple[str, tuple[str, ...]]] = [(address, ()) for address in hosts]
        routes += [("default", ("via", gateway)) for gateway in GATEWAY_ADDRESSES.values()]
        for target, via in routes:
            version = ("-6",) if ":" in "".join((target, *via)) else ()
            ip = ("ip", "-n", self.edge, *version)
            command(*ip, "route", "add", target, *via, "dev", INTERFACE)

    def _add_addresses(self, namespace: str, interface: str, addresses: list[str]) -> None:
        for address in addresses:
            length = PREFIX_LENGTHS[6 if ":" in address else 4]
            if namespace == self.edge:
                length = ip_address(address).max_prefixlen
            command(
                *("ip", "-n", namespace, "address", "add", f"{address}/{length}"),
                *("dev", interface, "nodad"),
            )


def _switch_off_duplicate_detection() -> None:
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/accept_dad").write_text("0")
