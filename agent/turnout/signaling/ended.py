"""Sessions that ended on the media server's side: their clients are told 410 and why."""

from collections import OrderedDict

REMEMBERED = 10_000

# The reasons of transceiver/session.py, as a client reads them.
_TOLD = {
    "bye": "the client said goodbye (RTCP BYE)",
    "dtls_closed": "the client closed its connection",
    "timeout": "nothing was heard of the client for 30 s",
    "failed": "the connection could not be secured: DTLS failed",
    "deleted": "the media server ended it",
    "no_flow": "no packet of the client came",
    "owner_down": "its media server is down",
    "handed_over": "its transceiver was lost while the call was handed over",
    "drained": "its media server was drained and the time for that was up",
}


class EndedSessions:
    """The last sessions that ended without their clients' asking, and why."""

    def __init__(self) -> None:
        self._reasons: OrderedDict[str, str] = OrderedDict()

    def remember(self, session_id: str, reason: str) -> None:
        """Note an end; the oldest is forgotten for it where there are too many."""
        self._reasons[session_id] = reason
        if len(self._reasons) > REMEMBERED:
            self._reasons.popitem(last=False)

    def forget(self, session_id: str) -> None:
        """Take a note back: the client asked for the end after all."""
        self._reasons.pop(session_id, None)

    def why(self, session_id: str) -> str | None:
        """Return why a session ended, in words; None for one that did not end like that."""
        reason = self._reasons.get(session_id)
        return None if reason is None else _TOLD.get(reason, reason)
