"""What `turnout doctor` makes of facts: each check where it is well and where it is not."""

import argparse
import dataclasses
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from turnout.cli import doctor as command
from turnout.cli import run as run_command
from turnout.doctor import examine
from turnout.doctor.finding import FAIL, OK, WARN, Finding
from turnout.kernel.facts import Compiler, Facts, Kernel, PortUse, parse_version
from turnout.kernel.facts.firewall import Firewall
from turnout.kernel.facts.links import Link, Route, XdpProgram
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


def test_examine_host_that_is_well_finds_nothing() -> None:
    assert not_ok() == []


def test_examine_every_finding_that_is_not_ok_has_a_why_and_a_mend() -> None:
    everything_wrong = not_ok(
        kernel=kernel(version=(5, 10), jit=False, config={"CONFIG_NET": "y"}, load_error="EPERM"),
        compiler=Compiler(False, None, "no headers: install some with `apt-get install x`"),
        bpffs_mounted=False,
        links=link(up=False, ethernet=False, mtu=1000, xdp=XdpProgram(7, "", "generic", "")),
        addresses=frozenset(),
        routes=(Route(VIP, "eth9"),),
        firewall=closed_firewall(),
        ports=ports(held("udp", "0.0.0.0", 3478), ephemeral=(1024, 60999)),
    )
    assert len(everything_wrong) >= 14
    for finding in everything_wrong:
        assert finding.why, finding
        assert finding.mend, finding


@pytest.mark.parametrize(
    ("release", "level"),
    [("5.17.15", FAIL), ("5.18.0", OK), ("6.1.0-18-amd64", OK), ("10.0", OK)],
)
def test_kernel_older_than_5_18_fails(release: str, level: str) -> None:
    changed = kernel(release=release, version=parse_version(release))
    assert [one.level for one in findings("kernel", kernel=changed)] == [level]


def test_kernel_option_that_is_missing_is_named() -> None:
    config = {"CONFIG_BPF_SYSCALL": "y", "CONFIG_NET_CLS_ACT": "y", "CONFIG_NET_CLS_BPF": "m"}
    (finding,) = findings("kernel options", kernel=kernel(config=config))
    assert finding.level == FAIL
    assert finding.what == "built without CONFIG_NET_SCH_INGRESS"
    config["CONFIG_NET_SCH_INGRESS"] = "m"
    assert not_ok(kernel=kernel(config=config)) == []


def test_jit_that_is_off_warns() -> None:
    (finding,) = findings("BPF JIT", kernel=kernel(jit=False))
    assert finding.level == WARN
    assert finding.mend == "sysctl -w net.core.bpf_jit_enable=1"


def test_loading_without_capability_says_to_be_root() -> None:
    changed = kernel(
        missing_capabilities=("CAP_BPF",), load_error="Operation not permitted", jit=None
    )
    (finding,) = findings("BPF loading", kernel=changed)
    assert finding.level == FAIL
    assert "CAP_BPF" in finding.what
    assert "sudo" in finding.mend


def test_bpffs_that_is_not_mounted_warns_because_run_mounts_it() -> None:
    settings = FACTS.settings.replace(bpffs=Path("/elsewhere"))
    (finding,) = findings("bpffs", bpffs_mounted=False, settings=settings)
    assert finding.level == WARN
    assert finding.mend.endswith("mount -t bpf bpf /elsewhere")


def test_headers_of_another_version_are_fine_and_none_fail_with_the_package() -> None:
    other = Compiler(True, Headers(Path("/usr/src/x"), "/usr/src/x", exact=False), "")
    assert not_ok(compiler=other) == []
    none = Compiler(True, None, "no kernel headers: `apt-get install linux-headers-amd64`")
    (finding,) = findings("kernel headers", compiler=none)
    assert finding.level == FAIL
    assert "apt-get install" in finding.mend


def test_interface_that_does_not_exist_fails() -> None:
    (finding,) = not_ok(links={})
    assert (finding.level, finding.check) == (FAIL, "interface eth0")


@pytest.mark.parametrize(
    ("changes", "level", "word"),
    [
        ({"up": False}, FAIL, "down"),
        ({"ethernet": False}, FAIL, "Ethernet"),
        ({"mtu": 1279}, WARN, "1279"),
    ],
)
def test_interface_that_cannot_carry_calls_is_named(
    changes: dict[str, Any], level: str, word: str
) -> None:
    (finding,) = not_ok(links=link(**changes))
    assert finding.level == level
    assert word in finding.what


