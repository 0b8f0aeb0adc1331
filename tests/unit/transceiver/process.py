"""The transceiver as a process of its own: for tests of its command line, doors and calls."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

AGENT = Path(__file__).parents[3] / "agent"
SDP = {"Content-Type": "application/sdp"}


@dataclass
class Process:
    """A running transceiver and how to reach its control socket."""

    process: asyncio.subprocess.Process
    control: Path

    @asynccontextmanager
    async def http(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.UnixConnector(str(self.control))
        async with aiohttp.ClientSession("http://transceiver", connector=connector) as session:
            yield session

    async def status(self) -> dict[str, Any]:
        async with self.http() as http, http.get("/status") as response:
            status: dict[str, Any] = await response.json()
            return status


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "turnout.transceiver", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(AGENT)}
