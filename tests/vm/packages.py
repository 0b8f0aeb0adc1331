"""What the VM's image takes from Debian: which kernel, which packages, which mirror.

All of it is asked of the machine's own apt at run time, so that a machine behind a private
mirror works as it is and no mirror is written down here. Called by image.py.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"

# The kernel of Debian's cloud images: small, and what most edges run.
KERNEL_PACKAGE = "linux-image-cloud-amd64"

# Beside minbase and what an edge needs (edge_packages): kmod loads what the kernel has as modules
# (veth, cls_bpf); nftables, procps and systemd an installed Debian has and minbase has not.
BARE_SYSTEM_PACKAGES = ("kmod", "nftables", "procps", "systemd")


class VmError(Exception):
    """The image could not be built or the machine not be run; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One Debian kernel: `release` as `uname -r` prints it, `version` of its packages."""

    release: str
    version: str

    @property
    def packages(self) -> tuple[str, ...]:
        """The image and its headers; Debian keeps the headers' source half in `-common`."""
        common = self.release.removesuffix("-cloud-amd64") + "-common"
        return (
            f"linux-image-{self.release}",
            f"linux-headers-{self.release}",
            f"linux-headers-{common}",
        )


def run(command: list[str], *, cwd: Path | None = None) -> str:
    """Run `command` to its end and return its stdout; raises VmError with the end of its output."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise VmError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def edge_packages(project: Path) -> tuple[str, ...]:
    """Return what `scripts/setup run` installs, read from that script: there is no second list."""
    script = project / "scripts" / "setup"
    match = re.search(r"^packages=\(([^)]*)\)$", script.read_text(), re.MULTILINE)
    if match is None:
        raise VmError(f"{script} has no line packages=(...): the image's packages come from there")
    return tuple(match[1].split())


def find_kernel(wanted: str) -> Kernel:
    """Return Debian's present cloud kernel of the series `wanted`, such as "6.1"."""
    arch = run(["dpkg", "--print-architecture"]).strip()
    if arch != "amd64":
        raise VmError(f"this machine is {arch}; the VM is built from Debian's amd64 packages only")
    command = ["apt-cache", "show", "--no-all-versions", KERNEL_PACKAGE]
    try:
        text = run(command)
    except VmError:
        run(["apt-get", "update", "-qq"])
        text = run(command)
    match = re.search(r"^Depends:.*\blinux-image-(\S+) \(= ([^)]+)\)", text, re.MULTILINE)
    if match is None:
        raise VmError(f"apt says of {KERNEL_PACKAGE} no kernel it depends on:\n{text}")
    kernel = Kernel(release=match[1], version=match[2])
    if not kernel.version.startswith(f"{wanted}."):
        raise VmError(
            f"{KERNEL_PACKAGE} is {kernel.version} in this machine's apt sources, not {wanted}: "
            f"run it on Debian 12, or name that series"
        )
    return kernel


def download(packages: tuple[str, ...], directory: Path) -> list[Path]:
    """Fetch the .deb files of `packages` into the empty `directory`; nothing is installed."""
    directory.mkdir(parents=True, exist_ok=True)
    # apt drops root for a user who may not be allowed to write here.
    command = ["apt-get", "-o", "APT::Sandbox::User=root", "-qq", "download", *packages]
    try:
        run(command, cwd=directory)
    except VmError:  # the lists may be older than what the mirror still has
        run(["apt-get", "update", "-qq"])
        run(command, cwd=directory)
    return sorted(directory.glob("*.deb"))


def debian_mirror() -> str:
    """Return the URI of the mirror from which this machine takes the main part of Debian 12."""
    line_format = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    text = run(
        ["apt-get", "indextargets", "--format", line_format, "Created-By: Packages"],
    )
    for line in text.splitlines():
        uri, suite, component = line.rsplit(" ", 2)
        if (suite, component) == (SUITE, "main"):
            return uri
    raise VmError(
        f"no apt source of this machine has {SUITE} main; its sources have:\n{text}"
        f"add Debian 12's main archive to /etc/apt/sources.list.d"
    )
