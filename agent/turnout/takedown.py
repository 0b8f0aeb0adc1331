"""The way back: ends an instance's processes and undoes on the host what its start changed.

`turnout run` leaves through `take_down`; `turnout down` does the same when run could not, also
after everything was killed with -9. It removes what is ours and nothing else.
"""

import json
import logging
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from turnout.errors import SettingsError, TurnoutError
from turnout.files import write_whole
from turnout.kernel import host
from turnout.kernel.attach import detach_all
from turnout.kernel.host import network_namespace
from turnout.kernel.pins import Pins
from turnout.portranges import build_port_ranges, parse_port_ranges
from turnout.rundir import RUN_PID, ProcessId, ending, hold, refuse_unit, remove
from turnout.settings import Settings

log = logging.getLogger(__name__)

# The supervisor gives a drain 3 s more than it was set, its children 5 s, and then detaches.
SUPERVISOR_PATIENCE_S = 18.0
CHILD_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class HostChanges:
    """What a start changed on the host beside the pins and attachments; kept for the way back."""

    network_namespace: int  # inode of the namespace the edge lives in
    mounted_bpffs: bool = False
    reserved_ports: str = ""  # what we added to ip_local_reserved_ports

    @classmethod
    def file(cls, runtime: Path) -> Path:
        """Return where an instance keeps them."""
        return runtime / "host-changes.json"

    @classmethod
    def read(cls, runtime: Path) -> Self | None:
        """Return what was kept, or None if the start never came that far."""
        try:
            values = json.loads(cls.file(runtime).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(**values)

    def write(self, runtime: Path) -> None:
        """Keep them; written after each change, so that a killed start can be undone too."""
        write_whole(self.file(runtime), json.dumps(asdict(self)))


def take_down(settings: Settings) -> list[str]:
    """Detach, unpin and restore everything of an instance whose runtime directory is held.

    Return what was removed, a line each. When something cannot be removed the runtime directory
    stays, so that `turnout down` can be tried again.
    """
    pins = Pins(settings.bpffs, settings.instance)
    # An upgrade that goes on would pin again what is removed here.
    with ending(settings.runtime) as removed:
        removed.extend(_shorten(detach_all(pins, settings.runtime), pins))
        changes = HostChanges.read(settings.runtime)
        if changes is not None:
            removed.extend(_restore_host(settings, changes))
        remove(settings.runtime)
    return removed


def end_children(settings: Settings) -> list[str]:
    """End what a supervisor that was killed left behind. Return what was ended, a line each."""
    ended = []
    for path in sorted(settings.runtime.glob("*.pid")):
        process = ProcessId.read(path)
        if path.name != RUN_PID and process is not None and process.stop(CHILD_PATIENCE_S):
            ended.append(f"ended process {process.pid} ({path.stem})")
    return ended


def _shorten(removed: list[str], pins: Pins) -> list[str]:
    """Say of the pins how many there were: which ones helps nobody."""
    lines = [line for line in removed if not line.startswith("unpinned ")]
    if len(lines) < len(removed):
        lines.append(f"unpinned {len(removed) - len(lines)} maps and programs under {pins.root}")
    return lines


def _restore_host(settings: Settings, changes: HostChanges) -> list[str]:
    restored = []
    # The reserved ports are a setting of the network namespace.
    if changes.reserved_ports and changes.network_namespace == network_namespace():
        now = parse_port_ranges(host.RESERVED_PORTS.read_text(encoding="ascii"))
        # Others may have added theirs meanwhile.
        left = now - parse_port_ranges(changes.reserved_ports)
        host.restore_ports(build_port_ranges(left))
        restored.append(f"released the reserved UDP ports {changes.reserved_ports}")
    # A name with a dot is the kernel's own (maps.debug): nobody can pin under one.
    pinned = [path for path in settings.bpffs.iterdir() if "." not in path.name]
    if changes.mounted_bpffs and not pinned:
        unmount = subprocess.run(
            ["umount", str(settings.bpffs)], check=False, capture_output=True, text=True
        )
        if unmount.returncode != 0:
            raise TurnoutError(f"cannot unmount {settings.bpffs}: {unmount.stderr.strip()}")
        restored.append(f"unmounted the BPF file system at {settings.bpffs}")
    return restored


def down(settings: Settings, say: Callable[[str], None], *, is_drained: bool = True) -> list[str]:
    """End an instance, running or not, and remove everything of it; `settings` name it.

    One that runs is drained first, for as long as its own settings say; `say` is told. Return what
    was ended and removed, a line each; nothing if there was nothing.
    """
    if not settings.runtime.exists() and not Pins(settings.bpffs, settings.instance).root.exists():
        return []
    settings = as_it_runs(settings)
    check_namespace(settings)
    refuse_unit(settings.runtime, settings.instance)
    removed = _end_supervisor(settings, say, is_drained=is_drained)
    with hold(settings.runtime, settings.instance):
        return removed + end_children(settings) + take_down(settings)


def instances(settings: Settings) -> list[str]:
    """Return every instance that has a runtime directory or pins here."""
    roots = (settings.runtime_root, Pins(settings.bpffs, settings.instance).root.parent)
    found = {path.name for root in roots if root.is_dir() for path in root.iterdir()}
    return sorted(found)


def as_it_runs(settings: Settings) -> Settings:
    """Return the settings the instance was started with, if it left them."""
    try:
        return Settings.load(settings.instance, settings.runtime_root)
    except SettingsError:
        return settings


def _end_supervisor(
    settings: Settings, say: Callable[[str], None], *, is_drained: bool
) -> list[str]:
    process = ProcessId.read(settings.runtime / RUN_PID)
    if process is None or not process.is_ours():
        return []
    seconds = settings.drain_on_stop if is_drained else 0
    if seconds:
        say(
            f"instance {settings.instance}: drains for up to {seconds} s (drain_on_stop), then "
            "ends what is left; its log has the progress"
        )
    # Ctrl-C's signal is the one that waits for nobody.
    first = signal.SIGTERM if is_drained else signal.SIGINT
    if not process.stop(SUPERVISOR_PATIENCE_S + seconds, first):
        return []
    return [f"ended process {process.pid} (run); it took down what it had set up"]


def check_namespace(settings: Settings) -> None:
    """Refuse to work in another network namespace than the instance's, if that one exists."""
    changes = HostChanges.read(settings.runtime)
    if changes is None or changes.network_namespace == network_namespace():
        return
    for path in sorted(Path("/run/netns").glob("*")):
        if path.stat().st_ino == changes.network_namespace:
            raise TurnoutError(
                f"instance {settings.instance} was started in network namespace {path.name}: "
                f"nsenter --net={path} turnout down --instance {settings.instance}"
            )
    log.warning(
        "instance %s: its network namespace is gone, and its interfaces with it", settings.instance
    )
