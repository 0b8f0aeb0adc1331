"""Builds the VM's disks and initramfs under .cache/vm; a second call finds them there.

Three disks, because they change at different times: the root (debootstrap, with the kernel's
modules and headers where Debian puts them), the virtual environment (copied from the host's: the
guest has the same Python), and the project itself, made anew for every run. Called by __main__.py.
"""

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vm.packages import (
    BARE_SYSTEM_PACKAGES,
    SUITE,
    Kernel,
    VmError,
    debian_mirror,
    download,
    edge_packages,
    run,
)

# What the kernel needs before it can mount its root (ext4 is built in), and its network card, which
# nothing in the guest would load. modules.dep gives their order and what else they need.
BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_net")

# Where the project stands in the guest; its virtual environment is mounted at .venv in it.
GUEST_PROJECT = "/opt/turnout"

# What systemd boots instead of its default target: sysinit.target and this, no logins, no timers.
PLAN_UNIT = "plan.service"
PLAN_UNIT_TEXT = f"""[Service]
ExecStart=/usr/bin/python3 {GUEST_PROJECT}/tests/vm/guest.py
# A step that takes all memory is a step that fails.
OOMPolicy=continue
"""

INIT = f"""#!/bin/busybox sh
busybox mount -t devtmpfs dev /dev
for module in $(busybox cat /modules/order); do
    busybox insmod /modules/$module || echo "cannot load $module"
done
busybox mount -t ext4 /dev/vda /root
busybox mount -t ext4 /dev/vdb /root{GUEST_PROJECT}
busybox mount -t ext4 /dev/vdc /root{GUEST_PROJECT}/.venv
exec busybox switch_root /root /usr/lib/systemd/systemd --unit={PLAN_UNIT}
"""

# Checkers and browser drivers: nothing that runs in the guest imports them.
NOT_FOR_GUEST = ("mypy*", "*__mypyc*", "playwright*", "ruff*", "setuptools*", "hatch*")

# The commands of the guest's virtual environment, and where their `main` is.
COMMANDS = {"pip": "pip._internal.cli.main", "turnout": "turnout.cli.main"}

# What scripts/setup leaves in a virtual environment that is as it should be.
STAMP = "turnout-setup"

PROJECT_PARTS = ("agent", "bpf", "scripts", "tests", "vagrant", "pyproject.toml")

Say = Callable[[str], None]
Plan = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Image:
    """Files that boot: kernel, initramfs and the disks in the order vda, vdb, vdc."""

    kernel: Kernel
    vmlinuz: Path
    initramfs: Path
    disks: tuple[Path, Path, Path]


def build_image(kernel: Kernel, project: Path, cache: Path, plan: Plan, say: Say) -> Image:
    """Return the image for `kernel` with the tree at `project` and the `plan` of guest.py in it.

    What `cache` does not hold yet is built, which needs root.
    """
    packages = (*edge_packages(project), *BARE_SYSTEM_PACKAGES)
    recipe = Path(__file__).read_text() + repr((kernel, packages, SUITE))
    boot = cache / f"boot-{digest([recipe])}"
    if not boot.exists():
        say(f"building a Debian image with Linux {kernel.version} (about a minute, then cached)")
        build_atomically(boot, lambda to: build_boot(kernel, packages, to, say))
        forget_others(cache, "boot-*", boot)
    site = project / ".venv" / "lib" / "python3.11" / "site-packages"
    stamp = project / ".venv" / STAMP
    if not site.is_dir() or not stamp.exists():
        raise VmError(f"there is no {site}, or it is half made: run scripts/setup test")
    names = sorted(entry.name for entry in site.glob("*.dist-info"))
    venv = cache / f"venv-{digest([recipe, stamp.read_text(), *names])}.ext4"
    if not venv.exists():
        say("copying the virtual environment")
        build_atomically(venv, lambda to: build_venv(site, stamp, to))
        forget_others(cache, "venv-*", venv)
    tree = cache / "project.ext4"
    build_project(project, plan, tree)
    return Image(
        kernel=kernel,
        vmlinuz=boot / "vmlinuz",
        initramfs=boot / "initramfs",
        disks=(boot / "root.ext4", tree, venv),
    )


