"""The transceiver's worker: every session of the process, how it comes and how it goes.

Built by __main__.py, called by control.py and handover.py. A datagram's way: lane_sockets.py reads
it, demux.py finds its session, session.py takes it. One thread, one event loop.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from socket import socket as Socket  # noqa: N812 - `socket` is an attribute's name here

import pylibsrtp

from turnout.errors import SignalingError, WireError
from turnout.transceiver.answer import LocalDescription, build_answer
from turnout.transceiver.app import AppFactory
from turnout.transceiver.counters import Counters
from turnout.transceiver.credentials import Credentials, mint_pwd, mint_ufrag
from turnout.transceiver.demux import Demux, Forward
from turnout.transceiver.dtls import DtlsIdentity
from turnout.transceiver.flow import Address
from turnout.transceiver.handshakes import HANDSHAKES_MAX, Handshakes
from turnout.transceiver.lane_sockets import LaneSockets
from turnout.transceiver.moving import NotMovable, State
from turnout.transceiver.session import Session
from turnout.transceiver.timers import Timers
from turnout.wire.sdp import IceCredentials, SessionDescription, build_host_candidates
from turnout.wire.sdpfrag import IceFragment

logger = logging.getLogger(__name__)

SESSIONS_MAX = 2000

SessionEnded = Callable[[Session, str], None]
SessionRestarted = Callable[[Session], None]


@dataclass(frozen=True, slots=True)
class Given:
    """A session on its way: its state, its sockets, and by what its datagrams are known."""

    state: State
    sockets: list[Socket]
    clients: list[tuple[str, Address]]  # VIP and address of each flow
    ufrags: list[bytes]


class Worker:
    """Every session of one transceiver process. Implements `outside.Outside` for them."""

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
        self.sessions: dict[str, Session] = {}
        self.on_ended: SessionEnded = lambda _session, _reason: None
        self.on_restarted: SessionRestarted = lambda _session: None
        self._app = app
        self._sessions_max = sessions_max
        self._identity = DtlsIdentity.create()
        self._wall_offset = time.time() - time.monotonic()
        self._is_closed = False
        self._timers = Timers(self.sessions)
        self._sockets = LaneSockets(vips, lane, self.counters)
        self._demux = Demux(self._sockets, self._timers, self.counters)
        self.lane = self._sockets.lane
        # What sessions call most, without a step in between.
        self.transmit = self._sockets.transmit
        self.add_flow = self._demux.add_flow
        self.claim_flow = self._demux.claim_flow
        self.drop_flow = self._demux.drop_flow
        self.probes = self._demux.probes

    def start(self) -> None:
        """Begin to read. Needs the running event loop."""
        self._sockets.start(self._demux.receive)

    # --- sessions

    def create_session(self, offer: str, session_id: str | None) -> tuple[Session, str]:
        """Answer an offer; returns the new session and the SDP answer.

        Raises SignalingError: 400, 406, 422 for the offer, 409 for a session id in use, 503 when
        there is no room.
        """
        self._check_room()
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
            ufrag=mint_ufrag(),
            pwd=mint_pwd(),
            fingerprint_sha256=self._identity.fingerprint,
            candidates=self._candidates(),
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
        self._demux.ufrags[local.ufrag.encode()] = session
        self.counters.sessions_created += 1
        self._timers.poll(session, now)
        logger.info("session %s: offer answered, ufrag %s", session_id, local.ufrag)
        return session, str(answer)

    def _check_room(self) -> None:
        if self._is_closed:
            raise SignalingError(503, "Stopping", "this transceiver is stopping: try another")
        if len(self.sessions) >= self._sessions_max:
            raise SignalingError(
                503,
                "No room",
                f"this transceiver has its {self._sessions_max} sessions: try another, or later",
            )

    def _candidates(self) -> list[tuple[str, int]]:
        return [(vip, self.lane) for vip in self._sockets.vips]

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
            newest = Credentials(mint_ufrag(), mint_pwd(), remote.ufrag, remote.pwd)
            abandoned = session.ice.restart(newest)
            if abandoned is not None:
                del self._demux.ufrags[abandoned.encode()]
            self._demux.ufrags[newest.local_ufrag.encode()] = session
            self.counters.ice_restarts += 1
            logger.info("session %s: ICE restarts, ufrag %s", session_id, newest.local_ufrag)
        elif not session.ice.is_restarting:
            return None
        return IceFragment(
            credentials=IceCredentials(newest.local_ufrag, newest.local_pwd),
            candidates=tuple(build_host_candidates(self._candidates())),
            is_complete=True,
            is_lite=True,
            mid=session.transport_mid,
        )

    def ice_restarted(self, session: Session, retired: str) -> None:
        """Forget the ufrag that a restart has replaced (called by the session's ICE agent)."""
        del self._demux.ufrags[retired.encode()]
        self.counters.ice_restarts_done += 1
        logger.info("session %s: ICE restarted, ufrag %s is over", session.id, retired)
        self.on_restarted(session)

    # --- sessions that move to another process, and from one

    @property
    def room(self) -> int:
        """How many sessions more there may be."""
        return 0 if self._is_closed else self._sessions_max - len(self.sessions)

    def give_session(self, session_id: str, vips: Sequence[str]) -> Given:
        """Let go of a session, to a process that serves `vips`: it is nobody's until that has it.

        Raises NotMovable: then it lives on here.
        """
        session = self.sessions.get(session_id)
        if session is None:
            raise NotMovable("it is not live here")
        session.check_movable()
        selected = session.ice.selected
        if selected is not None and self._sockets.vip_of(selected.vip) not in vips:
            raise NotMovable("the other transceiver does not serve the VIP that its client uses")
        vip_of = self._sockets.vip_of
        # Only what is delivered to it: the rest, made by checks alone, may be another's.
        clients = [
            (vip_of(flow.vip), flow.address)
            for flow in session.ice.flows.values()
            if self._demux.flows[flow.vip].get(flow.address) is flow
        ]
        ufrags = [ufrag.encode() for ufrag in session.ice.credentials]
        state, sockets = session.leave(vip_of)
        del self.sessions[session_id]
        for ufrag in ufrags:
            del self._demux.ufrags[ufrag]
        self.counters.sessions_given += 1
        return Given(state, sockets, clients, ufrags)

    def take_session(self, state: State, sockets: list[Socket]) -> Session:
        """Go on with a session that another process let go of. Raises SignalingError, WireError.

        Where there is no room it is taken all the same: nobody else has it any more.
        """
        if self._is_closed:
            raise SignalingError(503, "Stopping", "this transceiver is stopping")
        now = time.monotonic()
        session: Session | None = None
        try:
            if state["id"] in self.sessions:
                raise SignalingError(409, "Session exists", f"session {state['id']} is live here")
            session = Session.arrive(state, identity=self._identity, app=self._app, outside=self)
            if not self._demux.ufrags.keys().isdisjoint(map(str.encode, session.ice.credentials)):
                raise SignalingError(409, "Ufrag in use", f"session {session.id}: another has it")
            session.resume(state, sockets, self._sockets.number_of, now)
        except (
            *(ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError),
            *(StopIteration, pylibsrtp.Error),
        ) as error:
            if session is not None:
                session.discard()
            raise WireError(f"the state of a session cannot be used: {error!r}") from error
        self.sessions[session.id] = session
        for ufrag in session.ice.credentials:
            self._demux.ufrags[ufrag.encode()] = session
        self.counters.sessions_taken += 1
        self._timers.poll(session, now)
        logger.info("session %s: taken over", session.id)
        return session

    def forward_to(self, forward: Forward) -> None:
        """Have it asked about each datagram that no session here is known by."""
        self._demux.forward = forward

    def receive_forwarded(self, vip: str, address: Address, data: bytes) -> None:
        """Take a datagram that came to the lane of a session's former owner."""
        number = self._sockets.number_of(vip)
        self.counters.received += 1
        if number is None:
            self.counters.drop__no_flow += 1
        else:
            self._demux.receive(data, number, address, time.monotonic())

    # --- a session's end

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
            del self._demux.ufrags[ufrag.encode()]
        name = f"sessions_ended__{reason}"
        setattr(self.counters, name, getattr(self.counters, name) + 1)
        logger.info("session %s: ended, %s", session.id, reason)
        self.on_ended(session, reason)

    # --- VIPs that come and go

    @property
    def vips(self) -> list[str]:
        """The VIPs that have a socket, most wanted first."""
        return self._sockets.vips

    def set_vips(self, vips: Sequence[str]) -> None:
        """Listen on exactly these VIPs. OSError: a socket cannot be bound, and nothing changed.

        What stays keeps its socket and its flows. Sessions outlive a VIP that goes, without the
        flows they had there.
        """
        gone = self._sockets.change(vips)
        for session in self.sessions.values():
            for flow in [flow for flow in session.ice.flows.values() if flow.vip in gone]:
                session.ice.forget(flow)
        for number in gone:
            self._demux.flows.pop(number, None)

    def close(self) -> None:
        """Say BYE and close_notify to every client and stop reading."""
        now = time.monotonic()
        for session in list(self.sessions.values()):
            session.end("deleted", now)
        self._is_closed = True
        self._timers.close()
        self._sockets.close()


def no_session(session_id: str) -> SignalingError:
    """Return the error that names a session nobody has here."""
    return SignalingError(404, "No such session", f"session {session_id} is not live here")
