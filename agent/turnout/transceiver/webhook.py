"""Tells the operator's service what happens to calls: JSON by HTTP POST, in order.

One of these a process, run by __main__.py beside the worker. A service that is away costs calls
nothing: what it misses is counted and logged.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401 - for asyncio's resolver, while it can be read
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp

from turnout.transceiver.counters import Counters

logger = logging.getLogger(__name__)

POST_TIMEOUT_S = 3.0
# Between the tries of one announcement; the ones after it wait meanwhile, for order's sake.
PAUSES_S = (0.2, 1.0)
# A burst of calls; past it the service is not there, and what is told of later calls is lost.
WAITING_MOST = 1000


class Webhook:
    """A queue of announcements and the task that empties it."""

    def __init__(self, url: str) -> None:
        self.counters = Counters()  # the worker's, once there is one
        self._url = url
        self._waiting: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(WAITING_MOST)

    def announce(self, announcement: Mapping[str, Any]) -> None:
        """Have it told, soon."""
        try:
            self._waiting.put_nowait(announcement)
        except asyncio.QueueFull:
            self._count_lost(announcement, f"{WAITING_MOST} others wait already")

    async def run(self) -> None:
        """Tell what there is to tell, for ever."""
        timeout = aiohttp.ClientTimeout(total=POST_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                announcement = await self._waiting.get()
                try:
                    await self._tell(http, announcement)
                finally:
                    self._waiting.task_done()

    async def drain(self, seconds: float) -> None:
        """Wait until all is told, that long at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._waiting.join()
        except TimeoutError:
            logger.warning("webhook %s: %d not told", self._url, self._waiting.qsize() + 1)

    async def _tell(self, http: aiohttp.ClientSession, announcement: Mapping[str, Any]) -> None:
        reason = ""
        for pause in (*PAUSES_S, None):
            try:
                async with http.post(self._url, json=announcement) as reply:
                    if reply.ok:
                        self.counters.webhook__told += 1
                        return
                    reason = f"it answered {reply.status}"
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = str(error) or "no answer in time"
            if pause is not None:
                await asyncio.sleep(pause)
        self._count_lost(announcement, reason)

    def _count_lost(self, announcement: Mapping[str, Any], reason: str) -> None:
        self.counters.webhook__lost += 1
        logger.warning(
            "webhook %s: %s of call %s is not told: %s",
            self._url,
            announcement.get("event"),
            announcement.get("call"),
            reason,
        )
