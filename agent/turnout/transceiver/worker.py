"""The transceiver's worker: its sockets, its sessions, its timers. Built by __main__.py.

A datagram's way: `_drain` reads it from the lane's socket, its first byte says what it is (RFC
7983), then a check goes to its session by ufrag, an answer by the probe's transaction id, all else
by flow. It trusts nothing because the kernel looked first. One thread, one event loop.
"""

import asyncio
import itertools
import logging
import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Sequence

from turnout.errors import SignalingError, WireError
from turnout.transceiver.answer import LocalDescription, build_answer
from turnout.transceiver.app import AppFactory
from turnout.transceiver.counters import Counters
from turnout.transceiver.dtls import DtlsIdentity
from turnout.transceiver.flow import Address, Flow
from turnout.transceiver.handshakes import HANDSHAKES_MAX, Handshakes
from turnout.transceiver.ice import Credentials
from turnout.transceiver.lane_socket import LaneSocket
from turnout.transceiver.session import Session
from turnout.transceiver.timers import Timers
from turnout.wire.sdp import IceCredentials, SessionDescription, build_host_candidates
from turnout.wire.sdpfrag import IceFragment
from turnout.wire.stun import (
    BINDING_ERROR,
    BINDING_INDICATION,
    BINDING_REQUEST,
    BINDING_SUCCESS,
    parse_stun,
)

logger = logging.getLogger(__name__)

SESSIONS_MAX = 2000
# Datagrams read at one wake-up before timers and the control socket have their turn.
_DRAIN_MOST = 64
# More than any datagram we have use for; a longer one is cut off and dropped.
_READ_BYTES = 2048

SessionEnded = Callable[[Session, str], None]
SessionRestarted = Callable[[Session], None]


