"""What a service manager is told: each datagram as systemd would receive it."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from turnout import notify as module
from turnout.notify import notify, serving
from unit.patience import DEADLINE_S


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return the socket of a manager that has started this process and waits for its word."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(DEADLINE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
        yield listening


def next_word(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


async def hear(manager: socket.socket) -> list[str]:
    return await asyncio.to_thread(next_word, manager)


def test_notify_sends_all_assignments_in_one_datagram(manager: socket.socket) -> None:
    notify("READY=1", "STATUS=2 owners")

    assert next_word(manager) == ["READY=1", "STATUS=2 owners"]


def test_notify_abstract_socket_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"turnout-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(DEADLINE_S)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")

        notify("READY=1")

        assert next_word(listening) == ["READY=1"]


def test_notify_without_manager_does_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    notify("READY=1")

    assert caplog.messages == []


def test_notify_manager_has_gone_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))

    notify("READY=1")

    assert "not told READY=1" in caplog.text


async def test_serving_tells_ready_first_and_stopping_last(manager: socket.socket) -> None:
    async with serving(lambda: "3 sessions"):
        assert await hear(manager) == ["READY=1"]
        assert await hear(manager) == ["WATCHDOG=1", "STATUS=3 sessions"]

    assert await hear(manager) == ["STOPPING=1"]


async def test_serving_feeds_the_watchdog_within_its_time(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    sessions = iter(range(100))

    async with serving(lambda: f"{next(sessions)} sessions"):
        await hear(manager)
        loop = asyncio.get_running_loop()
        start = loop.time()
        words = [await hear(manager) for _ in range(3)]

    assert [word[0] for word in words] == ["WATCHDOG=1"] * 3
    assert [word[1] for word in words] == [f"STATUS={number} sessions" for number in range(3)]
    assert loop.time() - start >= 0.2  # every 0.1 s, not as fast as it can


async def test_serving_without_watchdog_still_tells_its_status(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATUS_PAUSE_S", 0.01)

    async with serving(lambda: "idle"):
        words = [await hear(manager) for _ in range(3)]

    assert words[1:] == [["WATCHDOG=1", "STATUS=idle"]] * 2


async def test_serving_status_that_fails_is_no_secret(manager: socket.socket) -> None:
    def fails() -> str:
        raise KeyError("owners")

    with pytest.raises(ExceptionGroup) as found:
        async with serving(fails):
            await asyncio.sleep(DEADLINE_S)

    assert found.value.exceptions[0].args == ("owners",)
