"""`turnout run` as a child of this process: started, waited for, asked, ended.

Its output goes to the terminal (or to a file, for what nobody reads while it goes well). Called by
__main__.py.
"""

import asyncio
import subprocess
import sys
import threading
from types import TracebackType
from typing import Any, Self

from turnout.client import Client
from turnout.settings import Settings

# Compiling takes seconds, on a small machine half a minute.
READY_SECONDS = 120.0
STOP_SECONDS = 40.0


class EdgeFailed(Exception):
    """The edge did not start, or did not end; the message says what it said last."""


class Edge:
    """One run of the product; `with` starts it, waits until it is ready, and ends it."""

    def __init__(self, arguments: list[str], settings: Settings) -> None:
        """Take the arguments of `turnout run` and the settings they make."""
        self.settings = settings
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._answered = threading.Event()
        self._is_ready = False

    def __enter__(self) -> Self:
        # Killed with us: whatever ends this script, the edge does not stay behind unseen.
        bound = ["setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m", "turnout", "run"]
        self._process = subprocess.Popen(
            [*bound, *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C is for us: we end it when we are done.
            start_new_session=True,
        )
        self._reader.start()
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM, and wait until all of it is undone."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise EdgeFailed(
                f"turnout run did not end in {STOP_SECONDS:.0f} s and was killed; "
                "`turnout down` removes what it left"
            ) from error
        finally:
            self._reader.join()

    def wait(self) -> int:
        """Wait until it ends by itself; return its exit status."""
        assert self._process is not None
        return self._process.wait()

    def status(self) -> dict[str, Any]:
        """Return the whole picture from its local API."""

        async def ask() -> dict[str, Any]:
            async with Client(self.settings.api_socket) as client:
                return await client.status()

        return asyncio.run(ask())

    def _wait_until_ready(self) -> None:
        if not self._answered.wait(READY_SECONDS):
            raise EdgeFailed(f"turnout run was not ready after {READY_SECONDS:.0f} s")
        if not self._is_ready:
            raise EdgeFailed(f"turnout run ended with {self.wait()}; the lines above say why")

    def _read(self) -> None:
        """Pass its output on; one line of it says that it is ready."""
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(f"  {line}", end="", flush=True)
            if line.startswith("turnout: ") and line.rstrip().endswith(" is ready"):
                self._is_ready = True
                self._answered.set()
        self._answered.set()
