"""When each session wants to be polled next: one heap for the process. Used by worker.py."""

import asyncio
import heapq
import time
from collections.abc import Callable

from turnout.transceiver.flow import NEVER
from turnout.transceiver.session import Session


class Timers:
    """Calls `poll(session, now)` when a session's time has come.

    A session has one valid entry, the one that equals its `wake_at`; an earlier wish makes a new
    one. A later wish changes nothing: the old entry finds nothing to do and asks again. So media,
    which only ever postpones, never touches the heap.
    """

    def __init__(self, poll: Callable[[Session, float], None]) -> None:
        self._poll = poll
        self._heap: list[tuple[float, int, Session]] = []
        self._count = 0  # orders entries of the same time
        self._handle: asyncio.TimerHandle | None = None

    def schedule(self, session: Session, due: float) -> None:
        """Poll the session at `due` (monotonic seconds) at the latest."""
        if due >= session.wake_at:
            return
        session.wake_at = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, session))
        if self._heap[0][1] == self._count:
            self._arm()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._heap:
            self._handle = asyncio.get_running_loop().call_at(self._heap[0][0], self._wake)

    def _wake(self) -> None:
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            due, _, session = heapq.heappop(self._heap)
            if not session.ended and due == session.wake_at:
                session.wake_at = NEVER
                self._poll(session, now)
        self._arm()

    def close(self) -> None:
        """Poll no more."""
        self._heap.clear()
        self._arm()
