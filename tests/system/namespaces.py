"""Two network namespaces joined by a veth: one is the edge's host, one is the clients'.

Everything a test does "over there" is done by a thread that has entered the namespace: setns(2)
moves the calling thread only, and a socket stays in the namespace it was opened in.
"""

import json
import socket
import subprocess
import threading
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import netns

INTERFACE = "eth0"  # the veth's name on both sides
EDGE_ADDRESSES = {4: "10.77.0.1", 6: "fd77::1"}
CLIENT_ADDRESSES = {4: ["10.77.0.2", "10.77.0.3"], 6: ["fd77::2", "fd77::3"]}

SO_RCVBUFFORCE = 33  # asm-generic/socket.h; Python does not name it

T = TypeVar("T")


def command(*arguments: str, stdin: str | None = None) -> str:
    """Run a command and return its output; its error text is in the exception."""
    done = subprocess.run(arguments, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        text = f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}"
        raise RuntimeError(text)
    return done.stdout


def run_in_namespace(name: str, function: Callable[[], T]) -> T:
    """Call the function in a thread that has entered the namespace."""
    results: list[T] = []
    errors: list[BaseException] = []

    def enter_and_call() -> None:
        try:
            netns.setns(name)
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=enter_and_call, name=name, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Namespaces:
    """The pair of namespaces; `with` builds and removes them."""

    def __init__(self, uid: str) -> None:
        self.edge = f"tn-{uid}-edge"
        self.client = f"tn-{uid}-client"

    def build(self) -> None:
        """Create both namespaces, the veth, and two client addresses of each family."""
        for name in (self.edge, self.client):
            command("ip", "netns", "add", name)
            command("ip", "-n", name, "link", "set", "lo", "up")
            # Without it a v6 address is tentative for a second and cannot be bound.
            run_in_namespace(name, _switch_off_duplicate_detection)
        self.join()

    def join(self) -> None:
        """Put a veth between the two, with all addresses."""
        command(
            *("ip", "-n", self.edge, "link", "add", INTERFACE, "type", "veth"),
            *("peer", "name", INTERFACE, "netns", self.client),
        )
        for name in (self.edge, self.client):
            for address in self._addresses(name):
                length = "24" if ip_address(address).version == 4 else "64"
                command(
                    *("ip", "-n", name, "address", "add", f"{address}/{length}"),
                    *("dev", INTERFACE, "nodad"),
                )
            command("ip", "-n", name, "link", "set", INTERFACE, "up")

    def remove(self) -> None:
        """Remove both; what is inside them (the veth, rules, filters) goes with them."""
        for name in (self.edge, self.client):
            if (Path("/run/netns") / name).exists():
                command("ip", "netns", "delete", name)

    def _addresses(self, name: str) -> list[str]:
        if name == self.edge:
            return list(EDGE_ADDRESSES.values())
        return [address for both in CLIENT_ADDRESSES.values() for address in both]

    def edge_link(self) -> dict[str, Any]:
        """Return `ip link` about the edge's interface, with its XDP program if there is one."""
        text = command("ip", "-n", self.edge, "-json", "-details", "link", "show", INTERFACE)
        link: dict[str, Any] = json.loads(text)[0]
        return link

    def edge_filters(self) -> str:
        """Return what `tc` shows of queueing disciplines and filters on the edge's interface."""
        shown = command("tc", "-n", self.edge, "qdisc", "show", "dev", INTERFACE)
        if "clsact" not in shown:
            return ""
        return shown + command("tc", "-n", self.edge, "filter", "show", "dev", INTERFACE, "egress")


def open_socket(
    namespace: str, address: str, port: int = 0, kind: int = socket.SOCK_DGRAM
) -> socket.socket:
    """Return a bound socket of the namespace, with room for a burst and a 10 s patience."""

    def open_it() -> socket.socket:
        family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
        opened = socket.socket(family, kind)
        if kind == socket.SOCK_STREAM:
            # Not for UDP: with it, two sockets may be given the same port.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
        opened.settimeout(10)
        opened.bind((address, port))
        return opened

    return run_in_namespace(namespace, open_it)


def _switch_off_duplicate_detection() -> None:
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/accept_dad").write_text("0")
