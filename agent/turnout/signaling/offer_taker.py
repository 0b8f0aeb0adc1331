"""What the WHIP door asks of who takes its offers: our transceivers and media servers alike.

upstream.py and media_server.py are the two kinds there are; placement.py, restart.py and the drains
know no more of them than this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# Is told the id and reason of a session that ended on the taker's side.
OnEnded = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class UpstreamAnswer:
    """The answer's SDP as the upstream wrote it, and the path of the session's resource."""

    body: str
    location: str


def session_location(session_id: str) -> str:
    """Return the resource of a session; the id is the one we gave it."""
    return f"/whip/{session_id}"


class OfferTaker(Protocol):
    """An upstream, ours or not. Every method raises SignalingError."""

    @property
    def weight(self) -> int:
        """Its share of new sessions beside the others'."""

    async def post_offer(self, offer: str, session_id: str) -> UpstreamAnswer:
        """Ask for a session under that id.

        Below 500 the offer is to blame. After any error or cancellation the session may live, and
        `delete` makes sure that it does not.
        """

    async def restart(self, session_id: str, fragment: str) -> str | None:
        """Ask for an ICE restart with the client's fragment; None if that has nothing new."""

    async def trickle(self, session_id: str, fragment: str) -> None:
        """Tell of the client's candidates."""

    async def delete(self, location: str) -> None:
        """End a session; that it is gone already is as good."""
