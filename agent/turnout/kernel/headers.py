"""Finds kernel headers for bcc, which compiles against a kernel source tree.

Cloud hosts often lack the headers of the very kernel they run. Turnout's programs use UAPI types
only, so those of another version serve as well. Debian splits a header package in two (-common
and one per flavour) and bcc takes one directory: the two are merged into a tree of symbolic
links. Called by compile.py and `turnout doctor`.
"""

import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from turnout.errors import HeadersError

CACHE = Path("/var/cache/turnout/headers")
_DEBIAN_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "686", "riscv64": "riscv64"}
_PROBE = Path("include/linux/kconfig.h")  # bcc force-includes it


@dataclass(frozen=True, slots=True)
class Headers:
    """`tree` None: bcc finds them by itself. `exact`: of the running kernel."""

    tree: Path | None
    source: str
    exact: bool

    def use(self, *, merge: bool = True) -> None:
        """Point bcc at them (BCC_KERNEL_SOURCE), merging a split package first."""
        if self.tree is None:
            return
        if merge and self.tree.parent == CACHE:
            _merge(self.tree)
        os.environ["BCC_KERNEL_SOURCE"] = str(self.tree)


def find_headers(
    release: str | None = None,
    modules: Path = Path("/lib/modules"),
    sources: Path = Path("/usr/src"),
    kheaders: Path = Path("/sys/kernel/kheaders.tar.xz"),
) -> Headers:
    """Find the best there is; HeadersError says which package to install.

    In order: BCC_KERNEL_SOURCE, the running kernel's own, its kheaders archive, any installed.
    """
    release = release or platform.release()
    given = os.environ.get("BCC_KERNEL_SOURCE")
    if given:
        if not (Path(given) / _PROBE).is_file():
            msg = f"BCC_KERNEL_SOURCE={given} holds no {_PROBE}: unset it or name a full tree"
            raise HeadersError(msg)
        return Headers(Path(given), "BCC_KERNEL_SOURCE", exact=False)
    own = modules / release
    # bcc joins `build` and `source` itself where both are there (Debian's own layout).
    if any((own / part / _PROBE).is_file() for part in ("build", "source")):
        return Headers(None, str(own / "build"), exact=True)
    if kheaders.is_file():
        return Headers(None, str(kheaders), exact=True)
    trees = [tree for tree in sources.glob("linux-headers-*") if _fits_machine(tree)]
    for tree in sorted(trees, key=_version, reverse=True):
        common = _common_half(tree)
        if common is not None:
            return Headers(CACHE / tree.name, f"{tree} with {common.name}", exact=False)
        if (tree / _PROBE).is_file() and (tree / "include/generated/autoconf.h").is_file():
            return Headers(tree, str(tree), exact=False)
    msg = (
        f"no kernel headers for {release} and none of another version in {sources}: "
        "install some with `apt-get install linux-headers-amd64` (on arm64 linux-headers-arm64)"
    )
    raise HeadersError(msg)


def _version(tree: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", tree.name)]


def _fits_machine(tree: Path) -> bool:
    """Debian's packages end in their architecture; what names none is taken as it is."""
    last = tree.name.rpartition("-")[2]
    return last not in _DEBIAN_ARCHITECTURES.values() or last == _DEBIAN_ARCHITECTURES.get(
        platform.machine()
    )


def _common_half(tree: Path) -> Path | None:
    """Return the -common package that goes with a flavour's package, if that is what `tree` is.

    linux-headers-6.1.0-56-amd64, -cloud-amd64 and -rt-amd64 all stand on 6.1.0-56-common
    (-common-rt for the last).
    """
    if "-common" in tree.name or (tree / _PROBE).is_file():
        return None
    release = re.match(r"linux-headers-\d[^-]*(-\d+)?", tree.name)
    if release is None:
        return None
    halves = ["-common-rt", "-common"] if "-rt-" in tree.name else ["-common"]
    candidates = [tree.with_name(release[0] + half) for half in halves]
    return next((common for common in candidates if (common / _PROBE).is_file()), None)


def _merge(tree: Path) -> None:
    """Build the tree of links once; a half-made one is never seen under the final name."""
    if (tree / _PROBE).exists():
        return
    flavour = Path("/usr/src") / tree.name
    common = _common_half(flavour)
    if common is None:
        msg = f"{flavour} has no -common half: reinstall its package"
        raise HeadersError(msg)
    growing = tree.with_name(f"{tree.name}.{os.getpid()}")
    shutil.rmtree(tree, ignore_errors=True)
    growing.mkdir(parents=True)
    _overlay(common, growing)
    _overlay(flavour, growing)
    growing.rename(tree)


def _overlay(source: Path, target: Path) -> None:
    """Link `source` into `target`; where both have a directory, go down into it."""
    for entry in source.iterdir():
        place = target / entry.name
        if not entry.is_dir():
            place.unlink(missing_ok=True)
            place.symlink_to(entry)
        elif place.is_symlink():
            below = place.resolve()
            place.unlink()
            place.mkdir()
            _overlay(below, place)
            _overlay(entry, place)
        elif place.is_dir():
            _overlay(entry, place)
        else:
            place.symlink_to(entry)
