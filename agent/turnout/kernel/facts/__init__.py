"""What `turnout doctor` knows of the host: values gathered here, judged in turnout/doctor/.

Gathering changes nothing: netlink and procfs are read, nft and iptables list their rules, and one
two-instruction program is loaded, never attached, and closed again to see that loading works.
"""

import gzip
import importlib.util
import platform
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from turnout.errors import HeadersError
from turnout.kernel import bpf
from turnout.kernel.attach import attached
from turnout.kernel.facts.firewall import Firewall, read_firewall
from turnout.kernel.facts.links import (
    Link,
    Route,
    local_addresses,
    read_links,
    reply_routes,
    rp_filter,
)
from turnout.kernel.facts.processes import Process, read_processes
from turnout.kernel.facts.sockets import HeldPort, held_ports
from turnout.kernel.headers import Headers, find_headers
from turnout.kernel.pins import Pins, is_bpffs
from turnout.privileges import CAPABILITIES
from turnout.settings import Settings

NEEDED_CAPABILITIES = ("CAP_NET_ADMIN", "CAP_BPF")
# Two instructions of bpf(2): move 2 (XDP_PASS) into r0, return.
_PASS_EVERYTHING = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel and what it lets this process do. `config` is empty when it cannot be read."""

    release: str
    version: tuple[int, int]
    config: Mapping[str, str]
    jit: bool | None  # whether a loaded program became machine code; None: none was loaded
    missing_capabilities: tuple[str, ...]
    load_error: str  # why an XDP program does not load; empty when it does


@dataclass(frozen=True, slots=True)
class Compiler:
    """What the loader needs to compile. `headers` None: `headers_error` says what to install."""

    bcc: bool
    headers: Headers | None
    headers_error: str


@dataclass(frozen=True, slots=True)
class PortUse:
    """Who holds the ports that an edge needs; `ours` are the pids of this very instance."""

    held: tuple[HeldPort, ...]
    ours: frozenset[int]
    ephemeral: tuple[int, int]  # net.ipv4.ip_local_port_range, first and last
    reserved: str  # net.ipv4.ip_local_reserved_ports as it is written


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that the checks look at; `settings` have their interfaces and VIPs filled in."""

    settings: Settings
    kernel: Kernel
    compiler: Compiler
    bpffs_mounted: bool
    links: Mapping[str, Link]
    addresses: frozenset[str]
    routes: tuple[Route, ...]
    rp_filters: Mapping[str, int]
    firewall: Firewall
    ports: PortUse
    processes: tuple[Process, ...] = ()  # of this instance, if it runs


def gather(settings: Settings, ours: frozenset[int]) -> Facts:
    """Gather the facts for an edge with these settings; `ours`: pids that belong to it."""
    names = settings.attach_interfaces
    mounted = is_bpffs(settings.bpffs)
    links = read_links(names, _instances(settings.bpffs) if mounted else {})
    return Facts(
        settings=settings,
        kernel=read_kernel(),
        compiler=_read_compiler(),
        bpffs_mounted=mounted,
        links=links,
        addresses=local_addresses(),
        routes=tuple(reply_routes(settings.vips)),
        rp_filters={name: rp_filter(name) for name in links},
        firewall=read_firewall(),
        ports=_read_ports(settings, ours),
        processes=read_processes(settings.runtime),
    )


def read_kernel() -> Kernel:
    """Look at the running kernel."""
    release = platform.release()
    load_error, jit = _try_loading()
    return Kernel(
        release=release,
        version=parse_version(release),
        config=_read_config(release),
        jit=jit,
        missing_capabilities=_missing_capabilities(),
        load_error=load_error,
    )


def parse_version(release: str) -> tuple[int, int]:
    """Return major and minor of a kernel release such as 6.1.0-18-amd64."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _read_config(release: str) -> dict[str, str]:
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{release}")):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
        return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE))
    return {}


def _missing_capabilities() -> tuple[str, ...]:
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(found[1], 16) if found else 0
    return tuple(name for name in NEEDED_CAPABILITIES if not effective >> CAPABILITIES[name] & 1)


def _try_loading() -> tuple[str, bool | None]:
    """Load a program; return why it does not load, and whether it became machine code."""
    try:
        with bpf.load_program(
            bpf.XDP, "turnout_doctor", _PASS_EVERYTHING, bpf.XDP_HAS_FRAGS
        ) as program:
            return "", bpf.program_info(program).jited_bytes > 0
    except OSError as error:
        return str(error.strerror).splitlines()[0], None


def _read_compiler() -> Compiler:
    # Importing bcc would cost 70 MB; whether it is there is all that is asked.
    # PyPI's `bcc` is another project, which has no libbcc.
    spec = importlib.util.find_spec("bcc")
    places = (spec.submodule_search_locations or ()) if spec else ()
    has_bcc = any((Path(place) / "libbcc.py").is_file() for place in places)
    try:
        return Compiler(has_bcc, find_headers(), "")
    except HeadersError as error:
        return Compiler(has_bcc, None, str(error))


def _instances(bpffs: Path) -> dict[int, str]:
    """Return which instance is attached to which ifindex, by the pinned links."""
    return {
        place.ifindex: directory.name
        for directory in bpffs.glob("turnout/*")
        for place in attached(Pins(bpffs, directory.name))
    }


def _read_ports(settings: Settings, ours: frozenset[int]) -> PortUse:
    lanes = range(settings.lane_first, settings.lane_last + 1)
    held = [
        *held_ports("udp", (settings.shared_port, *lanes)),
        *held_ports("tcp", (settings.http.port, settings.metrics.port)),
    ]
    sysctl = Path("/proc/sys/net/ipv4")
    first, last = (sysctl / "ip_local_port_range").read_text(encoding="ascii").split()
    reserved = (sysctl / "ip_local_reserved_ports").read_text(encoding="ascii").strip()
    return PortUse(tuple(held), ours, (int(first), int(last)), reserved)
