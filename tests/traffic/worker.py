"""A process with a part in the play, in a network namespace of its own, driven over a pipe.

What it does has to go on while others are asked, paced and measured: threads of one interpreter
would wait for each other. The other end of the pipe is stage.py.
"""

import ctypes
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from pyroute2 import netns

_PR_SET_PDEATHSIG = 1
_ANSWER_SECONDS = 60.0
_END_SECONDS = 5.0


class WorkerFailed(RuntimeError):
    """A worker ended or did not answer; the message has what it said last."""


class Worker:
    """A child that runs `part(pipe, *arguments)`; `part` answers each message with one message."""

    def __init__(
        self,
        name: str,
        namespace: str,
        part: Callable[..., None],
        *arguments: object,
        niceness: int = 0,
    ) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_play,
            args=(namespace, niceness, theirs, part, arguments),
            name=name,
            daemon=True,
        )
        self._process.start()
        theirs.close()

    def tell(self, verb: str, *arguments: object) -> None:
        """Send a message; `hear` takes the answer."""
        try:
            self._pipe.send((verb, *arguments))
        except OSError as error:
            raise WorkerFailed(f"{self.name}: {verb}: {self._last_words()}") from error

    def hear(self, seconds: float = _ANSWER_SECONDS) -> Any:
        """Return the next answer."""
        try:
            if not self._pipe.poll(seconds):
                raise WorkerFailed(f"{self.name} said nothing for {seconds:g} s")
            kind, value = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerFailed(f"{self.name} has ended") from error
        if kind == "failed":
            raise WorkerFailed(f"{self.name}: {value}")
        return value

    def ask(self, verb: str, *arguments: object, seconds: float = _ANSWER_SECONDS) -> Any:
        """Send a message and return its answer."""
        self.tell(verb, *arguments)
        return self.hear(seconds)

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._pipe.close()
        self._process.terminate()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _last_words(self) -> str:
        while self._pipe.poll(0):
            kind, value = self._pipe.recv()
            if kind == "failed":
                return str(value)
        return "it has ended"


class Cast:
    """All workers of a stage."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []

    def add(
        self,
        name: str,
        namespace: str,
        part: Callable[..., None],
        *arguments: object,
        niceness: int = 0,
    ) -> Worker:
        """Start one more; arguments as of Worker."""
        worker = Worker(name, namespace, part, *arguments, niceness=niceness)
        self._workers.append(worker)
        return worker

    def send_home(self, worker: Worker) -> None:
        """End one of them."""
        self._workers.remove(worker)
        worker.end()

    def end(self) -> None:
        """End all that are left, the last one first."""
        while self._workers:
            self._workers.pop().end()


def answer(pipe: Connection, value: object = None) -> None:
    """Answer the message that was taken last."""
    pipe.send(("done", value))


def _play(
    namespace: str,
    niceness: int,
    pipe: Connection,
    part: Callable[..., None],
    arguments: tuple[object, ...],
) -> None:
    # Ctrl-C is for the parent, which ends us; and should it be killed, we go with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(niceness)
    try:
        netns.setns(namespace)
        part(pipe, *arguments)
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - told to the parent, who raises
        traceback.print_exc()
        pipe.send(("failed", repr(error)))
