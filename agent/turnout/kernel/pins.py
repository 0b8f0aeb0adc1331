"""Where Turnout's objects are pinned, under <bpffs>/turnout/<instance>/.

    abi<N>/{maps,programs}/   of one version of the ABI; another stands beside it during an upgrade
    next/{maps,programs}/     of one that is being made: becomes abi<N> in one step, or goes
    links/                    the XDP links, whichever version they run

What is pinned outlives every process; flows and sessions survive the agent. Called by the loader
(writes), the agent (opens) and `turnout down` (removes).
"""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from turnout.errors import KernelError

BPF_FS_MAGIC = "bpf"
# The directory of the C sources, where it is not the installation's own: tests of upgrades.
SOURCES_VARIABLE = "TURNOUT_BPF"
_STAGING = "next"

MAPS = (
    *("settings", "lanes", "owners", "sessions"),
    *("flows", "flow_details", "owner_flows"),
    *("meters", "prefix_meters"),
    *("counters", "owner_counters"),
)
PROGRAMS = ("ingress", "egress", "sweep", "follow")


def bpf_directory() -> Path:
    """Find bpf/ with the C sources: package data of a wheel, or beside agent/ in a checkout."""
    if named := os.environ.get(SOURCES_VARIABLE):
        return Path(named)
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
    """The pin directory of one instance, and in it that of one version of the ABI."""

    bpffs: Path
    instance: str
    version: str = ""  # name of the version's directory; that of our sources if it is empty

    @property
    def root(self) -> Path:
        """The instance's directory, over all ABI versions."""
        return self.bpffs / "turnout" / self.instance

    @property
    def directory(self) -> Path:
        """The directory of the version."""
        return self.root / (self.version or f"abi{abi_version()}")

    @property
    def staging(self) -> "Pins":
        """Where another version is made ready."""
        return replace(self, version=_STAGING)

    def versions(self) -> list["Pins"]:
        """Every version whose maps are pinned, the newest first."""
        found = [path for path in self.root.glob("abi*") if (path / "maps" / "settings").exists()]
        found.sort(key=lambda path: (path / "maps" / "settings").stat().st_mtime_ns, reverse=True)
        return [replace(self, version=path.name) for path in found]

    def map(self, name: str) -> Path:
        """Path of a map's pin."""
        return self.directory / "maps" / name

    def program(self, name: str, source_hash: str) -> Path:
        """Path of a program's pin in one version; the hash is that of its source."""
        return self.directory / "programs" / f"{name}-{source_hash}"

    def loaded_program(self, name: str) -> Path:
        """Path of the program that the loader pinned last; KernelError when there is none.

        Two are there while an upgrade goes on, and after one that was killed.
        """
        found = list((self.directory / "programs").glob(f"{name}-*"))
        if not found:
            msg = f"no program {name} is pinned in {self.directory}: `turnout run` pins it"
            raise KernelError(msg)
        return max(found, key=lambda path: path.stat().st_mtime_ns)

    def link(self, ifindex: int) -> Path:
        """Path of the XDP link's pin of an interface, by index: names change hands."""
        return self.root / "links" / f"xdp-{ifindex}"

    def links(self) -> list[Path]:
        """Every XDP link that is pinned, whichever version it runs."""
        return sorted(self.root.glob("links/xdp-*"))

    def make(self) -> None:
        """Create the directories; KernelError when bpffs is not mounted there."""
        if not is_bpffs(self.bpffs):
            msg = (
                f"{self.bpffs} is not a BPF file system: mount one with "
                f"`mount -t bpf bpf {self.bpffs}`, or name another with --bpffs"
            )
            raise KernelError(msg)
        for part in (self.directory / "maps", self.directory / "programs", self.root / "links"):
            part.mkdir(parents=True, exist_ok=True, mode=0o700)

    def programs(self) -> list[Path]:
        """Every program that is pinned of this version."""
        return sorted((self.directory / "programs").iterdir())

    def keep_programs(self, kept: Sequence[Path]) -> None:
        """Unpin every other program of this version."""
        for path in self.programs():
            if path not in kept:
                path.unlink()

    def remove_version(self) -> None:
        """Unpin this version alone; what is attached runs on."""
        _remove_tree(self.directory)

    def remove_other_versions(self) -> list[str]:
        """Unpin every other version, once nothing of it is attached; return their names."""
        others = [path for path in self.root.glob("abi*") if path != self.directory]
        for path in others:
            _remove_tree(path)
        return sorted(path.name for path in others)

    def remove(self) -> list[str]:
        """Unpin everything of this instance; return the paths that went."""
        removed = _remove_tree(self.root)
        top = self.bpffs / "turnout"
        if top.is_dir() and not any(top.iterdir()):
            top.rmdir()
        return removed


def _remove_tree(root: Path) -> list[str]:
    removed = []
    for path in _bottom_up(root):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
            removed.append(str(path))
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
