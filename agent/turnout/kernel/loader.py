"""The short-lived loader: compile, load and pin; or adopt what is pinned already.

It exits when done and takes LLVM's memory with it. Programs and maps stay pinned; the agent
attaches them (attach.py). A pinned map is adopted only if type, sizes and layout are the same as
those of the source. Called by `turnout loader`.
"""

import logging
import time
from dataclasses import dataclass

from turnout.errors import LayoutError, VerifierError
from turnout.kernel import bpf
from turnout.kernel.compile import (
    FLOWS_MAX,
    SESSIONS_MAX,
    Compiled,
    compile_programs,
    compiler_flags,
    join_source,
    source_hash,
)
from turnout.kernel.maps import codecs
from turnout.kernel.pins import MAPS, PROGRAMS, Pins, mount_bpffs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What the loader did; seconds, bytes of machine code by program."""

    source_hash: str
    compiled: bool
    adopted_maps: list[str]
    seconds: float
    program_bytes: dict[str, int]


def load(pins: Pins, *, flows_max: int = FLOWS_MAX, sessions_max: int = SESSIONS_MAX) -> LoadReport:
    """Make the pins complete; HeadersError, CompileError, VerifierError, LayoutError."""
    started = time.monotonic()
    if mount_bpffs(pins.bpffs):
        logger.info("mounted a BPF file system at %s", pins.bpffs)
    pins.make()
    source = join_source()
    wanted = source_hash(source, compiler_flags(flows_max, sessions_max))
    present = [name for name in MAPS if pins.map(name).exists()]
    programs = [pins.program(name, wanted) for name in PROGRAMS]
    compiled = not (len(present) == len(MAPS) and all(path.exists() for path in programs))
    if compiled:
        with compile_programs(flows_max, sessions_max, source) as fresh:
            _pin(pins, fresh)
    # Also after a loader that was killed right before this.
    for path in (pins.directory / "programs").iterdir():
        if path not in programs:
            path.unlink()
    sizes = {}
    for name, path in zip(PROGRAMS, programs, strict=True):
        with bpf.open_pin(path) as program:
            sizes[name] = bpf.program_info(program).jited_bytes
    return LoadReport(wanted, compiled, present, time.monotonic() - started, sizes)


def _pin(pins: Pins, fresh: Compiled) -> None:
    """Pin maps that are missing, then programs that use the pinned maps, all or nothing."""
    made = {name: fresh.maps[name] for name in MAPS}
    replace: dict[int, int] = {}
    adopted: list[bpf.Fd] = []
    loaded: dict[str, bpf.Fd] = {}
    try:
        for name, fd in made.items():
            if not pins.map(name).exists():
                continue
            adopted.append(bpf.open_pin(pins.map(name)))
            _check_same(name, adopted[-1], fd)
            replace[fd] = adopted[-1]
        for name in PROGRAMS:
            try:
                loaded[name] = fresh.load(name, replace)
            except OSError as error:
                msg = f"the kernel refused program {name}: {error.strerror}"
                raise VerifierError(msg) from error
        for name, fd in made.items():
            if fd not in replace:
                bpf.pin(fd, pins.map(name))
        for name, program in loaded.items():
            new = pins.program(name, fresh.source_hash)
            if not new.exists():
                bpf.pin(program, new)
    finally:
        for fd in (*adopted, *loaded.values()):
            fd.close()


def _check_same(name: str, pinned: int, fresh: int) -> None:
    """Bcc adopts a map of another size without a word; we do not."""
    old, new = bpf.map_info(pinned), bpf.map_info(fresh)
    differences = [
        f"{field} {getattr(old, field)} instead of {getattr(new, field)}"
        for field in ("type", "key_size", "value_size", "max_entries", "flags")
        if getattr(old, field) != getattr(new, field)
    ]
    if not differences:
        for part, was, now in zip(("key", "value"), codecs(old), codecs(new), strict=True):
            if was.describe() != now.describe():
                differences.append(f"{part} {was.describe()} instead of {now.describe()}")
    if differences:
        msg = (
            f"the pinned map {name} has {'; '.join(differences)}: "
            "end this instance with `turnout down` and start again (its flows are lost), "
            "or raise TURNOUT_ABI in bpf/abi.h if you changed a struct"
        )
        raise LayoutError(msg)