def digest(parts: Iterable[str]) -> str:
    """Return a short name for `parts`: another name when any of them changes."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def build_atomically(target: Path, build: Callable[[Path], None]) -> None:
    """Let `build` fill a path beside `target`, then rename: a half-built one is never found."""
    partial = target.with_name(target.name + ".partial")
    remove(partial)
    build(partial)
    partial.rename(target)


def forget_others(cache: Path, pattern: str, keep: Path) -> None:
    """Remove what older recipes and kernels left in the cache: each is a gigabyte."""
    for path in cache.glob(pattern):
        if path != keep:
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a tree, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def build_boot(kernel: Kernel, packages: tuple[str, ...], directory: Path, say: Say) -> None:
    """Fill `directory` with root.ext4 (minbase and `packages`), vmlinuz and initramfs."""
    directory.mkdir()
    root, unpacked = directory / "root", directory / "unpacked"
    say("fetching the kernel, its headers and busybox")
    for deb in download((*kernel.packages, "busybox-static"), directory / "debs"):
        run(["dpkg", "-x", str(deb), str(unpacked)])
    say(f"debootstrap: {SUITE} minbase with {', '.join(packages)}")
    include = f"--include={','.join(packages)}"
    run(["debootstrap", "--variant=minbase", include, SUITE, str(root), debian_mirror()])
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        remove(root / waste)
    # Not `dpkg -x` onto the root itself: /lib is a symbolic link there and would be replaced.
    shutil.copytree(unpacked / "lib/modules", root / "usr/lib/modules", symlinks=True)
    shutil.copytree(unpacked / "usr/src", root / "usr/src", symlinks=True, dirs_exist_ok=True)
    run(["chroot", str(root), "depmod", kernel.release])
    (root / GUEST_PROJECT.lstrip("/")).mkdir(parents=True)
    (root / "etc/systemd/system" / PLAN_UNIT).write_text(PLAN_UNIT_TEXT)
    modules = root / "usr/lib/modules" / kernel.release
    build_initramfs(modules, unpacked / "bin/busybox", directory / "initramfs")
    shutil.copy2(unpacked / f"boot/vmlinuz-{kernel.release}", directory / "vmlinuz")
    make_ext4(root, directory / "root.ext4", spare_mib=512)
    for used in (root, unpacked, directory / "debs"):
        remove(used)


def load_order(modules: Path, wanted: Iterable[str]) -> list[str]:
    """Return the .ko paths, relative to `modules`, in an order in which each finds its symbols."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, dependencies = line.partition(":")
        # depmod lists what a module needs with the deepest one last.
        needs[Path(path).stem] = [*reversed(dependencies.split()), path]
    order: dict[str, None] = {}
    for name in wanted:
        if name not in needs:
            raise VmError(f"the kernel in {modules} has no module {name}")
        order.update(dict.fromkeys(needs[name]))
    return list(order)


def build_initramfs(modules: Path, busybox: Path, target: Path) -> None:
    """Write an initramfs of busybox, BOOT_MODULES and INIT."""
    tree = target.with_name("initramfs.tree")
    for name in ("bin", "dev", "modules", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy2(busybox, tree / "bin/busybox")
    order = load_order(modules, BOOT_MODULES)
    for path in order:
        shutil.copy2(modules / path, tree / "modules")
    (tree / "modules/order").write_text("".join(f"{Path(path).name}\n" for path in order))
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    with target.open("wb") as output:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"],
            cwd=tree,
            input=names.encode(),
            stdout=output,
            check=True,
        )
    remove(tree)


def build_venv(site: Path, stamp: Path, target: Path) -> None:
    """Write a disk that is a virtual environment in GUEST_PROJECT with the host's packages.

    In the guest, where there is no network, scripts/setup looks at it as at any other.
    """
    tree = target.with_name("venv.tree")
    remove(tree)
    ignore = shutil.ignore_patterns(*NOT_FOR_GUEST)
    packages = tree / "lib" / "python3.11" / "site-packages"
    shutil.copytree(site, packages, ignore=ignore, symlinks=True)
    # The host's path files and scripts name the place of the clone.
    for path_file in packages.glob("*.pth"):
        path_file.unlink()
    (packages / "turnout.pth").write_text(f"{GUEST_PROJECT}/agent\n")
    (tree / "pyvenv.cfg").write_text(
        "home = /usr/bin\n"
        "include-system-site-packages = true\n"
        f"version = {platform.python_version()}\n"
    )
    shutil.copy2(stamp, tree / STAMP)
    scripts = tree / "bin"
    scripts.mkdir()
    for name in ("python", "python3"):
        (scripts / name).symlink_to("/usr/bin/python3")
    for name, module in COMMANDS.items():
        command = scripts / name
        command.write_text(
            f"#!{GUEST_PROJECT}/.venv/bin/python3\n"
            f"import sys\nfrom {module} import main\nsys.exit(main())\n"
        )
        command.chmod(0o755)
    make_ext4(tree, target, spare_mib=64)
    remove(tree)


def build_project(project: Path, plan: Plan, target: Path) -> None:
    """Write a disk with the project's sources as they are now and the plan beside guest.py."""
    tree = target.with_name("project.tree")
    remove(tree)
    (tree / ".venv").mkdir(parents=True)
    for part in PROJECT_PARTS:
        source = project / part
        if source.is_dir():
            shutil.copytree(source, tree / part)
        else:
            shutil.copy2(source, tree / part)
    (tree / "tests/vm/plan.json").write_text(json.dumps(plan))
    make_ext4(tree, target, spare_mib=64)
    remove(tree)


def make_ext4(tree: Path, target: Path, *, spare_mib: int) -> None:
    """Write an ext4 image of `tree` with room for `spare_mib` MiB more; it is a sparse file."""
    used_kib = int(run(["du", "-sk", str(tree)]).split()[0])
    remove(target)
    # A fifth more: inodes and block maps. The journal would only cost: every run starts afresh.
    size_kib = used_kib * 6 // 5 + spare_mib * 1024
    options = ["-q", "-F", "-O", "^has_journal", "-d", str(tree)]
    run(["mkfs.ext4", *options, str(target), f"{size_kib}k"])
