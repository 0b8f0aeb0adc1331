"""Waiting in tests: for a condition, with a deadline, never for a time."""

import asyncio
from collections.abc import Callable

DEADLINE_S = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - other processes set no event of ours
            await asyncio.sleep(0.01)
