"""Facts of a host that is well, and how the tests of `turnout doctor` change them."""

import dataclasses
from ipaddress import ip_address
from typing import Any

from turnout.doctor import examine
from turnout.doctor.finding import OK, Finding
from turnout.kernel.facts import Compiler, Facts, Kernel, PortUse
from turnout.kernel.facts.firewall import Firewall
from turnout.kernel.facts.links import Link, Route
from turnout.kernel.facts.ruleset import Ruleset
from turnout.kernel.facts.sockets import HeldPort
from turnout.kernel.headers import Headers
from turnout.kernel.host import Interface
from turnout.settings import Settings

VIP = ip_address("192.0.2.2")
ETH0 = Interface(
    name="eth0",
    index=2,
    mtu=1500,
    kind="",
    up=True,
    ethernet=True,
    master=0,
    lower=0,
    xdp_mode="",
    xdp_program=0,
)
LINK = Link(interface=ETH0, driver="virtio_net", native=True, xdp=None, below=())
KERNEL = Kernel(
    release="6.1.0-18-amd64",
    version=(6, 1),
    config={},
    jit=True,
    missing_capabilities=(),
    load_error="",
)
FACTS = Facts(
    settings=Settings(interfaces=("eth0",), vips=(VIP,)),
    kernel=KERNEL,
    compiler=Compiler(True, Headers(None, "/lib/modules/6.1.0-18-amd64/build", exact=True), ""),
    bpffs_mounted=True,
    links={"eth0": LINK},
    addresses=frozenset({"192.0.2.2", "fd00::2"}),
    routes=(Route(VIP, "eth0"),),
    rp_filters={"eth0": 1},
    firewall=Firewall(Ruleset(), ()),
    ports=PortUse((), frozenset(), (32768, 60999), ""),
)


def findings(check: str, **changes: Any) -> list[Finding]:
    return [one for one in examine(dataclasses.replace(FACTS, **changes)) if one.check == check]


def not_ok(**changes: Any) -> list[Finding]:
    return [one for one in examine(dataclasses.replace(FACTS, **changes)) if one.level != OK]


def link(**changes: Any) -> dict[str, Link]:
    """Facts of eth0, with changes to what netlink says of it or to what is known beside."""
    known = {one.name for one in dataclasses.fields(Link)} & changes.keys()
    interface = dataclasses.replace(
        ETH0, **{name: value for name, value in changes.items() if name not in known}
    )
    beside = {name: changes[name] for name in known}
    return {"eth0": dataclasses.replace(LINK, interface=interface, **beside)}


def kernel(**changes: Any) -> Kernel:
    return dataclasses.replace(KERNEL, **changes)


def held(protocol: str, address: str, port: int, pid: int = 77) -> HeldPort:
    return HeldPort(protocol, ip_address(address), port, 4711, pid, "named")


def ports(*sockets: HeldPort, **changes: Any) -> PortUse:
    return dataclasses.replace(FACTS.ports, held=sockets, **changes)


def closed_firewall(*rules: dict[str, Any], tool: str = "nft") -> Firewall:
    """Build a default-drop input chain with rules."""
    head = {"family": "inet", "table": "filter"}
    base = head | {"name": "input", "hook": "input", "type": "filter", "policy": "drop"}
    ruleset = Ruleset()
    ruleset.add(tool, [{"chain": base}, *({"rule": head | rule} for rule in rules)])
    return Firewall(ruleset, ())