def test_foreign_program_fails_with_its_id_and_ours_is_fine() -> None:
    foreign = XdpProgram(123, "dropper", "native", instance="")
    (finding,) = not_ok(links=link(xdp=foreign))
    assert finding.level == FAIL
    assert "'dropper', id 123, native" in finding.what
    assert "bpftool prog show id 123" in finding.mend
    assert not_ok(links=link(xdp=dataclasses.replace(foreign, instance="default"))) == []


def test_program_of_another_instance_fails_and_names_it() -> None:
    (finding,) = not_ok(links=link(xdp=XdpProgram(9, "ingress", "native", instance="two")))
    assert finding.level == FAIL
    assert finding.mend.endswith("turnout down --instance two")


def test_native_mode_says_whether_it_is_known_or_guessed() -> None:
    def native(**changes: Any) -> str:
        return next(
            one.what
            for one in findings("interface eth0", links=link(**changes))
            if "XDP" in one.what and "program" not in one.what
        )

    assert "native and generic, native reported by the kernel" in native()
    assert "native and generic, native a guess" in native(native=None)
    assert "generic only (reported by the kernel" in native(native=False)
    assert "generic only (a guess" in native(native=None, driver="e1000e")


def test_native_mode_asked_for_and_not_there_warns() -> None:
    settings = FACTS.settings.replace(xdp_mode="native")
    (finding,) = not_ok(settings=settings, links=link(native=False))
    assert (finding.level, finding.check) == (WARN, "interface eth0")


def test_stacked_interfaces_fail_and_name_both() -> None:
    settings = FACTS.settings.replace(interfaces=("br0", "eth0"))
    bridge = dataclasses.replace(LINK, below=("eth0", "eth1"))
    (finding,) = not_ok(
        settings=settings,
        links={"br0": bridge, "eth0": LINK},
        routes=(Route(VIP, "br0"),),
        rp_filters={},
    )
    assert (finding.level, finding.check) == (FAIL, "interface br0")
    assert "eth0" in finding.what


def test_vip_that_is_not_local_fails() -> None:
    (finding,) = not_ok(addresses=frozenset({"192.0.2.3"}))
    assert finding.mend == "ip address add 192.0.2.2/32 dev eth0"


def test_no_vip_at_all_fails() -> None:
    (finding,) = not_ok(settings=FACTS.settings.replace(vips=()), routes=())
    assert (finding.level, finding.check) == (FAIL, "VIPs")


def test_way_out_by_an_interface_without_the_program_fails() -> None:
    (finding,) = not_ok(routes=(Route(VIP, "eth1"),), rp_filters={"eth0": 0})
    assert (finding.level, finding.check) == (FAIL, "way out from 192.0.2.2")
    assert "--interface eth1" in finding.mend


def test_way_out_without_a_default_route_is_fine() -> None:
    assert not_ok(routes=(Route(VIP, ""),)) == []


@pytest.mark.parametrize(("value", "level"), [(0, OK), (1, WARN), (2, OK)])
def test_rp_filter_strict_where_replies_leave_elsewhere_warns(value: int, level: str) -> None:
    settings = FACTS.settings.replace(interfaces=("eth0", "eth1"))
    changes = {
        "settings": settings,
        "links": {"eth0": LINK, "eth1": LINK},
        "rp_filters": {"eth0": 1, "eth1": value},
    }
    assert findings("rp_filter eth0", **changes)[0].level == OK
    assert findings("rp_filter eth1", **changes)[0].level == level


def test_firewall_that_closes_the_lanes_fails_once_for_all_packets() -> None:
    vips = (VIP, ip_address("fd00::2"))
    changed = FACTS.settings.replace(vips=vips, local=True)
    (finding,) = findings("firewall", settings=changed, firewall=closed_firewall())
    assert finding.level == FAIL
    assert "chain inet filter input" in finding.what
    assert "lanes 20000-20999 from eth0/lo to 192.0.2.2, fd00::2" in finding.what
    assert finding.mend == "nft insert rule inet filter input udp dport 20000-20999 accept"


