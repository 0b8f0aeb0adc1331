import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from unit.transceiver.process import Process, command, environment


async def is_served(control: Path) -> bool:
    """Tell whether somebody listens: the socket's file is there before that."""
    try:
        _, writer = await asyncio.open_unix_connection(control)
    except OSError:
        return False
    writer.close()
    return True


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Process]:
    control = tmp_path / "control.sock"
    arguments = ["--slot", "3", "--lane", "0", "--vip", "127.0.0.1", "--control", str(control)]
    process = await asyncio.create_subprocess_exec(
        *command(*arguments, "--sessions-max", "3"), env=environment()
    )
    try:
        async with asyncio.timeout(20):
            while not await is_served(control):
                assert process.returncode is None
                await asyncio.sleep(0.02)
        yield Process(process, control)
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == 0
