"""The runtime directory of an instance: who holds it, and which processes belong to it.

`turnout run` holds a lock on it as long as it lives; `turnout down` reads the pid files and ends
what they name, but only what is still the process that was written down: a pid is used again.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from turnout.errors import TurnoutError
from turnout.files import write_whole

RUN_PID = "run.pid"
AGENT_PID = "agent.pid"
_UPGRADE_LOCK = "upgrade.lock"
_UPGRADE_PID = "upgrade.pid"
_UPGRADE_END_S = 2.0
_LOOK_PAUSE_S = 0.1
_UNIT = "unit"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process: its pid and its start time in clock ticks since boot, which no other shares."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Return the identity of a living process, or None."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # proc(5): the command may hold spaces and ')'; field 3 follows the last ')'. Field 22
        # is the start time. A zombie has ended, whatever its entry says.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]))

    @classmethod
    def mine(cls) -> Self:
        """Return the identity of this process."""
        identity = cls.of(os.getpid())
        if identity is None:
            raise TurnoutError("/proc does not show this process; mount it")
        return identity

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a pid file: pid and start time, a line each. None if it is not there or broken."""
        try:
            pid, started = path.read_text(encoding="ascii").split()
            return cls(int(pid), int(started))
        except (OSError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Write the pid file in one piece."""
        write_whole(path, f"{self.pid}\n{self.started}\n")

    def is_ours(self) -> bool:
        """Tell whether this very process is alive and runs turnout."""
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False
        return b"turnout" in command and ProcessId.of(self.pid) == self

    def stop(self, patience_s: float, first: signal.Signals = signal.SIGTERM) -> bool:
        """End the process: SIGTERM, after `patience_s` SIGKILL. False if there was none of ours."""
        try:
            handle = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            # The handle is fixed to whoever has the pid now; only then is it checked.
            if not self.is_ours():
                return False
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            for number, wait_s in ((first, patience_s), (signal.SIGKILL, 5.0)):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
                if ended.poll(wait_s * 1000):
                    break
        finally:
            os.close(handle)
        return True


@contextlib.contextmanager
def hold(runtime: Path, instance: str) -> Iterator[None]:
    """Create the runtime directory (0700) and keep everyone else from running in it.

    Raises TurnoutError if another process holds it. What is in it stays: `remove` takes it away
    once nothing of the instance is left that it describes.
    """
    handle = _lock(runtime, instance)
    try:
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def upgrade_alone(runtime: Path, instance: str) -> Iterator[None]:
    """Keep other upgrades from running, and agents from starting, until this one is through.

    The kernel lets go of the lock when its holder is killed. Raises TurnoutError.
    """
    try:
        handle = _open_upgrade_lock(runtime)
    except FileNotFoundError as error:
        raise TurnoutError(f"instance {instance} was ended just now") from error
    try:
        if not _take(handle, fcntl.LOCK_EX):
            raise TurnoutError(
                f"instance {instance} is being started, upgraded or ended just now: "
                "try again when that is over"
            )
        ProcessId.mine().write(runtime / _UPGRADE_PID)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            if ProcessId.read(runtime / _UPGRADE_PID) == ProcessId.mine():
                (runtime / _UPGRADE_PID).unlink()
        os.close(handle)


@contextlib.asynccontextmanager
async def starting(runtime: Path) -> AsyncIterator[None]:
    """Keep upgrades from beginning while an edge comes up; one that goes on is waited for."""
    handle = _open_upgrade_lock(runtime)
    try:
        # Shared: the agent, which waits for upgrades too, starts meanwhile.
        while not _take(handle, fcntl.LOCK_SH):  # noqa: ASYNC110 - a lock tells nobody
            await asyncio.sleep(_LOOK_PAUSE_S)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def ending(runtime: Path) -> Iterator[list[str]]:
    """Keep upgrades out while an edge is taken down; one that goes on is ended, as it may be.

    Yields what was ended, a line each.
    """
    handle = _open_upgrade_lock(runtime)
    ended = []
    try:
        if not _take(handle, fcntl.LOCK_EX):
            upgrade = ProcessId.read(runtime / _UPGRADE_PID)
            if upgrade is not None and upgrade.stop(_UPGRADE_END_S):
                ended.append(f"ended process {upgrade.pid} (upgrade)")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield ended
    finally:
        os.close(handle)


def wait_for_upgrade(runtime: Path) -> None:
    """Return once no upgrade is going on: it must not change under whoever starts."""
    with contextlib.suppress(FileNotFoundError):
        handle = os.open(runtime / _UPGRADE_LOCK, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)


def mark_unit(runtime: Path, unit: str) -> None:
    """Note the systemd unit that has set this instance up."""
    (runtime / _UNIT).write_text(unit, encoding="ascii")


def active_unit(runtime: Path) -> str | None:
    """Return the systemd unit that keeps this instance up, None where none does."""
    try:
        unit = (runtime / _UNIT).read_text(encoding="ascii")
        asked = subprocess.run(("systemctl", "is-active", "--quiet", unit), check=False)
    except FileNotFoundError:
        return None
    return unit if asked.returncode == 0 else None


def refuse_unit(runtime: Path, instance: str) -> None:
    """Raise TurnoutError if systemd keeps this instance up: it would start again what we end."""
    unit = active_unit(runtime)
    if unit is not None:
        edge = unit.replace("-loader", "")
        raise TurnoutError(f"instance {instance} is run by systemd: `systemctl stop {edge}` first")


def remove(runtime: Path) -> None:
    """Remove the runtime directory, and the one above when no other instance is there."""
    shutil.rmtree(runtime)
    with contextlib.suppress(OSError):
        runtime.parent.rmdir()


def _open_upgrade_lock(runtime: Path) -> int:
    return os.open(runtime / _UPGRADE_LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock(runtime: Path, instance: str) -> int:
    while True:
        try:
            runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise TurnoutError(f"runtime directory {runtime}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            holder = ProcessId.read(runtime / RUN_PID)
            pid = "unknown" if holder is None else holder.pid
            raise TurnoutError(
                f"instance {instance} already runs (pid {pid}); "
                "`turnout down` ends it, --instance starts another"
            ) from error
        # The one before may have removed the directory between open and lock.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(handle).st_ino == runtime.stat().st_ino:
                runtime.chmod(0o700)
                return handle
        os.close(handle)
