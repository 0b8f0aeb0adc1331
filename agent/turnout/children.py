"""A child process of the supervisor: started, watched, started again, ended.

Children get a session of their own, so that a Ctrl-C on the terminal reaches the supervisor alone
and it decides the order; and they die with it, however it dies.
"""

import asyncio
import functools
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from turnout.errors import TurnoutError
from turnout.installation import Installation
from turnout.privileges import die_with_parent
from turnout.rundir import ProcessId

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.2
BACKOFF_MOST_S = 5.0
SETTLED_S = 10.0  # a child that lived this long starts over with the first pause
STOP_PATIENCE_S = 5.0


def backoff_s(previous_s: float, lived_s: float) -> float:
    """Return the pause before the next start, after a child that lived `lived_s`."""
    if previous_s == 0 or lived_s >= SETTLED_S:
        return BACKOFF_FIRST_S
    return min(previous_s * 2, BACKOFF_MOST_S)


def how_it_ended(returncode: int) -> str:
    """Return a returncode of subprocess in words."""
    if returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"


class Child:
    """One child process and, once it runs, its pid file."""

    def __init__(
        self, name: str, arguments: Sequence[str], pid_file: Path, *, is_trusted: bool = True
    ) -> None:
        """`arguments` follow the interpreter, e.g. ("-m", "turnout", "agent").

        One that is not trusted is not told of root's environment.
        """
        self.name = name
        self._is_trusted = is_trusted
        # May be changed while the child runs: the next start takes them.
        self.arguments = arguments
        self._pid_file = pid_file
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return None if self._process is None else self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    async def run_once(self, hurry: asyncio.Event) -> int:
        """Start the child and return its returncode; when cancelled, end it.

        `hurry` cuts the patience with a child that takes its time to end.
        """
        installation = Installation.of(self._pid_file.parent)
        # PDEATHSIG is bound to the thread that forks: this must be the main one, for life.
        process = subprocess.Popen(  # noqa: ASYNC220 - returns when the fork has happened
            (installation.python, *self.arguments),
            env=installation.environment if self._is_trusted else installation.bare_environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # The fork happens in the main thread while no other runs (PLW1509).
            preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509
        )
        self._process = process
        try:
            handle = os.pidfd_open(process.pid)
            identity = ProcessId.of(process.pid)
            if identity is not None:
                identity.write(self._pid_file)
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(handle, ended.set)
            try:
                await ended.wait()
            except asyncio.CancelledError:
                await self._stop(process, ended, hurry)
                raise
            finally:
                loop.remove_reader(handle)
                os.close(handle)
            return process.wait()
        finally:
            self._process = None
            if process.poll() is None:
                process.kill()
                process.wait()
            self._pid_file.unlink(missing_ok=True)

    async def keep(self, hurry: asyncio.Event, is_ready: Callable[[], bool]) -> None:
        """Run the child for ever. An end before the edge was ready is a TurnoutError."""
        pause_s = 0.0
        while True:
            started_s = time.monotonic()
            returncode = await self.run_once(hurry)
            if not is_ready():
                raise TurnoutError(
                    f"{self.name} {how_it_ended(returncode)} before the edge was ready; "
                    "the lines above say why"
                )
            pause_s = backoff_s(pause_s, time.monotonic() - started_s)
            log.warning(
                "%s %s; starting it again in %.1f s", self.name, how_it_ended(returncode), pause_s
            )
            await asyncio.sleep(pause_s)

    async def _stop(
        self, process: subprocess.Popen[bytes], ended: asyncio.Event, hurry: asyncio.Event
    ) -> None:
        process.terminate()
        waits = [asyncio.ensure_future(event.wait()) for event in (ended, hurry)]
        await asyncio.wait(waits, timeout=STOP_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not ended.is_set():
            log.warning("%s does not end: killed", self.name)
            process.kill()
            await ended.wait()
