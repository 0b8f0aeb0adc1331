"""A child process: what is known of it while it runs, how it is ended, when it comes back."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from turnout import children
from turnout.children import BACKOFF_FIRST_S, BACKOFF_MOST_S, Child, backoff_s, how_it_ended
from turnout.errors import TurnoutError
from turnout.rundir import ProcessId
from unit.patience import until

_WAIT = "import signal; signal.pause()"
_STUBBORN = (
    "import pathlib, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "pathlib.Path(sys.argv[1]).touch(); signal.pause()"
)


def child(tmp_path: Path, code: str, *arguments: str) -> Child:
    return Child("child", ("-c", code, *arguments), tmp_path / "child.pid")


async def cancel(task: "asyncio.Task[int]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_run_once_returns_the_exit_code(tmp_path: Path) -> None:
    assert await child(tmp_path, "raise SystemExit(3)").run_once(asyncio.Event()) == 3


async def test_run_once_pid_file_names_the_child_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "child.pid"
    task = asyncio.create_task(child(tmp_path, _WAIT).run_once(asyncio.Event()))
    await until(path.exists)
    identity = ProcessId.read(path)
    assert identity is not None
    assert ProcessId.of(identity.pid) == identity

    os.kill(identity.pid, signal.SIGKILL)

    assert await task == -signal.SIGKILL
    assert not path.exists()


async def test_run_once_cancelled_ends_the_child(tmp_path: Path) -> None:
    path = tmp_path / "child.pid"
    task = asyncio.create_task(child(tmp_path, _WAIT).run_once(asyncio.Event()))
    await until(path.exists)
    identity = ProcessId.read(path)
    assert identity is not None

    await cancel(task)

    assert ProcessId.of(identity.pid) is None
    assert not path.exists()


async def test_run_once_child_that_ignores_sigterm_is_killed_in_a_hurry(tmp_path: Path) -> None:
    hurry = asyncio.Event()
    hurry.set()
    running = child(tmp_path, _STUBBORN, str(tmp_path / "up"))
    task = asyncio.create_task(running.run_once(hurry))
    await until((tmp_path / "up").exists)
    identity = ProcessId.read(tmp_path / "child.pid")
    assert identity is not None

    await cancel(task)

    assert ProcessId.of(identity.pid) is None


async def test_keep_child_that_dies_before_ready_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(TurnoutError, match="child ended with exit code 3 before the edge"):
        await child(tmp_path, "raise SystemExit(3)").keep(asyncio.Event(), lambda: False)


async def test_keep_child_that_dies_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "BACKOFF_FIRST_S", 0.0)
    log = tmp_path / "log"
    code = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write('x')"
    task = asyncio.create_task(child(tmp_path, code, str(log)).keep(asyncio.Event(), lambda: True))
    await until(lambda: log.exists() and len(log.read_text()) >= 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(log.read_text()) >= 2


def test_backoff_doubles_up_to_its_most() -> None:
    pauses = [0.0]
    for _ in range(8):
        pauses.append(backoff_s(pauses[-1], lived_s=0.1))

    assert pauses[1:4] == [0.2, 0.4, 0.8]
    assert pauses[-1] == BACKOFF_MOST_S


def test_backoff_after_a_long_life_starts_over() -> None:
    assert backoff_s(5.0, lived_s=10.0) == BACKOFF_FIRST_S


@pytest.mark.parametrize(
    ("returncode", "words"),
    [(0, "ended with exit code 0"), (-signal.SIGKILL, "ended by SIGKILL")],
)
def test_how_it_ended_is_told_in_words(returncode: int, words: str) -> None:
    assert how_it_ended(returncode) == words
