"""When each session wants to be polled next: one heap for the process. Built by worker.py."""

import asyncio
import heapq
import time
from collections.abc import Mapping

from turnout.transceiver.flow import NEVER
from turnout.transceiver.session import Session


class Timers:
    """Polls each live session when its time has come.

    A session has one valid entry, the one that equals its `wake_at`; an earlier wish makes a new
    one. A later wish changes nothing: the old entry finds nothing to do and asks again. So media,
    which only ever postpones, never touches the heap. Entries hold ids: those of an ended session
    are found by nobody when their time comes, and do not keep it in memory until then.
    """

    def __init__(self, sessions: Mapping[str, Session]) -> None:
        """`sessions` are those that live, by id."""
        self._sessions = sessions
        self._heap: list[tuple[float, int, str]] = []
        self._count = 0  # orders entries of the same time
        self._handle: asyncio.TimerHandle | None = None

    def poll(self, session: Session, now: float) -> None:
        """Poll the session now, and then when it wants to be."""
        due = session.poll(now)
        if due >= session.wake_at:
            return
        session.wake_at = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, session.id))
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
        try:
            while self._heap and self._heap[0][0] <= now:
                due, _, session_id = heapq.heappop(self._heap)
                session = self._sessions.get(session_id)
                if session is not None and due == session.wake_at:
                    session.wake_at = NEVER
                    self.poll(session, now)
        finally:
            self._arm()  # whatever one session has raised: the others want to be woken

    def close(self) -> None:
        """Poll no more."""
        self._heap.clear()
        self._arm()
