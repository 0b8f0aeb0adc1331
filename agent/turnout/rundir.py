"""The runtime directory of an instance: who holds it, and which processes belong to it.

`turnout run` holds a lock on it as long as it lives; `turnout down` reads the pid files and ends
what they name, but only what is still the process that was written down: a pid is used again.
"""

import contextlib
import fcntl
import os
import select
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from turnout.errors import TurnoutError

RUN_PID = "run.pid"


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
        part = path.with_suffix(".part")
        part.write_text(f"{self.pid}\n{self.started}\n", encoding="ascii")
        part.replace(path)

    def is_ours(self) -> bool:
        """Tell whether this very process is alive and runs turnout."""
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False
        return b"turnout" in command and ProcessId.of(self.pid) == self

    def stop(self, patience_s: float) -> bool:
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
            for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 5.0)):
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


def remove(runtime: Path) -> None:
    """Remove the runtime directory, and the one above when no other instance is there."""
    shutil.rmtree(runtime)
    with contextlib.suppress(OSError):
        runtime.parent.rmdir()


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
