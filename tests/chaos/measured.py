"""What comes of a row: measuring.py counts it, judge.py says what to think of it."""

from dataclasses import dataclass, field

Numbers = dict[int, int]  # by stream, the number of a datagram, or how many


@dataclass(slots=True)
class Outage:
    """What nobody could have delivered: the numbers of these streams while it lasted."""

    streams: set[int]
    first: Numbers
    last: Numbers = field(default_factory=dict)
    full_links: int = 0  # what the links dropped meanwhile, which explains nothing else


@dataclass(frozen=True, slots=True)
class Measured:
    """What a row came to. An outage's packets are in none of the sums but `in_outage`.

    Calls are those of aiortc and Chromium, and talkers.
    """

    sent: int  # by numbered flows
    lost_out: int  # of them, not seen at the lane
    lost: int  # of them, not seen back
    full_sockets: int  # of them, dropped by the sockets that they were meant for
    in_outage: int  # lost while the row said that they had to be
    gap_ms: float  # the longest that a client waited for its next packet
    calls_sent: int
    calls_lost: int
    calls_full_sockets: int
    calls_gap_ms: float
    calls_down: int
    talked: int  # by talkers, of what calls have sent
    talkers_gap_ms: float
    refused: int  # packets that did not authenticate at a talker
    full_links: int  # what the links between all these dropped, whoever it was for
    strayed: list[str]  # tuples of numbered flows that are not their own session's
    counters: dict[str, int]  # of the kernel, what they rose by
    adds_up: bool

    @property
    def unexplained(self) -> int:
        """How many packets of the flows are gone without a counter that says where."""
        return max(0, self.lost - self.full_sockets - self.full_links)

    @property
    def calls_unexplained(self) -> int:
        """The same of the calls; what explains a flow's packet does not explain theirs."""
        flows_share = min(self.full_links, self.lost - self.full_sockets)
        links_share = self.full_links - max(0, flows_share)
        return max(0, self.calls_lost - self.calls_full_sockets - links_share)