def test_firewall_that_closes_some_lanes_names_those_and_mends_all() -> None:
    dport = {"payload": {"protocol": "udp", "field": "dport"}}
    some = {"match": {"op": "==", "left": dport, "right": {"range": [20000, 20099]}}}
    rule = {"chain": "input", "handle": 4, "expr": [some, {"accept": None}]}
    (finding,) = findings("firewall", firewall=closed_firewall(rule))
    assert "lanes 20100-20999 from" in finding.what
    assert "20000-20999" in finding.mend


def test_firewall_of_iptables_is_mended_with_its_tool() -> None:
    (finding,) = findings("firewall", firewall=closed_firewall(tool="iptables-legacy"))
    assert finding.mend == (
        "iptables-legacy -t filter -I input -p udp --dport 20000:20999 -j ACCEPT"
    )


def test_firewall_that_cannot_be_read_warns_and_claims_nothing() -> None:
    (finding,) = findings("firewall", firewall=Firewall(Ruleset(), ("nft is not installed",)))
    assert (finding.level, finding.what) == (WARN, "nft is not installed")


@pytest.mark.parametrize(
    ("socket", "check"),
    [
        (held("udp", "0.0.0.0", 3478), "shared port"),
        (held("udp", "192.0.2.2", 3478), "shared port"),
        (held("udp", "::", 3478), "shared port"),
        (held("udp", "127.0.0.1", 20500), "lanes"),
        (held("tcp", "::", 8080), "port of --http"),
        (held("tcp", "127.0.0.1", 9478), "port of --metrics"),
    ],
)
def test_port_of_somebody_else_fails_and_ours_is_fine(socket: HeldPort, check: str) -> None:
    (finding,) = not_ok(ports=ports(socket))
    assert (finding.level, finding.check) == (FAIL, check)
    assert "named (pid 77)" in finding.what
    assert not_ok(ports=ports(socket, ours=frozenset({77}))) == []


@pytest.mark.parametrize(
    "socket",
    [
        held("udp", "127.0.0.1", 3478),
        held("tcp", "192.0.2.2", 9478),
    ],
)
def test_port_held_on_another_address_is_free(socket: HeldPort) -> None:
    assert not_ok(ports=ports(socket)) == []


def test_lanes_in_the_ephemeral_range_warn_unless_reserved() -> None:
    (finding,) = not_ok(ports=ports(ephemeral=(20500, 60999), reserved="80"))
    assert finding.level == WARN
    assert finding.mend == "sysctl -w net.ipv4.ip_local_reserved_ports=80,20000-20999"
    assert not_ok(ports=ports(ephemeral=(20500, 60999), reserved="80,20500-21000")) == []


def parser_of(module: Any) -> argparse.ArgumentParser:
    subparsers = argparse.ArgumentParser().add_subparsers()
    module.add_parser(subparsers)
    (parser,) = subparsers.choices.values()
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def test_command_takes_no_flag_that_run_does_not_take() -> None:
    flags, of_run = (
        {flag for action in parser_of(module)._actions for flag in action.option_strings}
        for module in (command, run_command)
    )
    assert flags - of_run == {"--json"}
    no_matter_of_the_host = {"--transceivers", "--app", "--webhook", "--open", "--trusted-proxy"}
    no_matter_of_the_host |= {"--offers-a-minute", "--tls-cert", "--tls-key"}
    assert of_run - flags == no_matter_of_the_host | {"--log-level", "--log-json", "--dry-run"}


def test_table_marks_levels_in_colour_only_when_asked() -> None:
    shown = examine(dataclasses.replace(FACTS, bpffs_mounted=False))
    plain = "\n".join(command.format_findings(shown, 80, colour=False))
    assert "\033" not in plain
    assert "mend: mkdir -p /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf" in plain
    assert plain.endswith(f"{len(shown)} checks: 0 failed, 1 with a warning")
    assert "\033[33mwarn" in "\n".join(command.format_findings(shown, 80, colour=True))


def test_table_keeps_every_line_but_mends_within_the_width() -> None:
    shown = examine(dataclasses.replace(FACTS, firewall=closed_firewall()))
    lines = "\n".join(command.format_findings(shown, 80, colour=False)).splitlines()
    assert max(len(line) for line in lines if "mend:" not in line) <= 80
