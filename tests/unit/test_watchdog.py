"""The watchdog: who answers, whatever it says, lives; who does not is killed."""

import asyncio
import errno
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from turnout import watchdog
from turnout.children import Child
from turnout.watchdog import answers, end_when_stuck
from unit.patience import until

_WAIT = "import signal; signal.pause()"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "STUCK_SECONDS", 1)
    monkeypatch.setattr(watchdog, "LOOK_PAUSE_S", 0.01)


@asynccontextmanager
async def door(
    path: Path, says: bytes, questions: list[bytes] | None = None
) -> AsyncIterator[Path]:
    """Take questions and answer each with `says`, or never."""

    writers: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        question = await reader.readuntil(b"\r\n\r\n")
        if questions is not None:
            questions.append(question)
        writer.write(says)
        if not says:
            await reader.read()  # until the asker has gone
        writer.close()

    server = await asyncio.start_unix_server(take, path)
    async with server:
        yield path
    await until(lambda: all(writer.transport.is_closing() for writer in writers))
    await asyncio.gather(*(writer.wait_closed() for writer in writers))


async def cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_answers_any_answer_is_one(tmp_path: Path) -> None:
    async with door(tmp_path / "door", b"HTTP/1.1 404 Not Found\r\n\r\n") as path:
        assert await answers(path)


async def test_answers_nobody_listens_is_no_hang(tmp_path: Path) -> None:
    assert await answers(tmp_path / "door")


async def test_answers_silence_is_a_hang(tmp_path: Path) -> None:
    async with door(tmp_path / "door", b"") as path:
        assert not await answers(path)


async def test_answers_door_with_a_full_queue_is_a_hang(tmp_path: Path) -> None:
    """Those who came first may be more than the kernel lets wait: the question is not even put."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "door"))
        listener.listen(1)
        is_full = False
        while not is_full:
            caller = sockets.enter_context(socket.socket(socket.AF_UNIX))
            caller.setblocking(False)
            is_full = caller.connect_ex(str(tmp_path / "door")) == errno.EAGAIN

        assert not await answers(tmp_path / "door")


async def test_end_when_stuck_kills_who_is_silent(tmp_path: Path) -> None:
    child = Child("child", ("-c", _WAIT), tmp_path / "child.pid")
    async with door(tmp_path / "door", b"") as path:
        watch = asyncio.create_task(end_when_stuck(child, path))

        assert await child.run_once(asyncio.Event()) == -signal.SIGKILL

        await cancel(watch)


async def test_end_when_stuck_spares_who_answers(tmp_path: Path) -> None:
    child = Child("child", ("-c", _WAIT), tmp_path / "child.pid")
    questions: list[bytes] = []
    async with door(tmp_path / "door", b"HTTP/1.1 404 Not Found\r\n\r\n", questions) as path:
        run = asyncio.create_task(child.run_once(asyncio.Event()))
        watch = asyncio.create_task(end_when_stuck(child, path))

        await until(lambda: len(questions) > 3)

        assert not run.done()
        await cancel(watch)
        await cancel(run)
