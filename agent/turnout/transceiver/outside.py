"""What a session needs of the process around it. Implemented by worker.py."""

from typing import TYPE_CHECKING, Protocol

from turnout.transceiver.counters import Counters
from turnout.transceiver.flow import Flow
from turnout.transceiver.handshakes import Handshakes

if TYPE_CHECKING:
    from turnout.transceiver.session import Session


class Outside(Protocol):
    """The way out, and where a session says by what its datagrams are known."""

    counters: Counters
    handshakes: Handshakes
    probes: dict[bytes, Flow]  # transaction id -> flow of every probe on its way

    def transmit(self, flow: Flow, data: bytes) -> None:
        """Send one datagram to the flow's client from the flow's VIP."""

    def add_flow(self, flow: Flow) -> None:
        """Deliver what comes from the flow's address, unless another session has it already."""

    def claim_flow(self, flow: Flow) -> None:
        """Deliver what comes from the flow's address, taking it from who has an older proof."""

    def drop_flow(self, flow: Flow) -> None:
        """Deliver it no longer."""

    def ice_restarted(self, session: "Session", retired: str) -> None:
        """Forget the ufrag that the restart has replaced."""

    def session_ended(self, session: "Session", reason: str) -> None:
        """Forget the session."""
