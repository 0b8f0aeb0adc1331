"""What `turnout doctor` makes of facts: the host, its kernel and interfaces, and how it is told."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from turnout.cli import doctor as command
from turnout.cli import run as run_command
from turnout.doctor import examine
from turnout.doctor.finding import FAIL, OK, WARN
from turnout.kernel.facts import Compiler, parse_version
from turnout.kernel.facts.links import Route, XdpProgram
from turnout.kernel.headers import Headers
from unit.doctor_facts import (
    FACTS,
    LINK,
    VIP,
    closed_firewall,
    findings,
    held,
    kernel,
    link,
    not_ok,
    ports,
)


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
    no_matter_of_the_host |= {"--offers-a-minute", "--tls-cert", "--tls-key", "--drain-on-stop"}
    no_matter_of_the_host |= {"--transceiver-user"}
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
