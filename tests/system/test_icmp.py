"""A router on the way to the client says "too big": the lane's host learns the path's MTU.

Three hosts: clients - a router whose link to them takes smaller packets - the edge. Without the
program's help the error would be for a socket at the shared port that never sent the packet.
"""

import errno
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from system.edge_process import EdgeProcess
from system.lab import SHARED_PORT, counted, standing, wait_until
from system.namespaces import INTERFACE, Namespaces, command, open_socket, run_in_namespace
from system.raw import RawOwner, add_session

pytestmark = pytest.mark.privileged

EDGE = {4: "10.99.0.1", 6: "fd99::1"}
INSIDE = {4: "10.99.0.2", 6: "fd99::2"}
OUTSIDE = {4: "10.99.1.1", 6: "fd99:1::1"}
CLIENT = {4: "10.99.1.2", 6: "fd99:1::2"}
PATH_MTU = 1300
LANE = 20500

# linux/in.h, linux/in6.h; Python does not name all of them.
IP_MTU_DISCOVER, IP_RECVERR, IP_PMTUDISC_DO = 10, 11, 2
IPV6_MTU_DISCOVER, IPV6_RECVERR = 23, 25
SOCK_EXTENDED_ERR = struct.Struct("=IBBBBII")


class RouterNamespaces(Namespaces):
    """Edge - router - clients; the router's link to the clients is the narrow one."""

    def __init__(self, uid: str) -> None:
        super().__init__(uid)
        self.router = f"tn-{uid}-router"

    def build(self) -> None:
        for name in (self.edge, self.router, self.client):
            command("ip", "netns", "add", name)
            command("ip", "-n", name, "link", "set", "lo", "up")
            run_in_namespace(name, lambda: set_ipv6("accept_dad", "0"))
        run_in_namespace(self.router, forward)
        self._join(self.edge, EDGE, "inside", INSIDE)
        self._join(self.client, CLIENT, "outside", OUTSIDE)
        for name, port in ((self.client, INTERFACE), (self.router, "outside")):
            command("ip", "-n", name, "link", "set", port, "mtu", str(PATH_MTU))

    def _join(self, name: str, own: dict[int, str], port: str, gateway: dict[int, str]) -> None:
        command(
            *("ip", "-n", name, "link", "add", INTERFACE, "type", "veth"),
            *("peer", "name", port, "netns", self.router),
        )
        for where, interface, addresses in (
            (name, INTERFACE, own),
            (self.router, port, gateway),
        ):
            for family, length in ((4, 24), (6, 64)):
                command(
                    *("ip", "-n", where, "address", "add", f"{addresses[family]}/{length}"),
                    *("dev", interface, "nodad"),
                )
            command("ip", "-n", where, "link", "set", interface, "up")
        for family in (4, 6):
            command(
                *("ip", "-n", name, f"-{family}", "route", "add", "default"),
                *("via", gateway[family]),
            )

    def remove(self) -> None:
        if (Path("/run/netns") / self.router).exists():
            command("ip", "netns", "delete", self.router)
        super().remove()

    def _addresses(self, name: str) -> list[str]:
        return list((EDGE if name == self.edge else CLIENT).values())


def set_ipv6(name: str, value: str) -> None:
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/{name}").write_text(value)


def forward() -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    set_ipv6("forwarding", "1")


class RouterLab:
    """The three hosts and the edge process; an owner of one lane on the edge."""

    def __init__(self, directory: Path) -> None:
        uid = f"{os.getpid():x}p"
        self.namespaces = RouterNamespaces(uid)
        log = directory / "edge.log"
        self.edge = EdgeProcess(self.namespaces, f"icmp{uid}", directory / "bpf", log)
        self.edge.where = ["--interface", INTERFACE, "--xdp-mode", "native"]
        self.edge.where += [part for vip in EDGE.values() for part in ("--vip", vip)]

    def learned_mtu(self, family: int) -> int:
        """Return the path MTU to the client that the edge's host knows; 0: none."""
        shown = command("ip", "-n", self.namespaces.edge, "route", "get", CLIENT[family]).split()
        return int(shown[shown.index("mtu") + 1]) if "mtu" in shown else 0