class Worker:
    """Every session of one transceiver process. Implements `ice.Outside` for them."""

    def __init__(
        self,
        vips: list[str],
        lane: int,
        app: AppFactory,
        *,
        sessions_max: int = SESSIONS_MAX,
        handshakes_max: int = HANDSHAKES_MAX,
    ) -> None:
        """Bind (VIP, lane) for every VIP; lane 0 takes what the first socket is given."""
        self.counters = Counters()
        self.handshakes = Handshakes(handshakes_max)
        self.probes: dict[bytes, Flow] = {}
        self.sessions: dict[str, Session] = {}
        self.on_ended: SessionEnded = lambda _session, _reason: None
        self.on_restarted: SessionRestarted = lambda _session: None
        self._by_ufrag: dict[bytes, Session] = {}
        self._app = app
        self._sessions_max = sessions_max
        self._identity = DtlsIdentity.create()
        self._wall_offset = time.time() - time.monotonic()
        self._timers = Timers(self._poll)
        self._is_closed = False
        self._is_reading = False
        # By number; that of a VIP which is taken away is never another's: flows carry it.
        self._sockets: dict[int, LaneSocket] = {}
        self._numbers = itertools.count()
        self.lane = lane
        for vip in vips:
            opened = LaneSocket.open(vip, self.lane)
            self.lane = opened.socket.getsockname()[1]
            self._sockets[next(self._numbers)] = opened

    # --- sessions

    def create_session(self, offer: str, session_id: str | None) -> tuple[Session, str]:
        """Answer an offer; returns the new session and the SDP answer.

        Raises SignalingError: 400, 406, 422 for the offer, 409 for a session id in use, 503 when
        there is no room.
        """
        if self._is_closed:
            raise SignalingError(503, "Stopping", "this transceiver is stopping: try another")
        if len(self.sessions) >= self._sessions_max:
            raise SignalingError(
                503,
                "No room",
                f"this transceiver has its {self._sessions_max} sessions: try another, or later",
            )
        session_id = session_id or secrets.token_hex(16)
        if session_id in self.sessions:
            raise SignalingError(
                409, "Session exists", f"session {session_id} is live: choose another id"
            )
        try:
            description = SessionDescription.parse(offer)
        except WireError as error:
            raise SignalingError(400, "Bad offer", str(error)) from error
        local = LocalDescription(
            ufrag=_mint(12),
            pwd=_mint(18),
            fingerprint_sha256=self._identity.fingerprint,
            candidates=[(opened.vip, self.lane) for opened in self._sockets.values()],
            session_id=secrets.randbits(62),
            ssrc=secrets.randbelow(0xFFFFFFFF) + 1,
            cname=secrets.token_hex(8),
        )
        answer, negotiated = build_answer(description, local)
        now = time.monotonic()
        session = Session(
            session_id=session_id,
            credentials=Credentials(
                local.ufrag, local.pwd, negotiated.remote_ufrag, negotiated.remote_pwd
            ),
            negotiated=negotiated,
            ssrc=local.ssrc,
            cname=local.cname,
            identity=self._identity,
            app=self._app,
            outside=self,
            now=now,
            wall_offset=self._wall_offset,
        )
        self.sessions[session_id] = session
        self._by_ufrag[local.ufrag.encode()] = session
        self.counters.sessions_created += 1
        self._poll(session, now)
        logger.info("session %s: offer answered, ufrag %s", session_id, local.ufrag)
        return session, str(answer)

    def restart_ice(self, session_id: str, remote: IceCredentials) -> IceFragment | None:
        """Begin an ICE restart with the client's new credentials; returns our half of it.

        None if they are the client's present ones: then there is nothing to restart. Asked twice
        with the same, as by a client that lost the answer, it says the same twice. Raises
        SignalingError: 404.
        """
        session = self.sessions.get(session_id)
        if session is None:
            raise no_session(session_id)
        newest = session.ice.newest
        if (newest.remote_ufrag, newest.remote_pwd) != remote:
            newest = Credentials(_mint(12), _mint(18), remote.ufrag, remote.pwd)
            abandoned = session.ice.restart(newest)
            if abandoned is not None:
                del self._by_ufrag[abandoned.encode()]
            self._by_ufrag[newest.local_ufrag.encode()] = session
            self.counters.ice_restarts += 1
            logger.info("session %s: ICE restarts, ufrag %s", session_id, newest.local_ufrag)
        elif not session.ice.is_restarting:
            return None
        return IceFragment(
            credentials=IceCredentials(newest.local_ufrag, newest.local_pwd),
            candidates=tuple(
                build_host_candidates((opened.vip, self.lane) for opened in self._sockets.values())
            ),
            is_complete=True,
            is_lite=True,
            mid=session.transport_mid,
        )

    def ice_restarted(self, session: Session, retired: str) -> None:
        """Forget the ufrag that a restart has replaced (called by the session's ICE agent)."""
        del self._by_ufrag[retired.encode()]
        self.counters.ice_restarts_done += 1
        logger.info("session %s: ICE restarted, ufrag %s is over", session.id, retired)
        self.on_restarted(session)

    def end_session(self, session_id: str, reason: str) -> bool:
        """End a session; False if there is none of that id."""
        session = self.sessions.get(session_id)
        if session is not None:
            session.end(reason, time.monotonic())
        return session is not None

    def session_ended(self, session: Session, reason: str) -> None:
        """Forget a session that has ended (called by the session itself)."""
        del self.sessions[session.id]
        for ufrag in session.ice.credentials:
            del self._by_ufrag[ufrag.encode()]
        name = f"sessions_ended__{reason}"
        setattr(self.counters, name, getattr(self.counters, name) + 1)
        logger.info("session %s: ended, %s", session.id, reason)
        self.on_ended(session, reason)

    # --- datagrams out, and the flows that bring them in

    def transmit(self, flow: Flow, data: bytes) -> None:
        """Send one datagram; a socket that would block loses it, as a full link would."""
        try:
            self._sockets[flow.vip].socket.sendto(data, flow.address)
        except BlockingIOError:
            self.counters.send_failed__would_block += 1
        except OSError as error:
            self.counters.send_failed__refused += 1
            logger.debug("sending %d bytes to %s: %s", len(data), flow, error)
        else:
            self.counters.sent += 1

    def add_flow(self, flow: Flow) -> None:
        """Deliver what comes from the flow's address, unless another session has it already.

        A check with a forged address must not take over the call that lives there.
        """
        self._sockets[flow.vip].flows.setdefault(flow.address, flow)

    def claim_flow(self, flow: Flow) -> None:
        """Deliver what comes from the flow's address to it: its client has proven to be there."""
        flows = self._sockets[flow.vip].flows
        holder = flows.get(flow.address)
        if holder is not None and holder is not flow:
            holder.session.ice.forget(holder)
        flows[flow.address] = flow

    def drop_flow(self, flow: Flow) -> None:
        """Deliver it no longer."""
        flows = self._sockets[flow.vip].flows
        if flows.get(flow.address) is flow:
            del flows[flow.address]

    # --- VIPs that come and go

    @property
    def vips(self) -> list[str]:
        """The VIPs that have a socket, most wanted first."""
        return [opened.vip for opened in self._sockets.values()]

    def set_vips(self, vips: Sequence[str]) -> None:
        """Listen on exactly these VIPs. OSError: a socket cannot be bound, and nothing changed.

        What stays keeps its socket and its flows. Sessions outlive a VIP that goes, without the
        flows they had there.
        """
        if set(vips) == set(self.vips):
            return
        loop = asyncio.get_running_loop()
        added: list[LaneSocket] = []
        try:
            added += (LaneSocket.open(vip, self.lane) for vip in vips if vip not in self.vips)
        except OSError:
            for opened in added:
                opened.socket.close()
            raise
        for number, gone in list(self._sockets.items()):
            if gone.vip not in vips:
                self._close(number, gone, loop)
        for opened in added:
            number = next(self._numbers)
            self._sockets[number] = opened
            if self._is_reading:
                loop.add_reader(opened.socket, self._drain, number)
        logger.info("VIPs are %s", ", ".join(self.vips))

    def _close(self, number: int, gone: LaneSocket, loop: asyncio.AbstractEventLoop) -> None:
        for session in self.sessions.values():
            for flow in [flow for flow in session.ice.flows.values() if flow.vip == number]:
                session.ice.forget(flow)
        loop.remove_reader(gone.socket)
        gone.socket.close()
        del self._sockets[number]

    # --- datagrams in

    def start(self) -> None:
        """Begin to read. Needs the running event loop."""
        self._is_reading = True
        loop = asyncio.get_running_loop()
        for vip, opened in self._sockets.items():
            loop.add_reader(opened.socket, self._drain, vip)

    def _drain(self, vip: int) -> None:
        receive_from = self._sockets[vip].socket.recvfrom
        flows = self._sockets[vip].flows
        counters = self.counters
        now = time.monotonic()
        for _ in range(_DRAIN_MOST):
            try:
                data, address = receive_from(_READ_BYTES)
            except BlockingIOError:
                return
            counters.received += 1
            first = data[0] if data else -1
            if 128 <= first <= 191:
                flow = flows.get(address)
                if flow is None:
                    counters.drop__no_flow += 1
                else:
                    flow.session.receive_media(data, flow, now)
            elif 0 <= first <= 3:
                self._receive_stun(data, vip, address, now)
            elif 20 <= first <= 63:
                flow = flows.get(address)
                if flow is None:
                    counters.drop__no_flow += 1
                else:
                    flow.session.receive_dtls(data, flow, now)
                    self._poll(flow.session, now)
            elif first < 0:
                counters.drop__empty += 1
            else:
                counters.drop__unknown_class += 1

    def _receive_stun(self, data: bytes, vip: int, address: Address, now: float) -> None:
        counters = self.counters
        try:
            message = parse_stun(data)
            if message.kind == BINDING_REQUEST:
                ufrag = message.receiver_ufrag
                session = self._by_ufrag.get(ufrag) if ufrag is not None else None
                if ufrag is None:
                    counters.drop__bad_username += 1
                elif session is None:
                    counters.drop__no_session += 1
                else:
                    session.receive_request(message, ufrag.decode(), vip, address, now)
                    self._poll(session, now)
            elif message.kind in {BINDING_SUCCESS, BINDING_ERROR}:
                flow = self.probes.get(message.transaction_id)
                # An answer has to come from where the probe went (RFC 8445 section 7.2.5.2.1).
                if flow is None or flow.address != address or flow.vip != vip:
                    counters.drop__stun_unsolicited += 1
                else:
                    flow.session.receive_response(message, flow, now)
                    self._poll(flow.session, now)
            elif message.kind == BINDING_INDICATION:
                counters.ignored__stun_indication += 1
            else:
                counters.drop__stun_unsupported += 1
        except WireError as error:
            counters.drop__bad_stun += 1
            logger.debug("STUN from %s: %s", address, error)

    def _poll(self, session: Session, now: float) -> None:
        self._timers.schedule(session, session.poll(now))

    # --- end

    def close(self) -> None:
        """Say BYE and close_notify to every client and stop reading."""
        now = time.monotonic()
        for session in list(self.sessions.values()):
            session.end("deleted", now)
        self._is_closed = True
        self._timers.close()
        loop = asyncio.get_running_loop()
        while self._sockets:
            _, opened = self._sockets.popitem()
            loop.remove_reader(opened.socket)
            opened.socket.close()


def no_session(session_id: str) -> SignalingError:
    """Return the error that names a session nobody has here."""
    return SignalingError(404, "No such session", f"session {session_id} is not live here")


def _mint(size: int) -> str:
    """Make a ufrag or password of `size` random bytes: base64's alphabet is the ice-chars'."""
    return b64encode(secrets.token_bytes(size)).decode()
