"""DTLS handshakes in progress: so many at once in one process. Built by worker.py.

A handshake costs 0.4 ms and, while it lasts, 95 kB. Past the limit the ClientHello of a further
session is dropped and counted: clients send it again after a second at most.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turnout.transceiver.session import Session

HANDSHAKES_MAX = 100
# A place is its session's for so long: enough for three lost flights (1, 2 and 4 s, RFC 6347
# section 4.2.4). Then a newcomer who finds no other may have it, and that session ends.
PLACE_SECONDS = 10.0


class Handshakes:
    """The places; `most` of them, which may be changed while some are taken."""

    def __init__(self, most: int = HANDSHAKES_MAX) -> None:
        self.most = most
        self._since: dict[Session, float] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._since)

    def admit(self, session: "Session", now: float) -> bool:
        """Give a session a place, if it has none; False if there is none for it."""
        if session in self._since:
            return True
        if len(self._since) >= self.most:
            oldest, since = next(iter(self._since.items()))
            if now - since < PLACE_SECONDS:
                return False
            oldest.end("failed", now)  # which releases it
        self._since[session] = now
        return True

    def release(self, session: "Session") -> None:
        """Take a session's place back, if it has one: it has finished or failed."""
        self._since.pop(session, None)