@pytest.fixture
def router_lab() -> Iterator[RouterLab]:
    directory = Path(tempfile.mkdtemp(prefix="tn-icmp-"))
    lab = RouterLab(directory)
    with standing(lab, directory):
        lab.edge.start(transceivers=1)
        yield lab


def forbid_fragments(lane: socket.socket) -> None:
    """Have the kernel send no fragment, and report errors to the socket that caused them."""
    if lane.family == socket.AF_INET:
        lane.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        lane.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    else:
        lane.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO)
        lane.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)


def wait_for_error(lane: socket.socket) -> tuple[int, int, int]:
    """Return errno, port of the destination and MTU of the next error in the socket's queue."""
    errors: list[tuple[int, int, int]] = []

    def has_error() -> bool:
        with suppress(BlockingIOError):
            flags = socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
            _, ancillary, _, destination = lane.recvmsg(2048, 512, flags)
            for _, kind, data in ancillary:
                if kind in (IP_RECVERR, IPV6_RECVERR):
                    number, *_, mtu, _ = SOCK_EXTENDED_ERR.unpack_from(data)
                    errors.append((number, destination[1], mtu))
        return bool(errors)

    wait_until(has_error, "the lane's socket is told that its packet was too big")
    return errors[0]


@pytest.fixture
def owner(router_lab: RouterLab) -> Iterator[RawOwner]:
    """Not unregistered at the end: then there may be nobody to ask."""
    edge_host = router_lab.namespaces.edge
    with ExitStack() as stack:
        lanes = {
            family: stack.enter_context(open_socket(edge_host, address, LANE))
            for family, address in EDGE.items()
        }
        slot = router_lab.edge.api("POST", "/owners", {"lane": LANE})["slot"]
        yield RawOwner(slot, LANE, lanes)


@pytest.fixture
def clients(router_lab: RouterLab, owner: RawOwner) -> Iterator[dict[int, socket.socket]]:
    """A client of each family whose flow is learned."""
    session = add_session(router_lab.edge, 7, owner)
    with ExitStack() as stack:
        clients = {
            family: stack.enter_context(open_socket(router_lab.namespaces.client, address))
            for family, address in CLIENT.items()
        }
        for family, client in clients.items():
            client.sendto(session.build_check(0), (EDGE[family], SHARED_PORT))
        owner.receive(len(clients))
        yield clients


def require_path_mtu_is_learned(
    lab: RouterLab, owner: RawOwner, clients: dict[int, socket.socket]
) -> None:
    for family, client in clients.items():
        lane, to = owner.sockets[family], client.getsockname()[:2]
        forbid_fragments(lane)
        assert lab.learned_mtu(family) == 0

        lane.sendto(bytes([0x80]) + bytes(1399), to)

        assert wait_for_error(lane) == (errno.EMSGSIZE, to[1], PATH_MTU)
        assert lab.learned_mtu(family) == PATH_MTU
        with pytest.raises(OSError, match="too long"):
            lane.sendto(bytes([0x80]) + bytes(1399), to)
        lane.sendto(bytes([0x80]) + bytes(1199), to)
        assert client.recvfrom(2048)[1][:2] == (EDGE[family], SHARED_PORT)


def test_lane_learns_the_path_mtu(
    router_lab: RouterLab, owner: RawOwner, clients: dict[int, socket.socket]
) -> None:
    edge = router_lab.edge
    before = edge.counters()

    require_path_mtu_is_learned(router_lab, owner, clients)

    assert counted(before, edge.counters())["icmp__translated"] == len(clients)
    assert (edge.stop(), edge.leftovers()) == (0, []), edge.tail()


def test_lane_learns_the_path_mtu_with_the_agent_dead(
    router_lab: RouterLab, owner: RawOwner, clients: dict[int, socket.socket]
) -> None:
    """Killed, with all that would start it again: the shared port is nobody's, the program runs."""
    router_lab.edge.kill_all()

    require_path_mtu_is_learned(router_lab, owner, clients)
