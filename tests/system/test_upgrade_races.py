"""`turnout upgrade` while something else is done to the edge, and on edges of another shape."""

import signal
import subprocess
from pathlib import Path

import pytest

from system.lab import Lab, wait_until
from system.namespaces import command
from system.otherversion import another_abi, upgrade_command
from system.steady import steady_traffic
from turnout.kernel import bpf
from turnout.kernel.pins import Pins

# Each upgrade compiles.
pytestmark = [pytest.mark.privileged, pytest.mark.timeout(600)]

PATIENCE_S = 180.0
SECOND = "eth1"


def _running(lab: Lab) -> list[int]:
    """The ids of the XDP programs that are attached, one an interface."""
    found = []
    for link in Pins(lab.edge.bpffs, lab.edge.instance).links():
        with bpf.open_pin(link) as fd:
            found.append(bpf.link_program(fd))
    return found


def test_upgrade_that_meets_the_end_of_the_edge_leaves_nothing(
    bare_lab: Lab, tmp_path: Path
) -> None:
    lab = bare_lab
    lab.edge.start()
    staging = Pins(lab.edge.bpffs, lab.edge.instance).staging
    with subprocess.Popen(upgrade_command(lab.edge, another_abi(tmp_path / "next"))) as upgrade:
        wait_until(staging.directory.exists, "the upgrade has begun", PATIENCE_S)
        code = lab.edge.stop()
    assert upgrade.returncode == -signal.SIGTERM
    assert lab.edge.said(f"ended process {upgrade.pid} (upgrade)")
    assert (code, lab.edge.leftovers()) == (0, []), lab.edge.tail()


def test_upgrade_of_two_interfaces_in_generic_mode_loses_nothing(
    bare_lab: Lab, tmp_path: Path
) -> None:
    lab = bare_lab
    for change in (f"add {SECOND} type veth peer name nowhere", f"set {SECOND} up"):
        command("ip", "-n", lab.namespaces.edge, "link", *change.split())
    lab.edge.start("--interface", SECOND, "--xdp-mode", "generic")
    before = _running(lab)
    assert len(before) == 2
    with steady_traffic(lab, 10) as steady:
        done = subprocess.run(
            upgrade_command(lab.edge, another_abi(tmp_path / "next")),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        after = _running(lab)
    assert (steady.lost_in, steady.lost_back) == (0, 0), steady.packets
    assert len(after) == 2
    assert len(set(after)) == 1
    assert not set(after) & set(before)
    assert [one["mode"] for one in lab.edge.status()["interfaces"]] == ["generic"] * 2
    assert (lab.edge.stop(), lab.edge.leftovers()) == (0, []), lab.edge.tail()
