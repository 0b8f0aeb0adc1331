"""Which session a datagram is for. Fed by lane_sockets.py; built by worker.py.

Its first byte says what it is (RFC 7983), then a check goes to its session by ufrag, an answer by
the probe's transaction id, all else by flow. It trusts nothing because the kernel looked first.
"""

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from turnout.errors import WireError
from turnout.transceiver.counters import Counters
from turnout.transceiver.flow import Address, Flow
from turnout.transceiver.lane_sockets import LaneSockets
from turnout.transceiver.timers import Timers
from turnout.wire.stun import (
    BINDING_ERROR,
    BINDING_INDICATION,
    BINDING_REQUEST,
    BINDING_SUCCESS,
    parse_stun,
)

if TYPE_CHECKING:
    from turnout.transceiver.session import Session

logger = logging.getLogger(__name__)

# (VIP, client, datagram, the ufrag that a request names) -> whether somebody else takes it
Forward = Callable[[str, Address, bytes, bytes | None], bool]


class Demux:
    """By what the sessions' datagrams are known. Whoever puts something in takes it out again."""

    def __init__(self, sockets: LaneSockets, timers: Timers, counters: Counters) -> None:
        self.ufrags: dict[bytes, Session] = {}
        self.probes: dict[bytes, Flow] = {}  # by transaction id
        # By the number of the VIP's socket, then by recvfrom's address.
        self.flows: defaultdict[int, dict[Address, Flow]] = defaultdict(dict)
        self.forward: Forward = lambda _vip, _address, _data, _ufrag: False
        self._sockets = sockets
        self._timers = timers
        self._counters = counters

    def add_flow(self, flow: Flow) -> None:
        """Deliver what comes from the flow's address, unless another session has it already.

        A check with a forged address must not take over the call that lives there.
        """
        self.flows[flow.vip].setdefault(flow.address, flow)

    def claim_flow(self, flow: Flow) -> None:
        """Deliver what comes from the flow's address to it: its client has proven to be there.

        The latest proof counts; one that comes with a session of another process may be older.
        """
        flows = self.flows[flow.vip]
        holder = flows.get(flow.address)
        if holder is not None and holder is not flow:
            if holder.proven_at > flow.proven_at:
                flow.session.ice.forget(flow)
                return
            holder.session.ice.forget(holder)
        flows[flow.address] = flow

    def drop_flow(self, flow: Flow) -> None:
        """Deliver it no longer."""
        flows = self.flows[flow.vip]
        if flows.get(flow.address) is flow:
            del flows[flow.address]

    def receive(self, data: bytes, vip: int, address: Address, now: float) -> None:
        """Take a datagram that came in by the socket of number `vip`, and count it once."""
        counters = self._counters
        first = data[0] if data else -1
        if 0 <= first <= 3:
            self._receive_stun(data, vip, address, now)
        elif 128 <= first <= 191 or 20 <= first <= 63:
            flow = self.flows[vip].get(address)
            if flow is None:
                if not self._try_forward(vip, address, data, None):
                    counters.drop__no_flow += 1
            elif first >= 128:
                flow.session.receive_media(data, flow, now)
            else:
                flow.session.receive_dtls(data, flow, now)
                self._timers.poll(flow.session, now)
        elif first < 0:
            counters.drop__empty += 1
        else:
            counters.drop__unknown_class += 1

    def _receive_stun(self, data: bytes, vip: int, address: Address, now: float) -> None:
        counters = self._counters
        try:
            message = parse_stun(data)
            if message.kind == BINDING_REQUEST:
                ufrag = message.receiver_ufrag
                session = self.ufrags.get(ufrag) if ufrag is not None else None
                if ufrag is None:
                    counters.drop__bad_username += 1
                elif session is None:
                    if not self._try_forward(vip, address, data, ufrag):
                        counters.drop__no_session += 1
                else:
                    session.receive_request(message, ufrag.decode(), vip, address, now)
                    self._timers.poll(session, now)
            elif message.kind in {BINDING_SUCCESS, BINDING_ERROR}:
                flow = self.probes.get(message.transaction_id)
                # An answer has to come from where the probe went (RFC 8445 section 7.2.5.2.1).
                if flow is None or flow.address != address or flow.vip != vip:
                    if not self._try_forward(vip, address, data, None):
                        counters.drop__stun_unsolicited += 1
                else:
                    flow.session.receive_response(message, flow, now)
                    self._timers.poll(flow.session, now)
            elif message.kind == BINDING_INDICATION:
                counters.ignored__stun_indication += 1
            else:
                counters.drop__stun_unsupported += 1
        except WireError as error:
            counters.drop__bad_stun += 1
            logger.debug("STUN from %s: %s", address, error)

    def _try_forward(self, vip: int, address: Address, data: bytes, ufrag: bytes | None) -> bool:
        """Send a datagram on that is not for us, to who has its session now; True if there is."""
        is_sent = self.forward(self._sockets.vip_of(vip), address, data, ufrag)
        self._counters.handled__forwarded += is_sent
        return is_sent
