"""The short-lived loader: compile, load and pin; or adopt what is pinned already.

It exits when done and takes LLVM's memory with it. Programs and maps stay pinned; the agent
attaches them (attach.py). A pinned map is adopted only if type, sizes and layout are the same as
those of the source; what the maps of another ABI hold is carried over (carry.py). Nothing is pinned
before it has passed the verifier and its self-test. Called by `turnout loader` and by
`turnout upgrade`, which swaps the programs while they run.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from turnout.errors import KernelError, LayoutError, VerifierError
from turnout.kernel import bpf
from turnout.kernel.carry import Carry
from turnout.kernel.compile import (
    FLOWS_MAX,
    SESSIONS_MAX,
    Compiled,
    compile_programs,
    compiler_flags,
    join_source,
    source_hash,
)
from turnout.kernel.maps import Maps, codecs
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
    carried: dict[str, int] | None  # how many of what were carried over from another ABI


def load(pins: Pins, *, flows_max: int = FLOWS_MAX, sessions_max: int = SESSIONS_MAX) -> LoadReport:
    """Make the pins complete; HeadersError, CompileError, VerifierError, LayoutError.

    Whoever attaches the programs afterwards takes away what another ABI has left.
    """
    started = time.monotonic()
    with prepare(pins, flows_max=flows_max, sessions_max=sessions_max) as ready:
        ready.commit()
        ready.drop_old_programs()
        return ready.report(time.monotonic() - started)


class Ready:
    """A version that is compiled, tested and pinned beside the one that runs, or the same one."""

    def __init__(
        self,
        pins: Pins,
        source_hash: str,
        *,
        compiled: bool,
        adopted: list[str],
        old_programs: Mapping[str, Path],
        carry: Carry | None = None,
        pinned_before: Sequence[Path] = (),
    ) -> None:
        """`carry`: from the maps of another ABI into those that stand in `pins.staging`.

        `pinned_before`: the programs that stood beside these in `pins`, of whichever version.
        """
        self.pins = pins
        self._pinned_before = pinned_before
        self.carry = carry
        self._old_programs = old_programs
        self._source_hash = source_hash
        self._compiled = compiled
        self._adopted = adopted

    @property
    def old_egress(self) -> Path | None:
        """The egress program of the version before, if there is one."""
        return self._old_programs.get("egress")

    @property
    def programs(self) -> dict[str, Path]:
        """The pins of its programs, by name."""
        return {name: self.pins.program(name, self._source_hash) for name in PROGRAMS}

    def commit(self, finish: Callable[[Maps], None] = lambda _: None) -> None:
        """Make it the version of these sources: for another ABI, after a last copy of the maps.

        `finish` may write to the new maps before anybody reads them.
        """
        if self.carry is not None:
            self.carry.copy()
            with Maps.open(self.pins.staging) as maps:
                finish(maps)
            # One step: a version that is not whole never stands under its own name.
            self.pins.staging.directory.rename(self.pins.directory)

    def merge(self) -> None:
        """Add what the old programs of another ABI did since the last copy, once swapped."""
        if self.carry is not None:
            self.carry.merge()

    def withdraw(self) -> None:
        """Unpin it again: what ran before runs on."""
        if self.carry is not None:
            self.pins.remove_version()
        elif self._pinned_before:
            self.pins.keep_programs(self._pinned_before)

    def drop_old_programs(self) -> None:
        """Unpin the programs of the version before, of the same ABI."""
        self.pins.keep_programs(list(self.programs.values()))

    def report(self, seconds: float) -> LoadReport:
        """Say what was done."""
        sizes = {}
        pins = self.pins.staging if self.pins.staging.directory.exists() else self.pins
        for name in PROGRAMS:
            with bpf.open_pin(pins.program(name, self._source_hash)) as program:
                sizes[name] = bpf.program_info(program).jited_bytes
        return LoadReport(
            self._source_hash,
            self._compiled,
            self._adopted,
            seconds,
            sizes,
            None if self.carry is None else self.carry.carried,
        )


@contextmanager
def prepare(
    pins: Pins, *, flows_max: int = FLOWS_MAX, sessions_max: int = SESSIONS_MAX
) -> Iterator[Ready]:
    """Have the version of these sources ready, and nothing of what runs changed.

    Raises as `load` does, and SelfTestError.
    """
    if mount_bpffs(pins.bpffs):
        logger.info("mounted a BPF file system at %s", pins.bpffs)
    # Of an upgrade that was killed.
    pins.staging.remove_version()
    source = join_source()
    wanted = source_hash(source, compiler_flags(flows_max, sessions_max))

    def compiled() -> Compiled:
        return compile_programs(flows_max, sessions_max, source)

    running = find_running(pins)
    with ExitStack() as undone:
        undone.callback(pins.staging.remove_version)
        if running is None or running.directory == pins.directory:
            ready = _prepare_in_place(pins, wanted, compiled)
        else:
            ready = _prepare_beside(pins, running, wanted, compiled)
        if ready.carry is not None:
            undone.enter_context(ready.carry)
        yield ready


def find_running(pins: Pins) -> Pins | None:
    """Return the version whose maps the attached programs use; else the newest that is pinned.

    Both of an upgrade that was killed halfway are attached: the newer one is whole.
    """
    versions = pins.versions()
    used: set[int] = set()
    for link in pins.links():
        with bpf.open_pin(link) as fd:
            program = bpf.link_program(fd)
        if program:
            with bpf.program_by_id(program) as fd:
                used |= bpf.program_map_ids(fd)
    for version in versions:
        with bpf.open_pin(version.map("settings")) as fd:
            if bpf.map_info(fd).id in used:
                return version
    return versions[0] if versions else None


def _prepare_in_place(pins: Pins, wanted: str, compiled: Callable[[], Compiled]) -> Ready:
    """Pin programs that use the maps which are there, and the maps that are missing."""
    pins.make()
    present = [name for name in MAPS if pins.map(name).exists()]
    old_programs, pinned_before = _loaded(pins), pins.programs()
    is_missing = len(present) < len(MAPS) or not all(
        pins.program(name, wanted).exists() for name in PROGRAMS
    )
    if is_missing:
        with compiled() as fresh:
            _pin(pins, fresh)
    return Ready(
        pins,
        wanted,
        compiled=is_missing,
        adopted=present,
        old_programs=old_programs,
        pinned_before=pinned_before,
    )


def _prepare_beside(
    pins: Pins, running: Pins, wanted: str, compiled: Callable[[], Compiled]
) -> Ready:
    """Make maps and programs of another ABI, and carry over what the maps hold."""
    # Of an upgrade that was killed before its first swap: what it copied is old by now.
    pins.remove_version()
    staging = pins.staging
    staging.make()
    with compiled() as fresh:
        _pin(staging, fresh)
    carry = Carry(running, staging)
    try:
        carry.copy()
    except BaseException:
        carry.close()
        raise
    old = _loaded(running)
    return Ready(pins, wanted, compiled=True, adopted=[], old_programs=old, carry=carry)


def _loaded(pins: Pins) -> Mapping[str, Path]:
    """Return the programs that were pinned last; another version may have had fewer."""
    found = {}
    for name in PROGRAMS:
        with suppress(KernelError):
            found[name] = pins.loaded_program(name)
    return found


def _pin(pins: Pins, fresh: Compiled) -> None:
    """Test what was compiled, pin maps that are missing, then programs: all or nothing."""
    replace: dict[int, int] = {}
    missing: dict[str, bpf.Fd] = {}
    adopted: list[bpf.Fd] = []
    loaded: dict[str, bpf.Fd] = {}
    try:
        for name in MAPS:
            fd = fresh.maps[name]
            if pins.map(name).exists():
                adopted.append(bpf.open_pin(pins.map(name)))
                _check_same(name, adopted[-1], fd)
                replace[fd] = adopted[-1]
            else:
                # Not bcc's own, which the self-test has written to.
                replace[fd] = missing[name] = bpf.make_map(fd)
        _test(fresh)
        for name in PROGRAMS:
            loaded[name] = _load(fresh, name, replace)
        # `settings` last: a version that has it is whole (Pins.versions).
        for name in reversed(missing):
            bpf.pin(missing[name], pins.map(name))
        for name, program in loaded.items():
            new = pins.program(name, fresh.source_hash)
            if not new.exists():
                bpf.pin(program, new)
    finally:
        for fd in (*adopted, *missing.values(), *loaded.values()):
            fd.close()


def _test(fresh: Compiled) -> None:
    """Run the programs on known packets, with the maps that bcc made for them."""
    # A start that adopts what is pinned has no use for it, nor for the STUN library behind it.
    from turnout.kernel.selftest import check_programs  # noqa: PLC0415

    with ExitStack() as trial:
        check_programs(
            trial.enter_context(Maps.of_descriptors({name: fresh.maps[name] for name in MAPS})),
            {name: trial.enter_context(_load(fresh, name, {})) for name in PROGRAMS},
        )


def _load(fresh: Compiled, name: str, replace: Mapping[int, int]) -> bpf.Fd:
    try:
        return fresh.load(name, replace)
    except OSError as error:
        msg = f"the kernel refused program {name}: {error.strerror}"
        raise VerifierError(msg) from error


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
