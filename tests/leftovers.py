"""What of Turnout is on this machine: taken before and after, the difference is what was left.

Used by tiers (everything, after all tests) and live (one instance, after `scripts/run`).
"""

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from system.namespaces import command

OWN_PREFIX = "tn-"  # of every namespace and interface that tests and scripts make


Look = Callable[[], set[str]]


def look() -> set[str]:
    """Return one line for everything of ours that is on this machine now."""
    everywhere = {*_pins("*"), *_namespaces(), *_processes(None)}
    return everywhere | _programs() | _interfaces() | _reserved()


def look_for(instance: str) -> set[str]:
    """Return what one instance in this network namespace can have left: others may be running."""
    ours = {*_pins(instance), *_processes(Path("/proc/self/ns/net").stat().st_ino)}
    return ours | _programs() | _interfaces() | _reserved()


def left_since(before: set[str], look_again: Look, seconds: float = 10.0) -> list[str]:
    """Return what is here that was not in `before`; what is just ending is given `seconds`."""
    deadline = time.monotonic() + seconds
    while (left := look_again() - before) and time.monotonic() < deadline:
        time.sleep(0.2)
    return sorted(left)


def _programs() -> set[str]:
    """XDP and TC programs on any interface: whoever attached one, it was not there before."""
    shown = json.loads(command("bpftool", "-j", "net", "show"))[0]
    return {
        f"{kind} program {program.get('id', '?')} on {program.get('devname', '?')}"
        for kind in ("xdp", "tc")
        for program in shown[kind]
    }


def _pins(instance: str) -> set[str]:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    roots = {Path(fields[1]) / "turnout" for fields in mounts if fields[2] == "bpf"}
    found = (path for root in roots if root.is_dir() for path in root.glob(instance))
    return {f"pins in {path}" for path in found}


def _namespaces() -> set[str]:
    directory = Path("/run/netns")
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    return {f"network namespace {name}" for name in names if name.startswith(OWN_PREFIX)}


def _interfaces() -> set[str]:
    links = json.loads(command("ip", "-json", "link", "show"))
    names = (link["ifname"] for link in links)
    return {f"interface {name}" for name in names if name.startswith(OWN_PREFIX)}


def _processes(network: int | None) -> set[str]:
    """All of ours, or those in the network namespace whose inode is `network`."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode(errors="replace").split("\0")[:-1]
            elsewhere = network not in (None, (path.parent / "ns/net").stat().st_ino)
        except OSError:
            continue  # it ended meanwhile
        pid = int(path.parent.name)
        if pid != os.getpid() and not elsewhere and _is_turnout(arguments):
            found.add(f"process {pid}: {' '.join(arguments)}")
    return found


def _is_turnout(arguments: list[str]) -> bool:
    """`turnout ...`, `python .../turnout ...` or `python -m turnout[.part] ...`."""
    if any(Path(argument).name == "turnout" for argument in arguments[:2]):
        return True
    modules = [after for flag, after in itertools.pairwise(arguments) if flag == "-m"]
    return any(module.partition(".")[0] == "turnout" for module in modules)


def _reserved() -> set[str]:
    text = Path("/proc/sys/net/ipv4/ip_local_reserved_ports").read_text().strip()
    return {f"reserved ports {text}"} if text else set()
