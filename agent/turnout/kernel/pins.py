"""Where Turnout's objects are pinned: <bpffs>/turnout/<instance>/abi<N>/{maps,programs,links}/.

What is pinned outlives every process; flows and sessions survive the agent. Called by the loader
(writes), the agent (opens) and `turnout down` (removes).
"""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from turnout.errors import KernelError

BPF_FS_MAGIC = "bpf"

MAPS = (
    *("settings", "lanes", "owners", "sessions"),
    *("flows", "flow_details", "owner_flows"),
    *("meters", "prefix_meters"),
    *("counters", "owner_counters"),
)
PROGRAMS = ("ingress", "egress", "sweep")


def bpf_directory() -> Path:
    """Find bpf/ with the C sources: package data of a wheel, or beside agent/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package / "bpf", package.parents[1] / "bpf"):
        if (candidate / "steer.c").is_file():
            return candidate
    msg = f"bpf/steer.c is neither in {package} nor beside its source root: reinstall turnout"
    raise KernelError(msg)


@cache
def abi_version() -> int:
    """TURNOUT_ABI of bpf/abi.h."""
    text = (bpf_directory() / "abi.h").read_text()
    found = re.search(r"^#define TURNOUT_ABI (\d+)$", text, re.MULTILINE)
    if not found:
        msg = "bpf/abi.h does not define TURNOUT_ABI"
        raise KernelError(msg)
    return int(found[1])


@dataclass(frozen=True, slots=True)
class Pins:
    """The pin directory of one instance."""

    bpffs: Path
    instance: str

    @property
    def root(self) -> Path:
        """The instance's directory, over all ABI versions."""
        return self.bpffs / "turnout" / self.instance

    @property
    def directory(self) -> Path:
        """The directory of this version's ABI."""
        return self.root / f"abi{abi_version()}"

    def map(self, name: str) -> Path:
        """Path of a map's pin."""
        return self.directory / "maps" / name

    def program(self, name: str, source_hash: str) -> Path:
        """Path of a program's pin in one version; the hash is that of its source."""
        return self.directory / "programs" / f"{name}-{source_hash}"

    def loaded_program(self, name: str) -> Path:
        """Path of the program that the loader pinned last; KernelError when there is none."""
        found = list((self.directory / "programs").glob(f"{name}-*"))
        if len(found) != 1:
            msg = f"{len(found)} versions of {name} are pinned in {self.directory}, not one"
            raise KernelError(msg)
        return found[0]

    def link(self, ifindex: int) -> Path:
        """Path of the XDP link's pin of an interface, by index: names change hands."""
        return self.directory / "links" / f"xdp-{ifindex}"

    def links(self) -> list[Path]:
        """Every XDP link that is pinned, of every ABI version."""
        return sorted(self.root.glob("abi*/links/xdp-*"))

    def make(self) -> None:
        """Create the directories; KernelError when bpffs is not mounted there."""
        if not is_bpffs(self.bpffs):
            msg = (
                f"{self.bpffs} is not a BPF file system: mount one with "
                f"`mount -t bpf bpf {self.bpffs}`, or name another with --bpffs"
            )
            raise KernelError(msg)
        for part in ("maps", "programs", "links"):
            (self.directory / part).mkdir(parents=True, exist_ok=True, mode=0o700)

    def remove(self) -> list[str]:
        """Unpin everything of this instance; return the paths that went."""
        removed = []
        for path in _bottom_up(self.root):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()
                removed.append(str(path))
        top = self.bpffs / "turnout"
        if top.is_dir() and not any(top.iterdir()):
            top.rmdir()
        return removed


def _bottom_up(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        return
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            yield Path(directory) / name
        yield Path(directory)


def is_bpffs(path: Path) -> bool:
    """Say whether a BPF file system is mounted exactly at `path`."""
    wanted = str(path.resolve())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted_at, kind, *_ = line.split()
        if kind == BPF_FS_MAGIC and mounted_at == wanted:
            return True
    return False


def mount_bpffs(path: Path) -> bool:
    """Mount a BPF file system at `path` unless there is one; True when it was mounted now."""
    if is_bpffs(path):
        return False
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot mount a BPF file system at {path}: {error.strerror}"
        raise KernelError(msg) from error
    done = subprocess.run(
        ["mount", "-t", "bpf", "bpf", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        msg = f"cannot mount a BPF file system at {path}: {done.stderr.strip()}"
        raise KernelError(msg)
    return True
