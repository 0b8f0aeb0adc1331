"""One way to a client: (client address, client port, VIP), and what is known of it. Used by ice.py.

Whoever forges a source address can make us talk to it. Until its client has answered a probe, a
flow is sent three times the bytes that came from it and no more, as QUIC does (RFC 9000 section
8.1): UDP payload counts, of all that comes and all that goes. Nothing but responses to its checks
(RFC 8445 section 7.3.1.4) and our probe is sent to such a flow: no DTLS, no media.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from turnout.transceiver.session import Session

# What recvfrom gives: (address, port) for IPv4, two more numbers for IPv6.
Address = tuple[Any, ...]

NEVER = float("inf")
# A response has at most 76 bytes and an authenticated check at least 72: responses always fit. So
# does a probe with each, being at most 28 bytes longer than the check whose USERNAME it returns.
AMPLIFICATION = 3


class Flow:
    """One (client address, client port, VIP) of a session, and what is known of it."""

    __slots__ = (
        "address",
        "alive_at",
        "bytes_in",
        "bytes_out",
        "media_at",
        "probe",
        "probe_id",
        "probe_is_held",
        "probe_next",
        "probe_pwd",
        "probe_started",
        "probe_transmissions",
        "proven_at",
        "received_at",
        "session",
        "ufrag",
        "vip",
    )

    def __init__(self, session: "Session", vip: int, address: Address, now: float) -> None:
        self.session = session
        self.vip = vip
        self.address = address
        self.ufrag = ""  # ours, as the latest check named it
        self.received_at = now  # the latest check; anybody can send an old one again
        self.alive_at = -NEVER  # what only its client can have sent just now
        self.media_at = -NEVER  # the part of it that was SRTP or SRTCP
        self.proven_at = -NEVER
        self.bytes_in = 0  # these two matter until it is proven
        self.bytes_out = 0
        self.probe = b""
        self.probe_id = b""
        self.probe_pwd = b""
        self.probe_next = NEVER
        self.probe_started = -NEVER
        self.probe_transmissions = 0
        self.probe_is_held = False  # until more comes from the client

    @property
    def is_proven(self) -> bool:
        """The client has answered a probe sent to it."""
        return self.proven_at != -NEVER

    @property
    def is_probing(self) -> bool:
        """A probe is on its way."""
        return self.probe_next != NEVER

    def may_send(self, size: int) -> bool:
        """Tell whether a datagram may go to whoever is there; a proven client may get any."""
        return self.is_proven or self.bytes_out + size <= AMPLIFICATION * self.bytes_in

    def __str__(self) -> str:
        host, port = self.address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
