"""Behind a cloud's 1:1 NAT: the edge has a private address, clients know a public one.

Three hosts: clients - a router that translates both ways (nftables) - the edge, which is told
nothing but its settings file: interface and VIP are the host's own defaults.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from system.edge_process import EdgeProcess
from system.lab import standing, wait_until
from system.namespaces import INTERFACE, Namespaces, command, run_in_namespace
from turnout.calling import Call, CallReport, place_call

pytestmark = pytest.mark.privileged

EDGE, GATEWAY, CLIENT, ROUTER = "10.88.0.2", "10.88.0.1", "203.0.113.2", "203.0.113.1"
# Two public addresses that the router has given to the edge: a cloud lets one change them.
PUBLIC, OTHER_PUBLIC = "203.0.113.5", "203.0.113.6"
URL = f"http://{PUBLIC}:8080/whip"
T = TypeVar("T")
RULES = f"""
table ip nat {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        ip daddr {{ {PUBLIC}, {OTHER_PUBLIC} }} dnat to {EDGE}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        ip saddr {EDGE} snat to {PUBLIC}
    }}
}}
"""


class NatNamespaces(Namespaces):
    """Clients, router and edge, a veth from each of the outer ones to the router."""

    def __init__(self, uid: str) -> None:
        super().__init__(uid)
        self.router = f"tn-{uid}-router"

    def build(self) -> None:
        for name in (self.edge, self.router, self.client):
            command("ip", "netns", "add", name)
            command("ip", "-n", name, "link", "set", "lo", "up")
        self._join(self.edge, EDGE, "inside", GATEWAY)
        self._join(self.client, CLIENT, "outside", ROUTER)
        for public in (PUBLIC, OTHER_PUBLIC):
            command("ip", "-n", self.router, "address", "add", f"{public}/32", "dev", "outside")
        command("ip", "-n", self.edge, "route", "add", "default", "via", GATEWAY)
        command("ip", "-n", self.client, "route", "add", "default", "via", ROUTER)
        forward = Path("/proc/sys/net/ipv4/ip_forward")
        run_in_namespace(self.router, lambda: forward.write_text("1"))
        namespace = f"--net=/run/netns/{self.router}"
        command("nsenter", namespace, "nft", "-f", "-", stdin=RULES)

    def _join(self, name: str, address: str, port: str, other: str) -> None:
        command(
            *("ip", "-n", name, "link", "add", INTERFACE, "type", "veth"),
            *("peer", "name", port, "netns", self.router),
        )
        for where, interface, own in ((name, INTERFACE, address), (self.router, port, other)):
            command("ip", "-n", where, "address", "add", f"{own}/24", "dev", interface)
            command("ip", "-n", where, "link", "set", interface, "up")

    def remove(self) -> None:
        if (Path("/run/netns") / self.router).exists():
            command("ip", "netns", "delete", self.router)
        super().remove()


class NatLab:
    """The three hosts and the edge process, which reads `config`."""

    def __init__(self, directory: Path) -> None:
        uid = f"{os.getpid():x}n"
        self.namespaces = NatNamespaces(uid)
        self.config = directory / "turnout.toml"
        log = directory / "edge.log"
        self.edge = EdgeProcess(self.namespaces, f"nat{uid}", directory / "bpf", log)
        self.edge.where = ["--config", str(self.config)]

    def in_client(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in an event loop of its own in the clients' namespace."""
        return run_in_namespace(self.namespaces.client, lambda: asyncio.run(work()))

    def call(self) -> CallReport:
        return self.in_client(lambda: place_call(URL, duration=2.0, tone=700))


@pytest.fixture
def nat_lab() -> Iterator[NatLab]:
    directory = Path(tempfile.mkdtemp(prefix="tn-nat-"))
    lab = NatLab(directory)
    with standing(lab, directory):
        yield lab


def advertise(lab: NatLab, *public: str) -> None:
    lab.config.write_text(f"# which address clients are told\nadvertise = {json.dumps(public)}\n")


def advertised(lab: NatLab) -> list[list[str]]:
    return [one["advertised"] for one in lab.edge.status()["addresses"]]


def test_call_through_nat_reaches_the_advertised_address_and_hears_its_tone(
    nat_lab: NatLab,
) -> None:
    advertise(nat_lab, PUBLIC)
    nat_lab.edge.start()
    # The host's defaults: the interface of the default route and its preferred source.
    status = nat_lab.edge.status()
    assert [one["name"] for one in status["interfaces"]] == [INTERFACE]
    assert status["addresses"] == [{"vip": EDGE, "advertised": [PUBLIC], "present": True}]
    assert status["warnings"] == []

    report = nat_lab.call()

    assert report.error is None, nat_lab.edge.tail()
    assert report.remote == f"{PUBLIC}:3478"
    assert (report.media.lost_back, report.media.lost_out) == (0, 0)
    after = nat_lab.edge.status()
    assert after["counters"]["steered__rtp"] >= report.media.sent
    assert after["shared_port_datagrams"] == 0
    assert nat_lab.edge.stop() == 0
    assert nat_lab.edge.leftovers() == []


def test_private_vip_is_warned_of_and_a_reload_in_mid_call_advertises_without_a_loss(
    nat_lab: NatLab,
) -> None:
    nat_lab.config.write_text("")
    edge = nat_lab.edge
    edge.start()
    # Loud: at the start, in the status, and by the doctor.
    wait_until(lambda: edge.said(f"WARNING VIP {EDGE} is a private address"), "a warning")
    (warning,) = edge.status()["warnings"]
    assert f"--advertise PUBLIC={EDGE}" in warning
    shown = edge.run_command("status", "--instance", edge.instance).stdout
    assert f"WARNING: {warning}" in shown
    examined = edge.run_command("doctor", "--instance", edge.instance).stdout
    assert f"warn  address told for {EDGE}" in examined

    advertise(nat_lab, OTHER_PUBLIC)
    edge.reload()
    wait_until(lambda: advertised(nat_lab) == [[OTHER_PUBLIC]], "the reload is applied")
    assert edge.status()["warnings"] == []

    async def reload_in_mid_call() -> tuple[CallReport, CallReport]:
        async with Call(URL, tone=500) as call:
            await call.connect()
            await call.talk(1.5)
            advertise(nat_lab, PUBLIC, f"{OTHER_PUBLIC}={EDGE}")
            edge.reload()
            await call.talk(1.5)
            assert advertised(nat_lab) == [[PUBLIC, OTHER_PUBLIC]]
            # A bad file changes nothing, and is one line that says where.
            nat_lab.config.write_text('advertise = "203.0.113"\n')
            edge.reload()
            await call.talk(1.5)
            assert advertised(nat_lab) == [[PUBLIC, OTHER_PUBLIC]]
            advertise(nat_lab, PUBLIC)
            edge.reload()
            await call.talk(1.5)
            later = await place_call(URL, duration=1.5, tone=900)
            await call.hang_up()
        call.judge_tone()
        return call.report(), later

    pids = edge.pids()
    first, later = nat_lab.in_client(reload_in_mid_call)

    assert first.remote == f"{OTHER_PUBLIC}:3478"
    assert later.error is None
    assert later.remote == f"{PUBLIC}:3478"
    assert first.media.sent >= 290
    assert (first.media.lost_out, first.media.lost_back) == (0, 0)
    assert edge.pids() == pids
    assert edge.said(
        f"reload refused, nothing has changed: {nat_lab.config}:1: advertise '203.0.113': must be "
        "PUBLIC or PUBLIC=VIP"
    )
