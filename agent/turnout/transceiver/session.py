"""One session: ICE, DTLS and media, put together. Built by worker.py, fed by demux.py.

Sans-IO: datagrams and `now` (monotonic seconds) come in, datagrams leave through `Outside`. What it
takes is what a client proves to be its own: checks by integrity, DTLS from proven flows only,
media by SRTP. The session ends 30 s after the client's last sign of life, which is what nobody can
have sent for it: an answer to a probe of ours, the end of the DTLS handshake, SRTP or SRTCP that
is no replay. Its checks are none: they only make us probe.
"""

from collections.abc import Callable
from socket import socket

from turnout.errors import WireError
from turnout.transceiver.answer import Negotiated
from turnout.transceiver.app import AppFactory
from turnout.transceiver.credentials import Credentials
from turnout.transceiver.dtls import LEFT, DtlsIdentity, DtlsServer
from turnout.transceiver.flow import NEVER, Address, Flow
from turnout.transceiver.ice import IceAgent
from turnout.transceiver.media import Media
from turnout.transceiver.moving import NotMovable, State, pack, unpack
from turnout.transceiver.outside import Outside
from turnout.transceiver.srtp import Srtp
from turnout.wire.dtls import ALERT, parse_records
from turnout.wire.sdp import Codec, IceCredentials
from turnout.wire.stun import StunDatagram

LIVE_SECONDS = 30.0
# DTLS datagrams kept while the first probe is on its way: a ClientHello takes at most two.
EARLY_DTLS_MAX = 4
# Time for a client to answer that may have closed, and what may still have been on its way then.
DOUBT_SECONDS = 3.0
DOUBT_GRACE_SECONDS = 0.5


class Session:
    """A client's call, from its offer to its end. `id` is 32 hex digits."""

    __slots__ = (
        "_created_at",
        "_doubted_at",
        "_early_dtls",
        "_fingerprints",
        "_outside",
        "_transport_mid",
        "alive_at",
        "dtls",
        "ended",
        "ice",
        "id",
        "media",
        "wake_at",
    )

    def __init__(
        self,
        *,
        session_id: str,
        credentials: Credentials,
        negotiated: Negotiated,
        ssrc: int,
        cname: str,
        identity: DtlsIdentity,
        app: AppFactory,
        outside: Outside,
        now: float,
        wall_offset: float,
    ) -> None:
        """`wall_offset` is Unix time less `now`."""
        self.id = session_id
        self.ended: str | None = None  # the reason
        self.wake_at = NEVER  # the timers': when they have promised to poll
        self._outside = outside
        self._created_at = now
        self.alive_at = now  # the last sign of life of the client
        self._early_dtls: list[tuple[Flow, bytes]] = []
        self._doubted_at = NEVER
        self._fingerprints = tuple(negotiated.remote_fingerprints)
        self._transport_mid = negotiated.transport_mid
        self.media = Media(
            negotiated,
            session_id=session_id,
            ssrc=ssrc,
            cname=cname,
            app=app,
            counters=outside.counters,
            transmit=self._transmit,
            wall_offset=wall_offset,
        )
        self.dtls = DtlsServer(identity, outside.counters)
        self.ice = IceAgent(self, credentials, outside)

    @classmethod
    def arrive(
        cls, state: State, *, identity: DtlsIdentity, app: AppFactory, outside: Outside
    ) -> "Session":
        """Make the session that another process let go of; `resume` brings it to life."""
        media, emission = state["media"], state["media"]["emission"]
        codec, *others = (Codec(*values) for values in media["codecs"])
        credentials = Credentials(*state["ice"]["credentials"])
        return cls(
            session_id=state["id"],
            credentials=credentials,
            negotiated=Negotiated(
                audio_mid=None,
                codec=codec,
                telephone_event=others[0] if others else None,
                direction="sendrecv" if media["may_send"] else "recvonly",
                remote=IceCredentials(credentials.remote_ufrag, credentials.remote_pwd),
                remote_fingerprints=(),
                transport_mid=state["transport_mid"],
            ),
            ssrc=emission["ssrc"],
            cname=emission["_cname"],
            identity=identity,
            app=app,
            outside=outside,
            now=state["created_at"],
            wall_offset=media["wall_offset"],
        )

    def _transmit(self, data: bytes) -> None:
        flow = self.ice.selected
        if flow is not None:
            self._outside.transmit(flow, data)

    @property
    def transport_mid(self) -> str | None:
        """The mid of the section that carries ICE in offer and answer."""
        return self._transport_mid

    def receive_request(
        self, request: StunDatagram, ufrag: str, vip: int, address: Address, now: float
    ) -> None:
        """Take a check for one of our ufrags; raises WireError."""
        self.ice.receive_request(request, ufrag, vip, address, now)

    def receive_response(self, response: StunDatagram, flow: Flow, now: float) -> None:
        """Take what answers a probe of ours; raises WireError."""
        if not self.ice.receive_response(response, flow, now):
            return
        self.alive_at = now
        early, self._early_dtls = self._early_dtls, []
        for early_flow, datagram in early:
            if not self.ice.knows(early_flow):
                # Forgotten meanwhile; all are if the session has just ended.
                self._outside.counters.drop__dtls_unproven += 1
            elif early_flow.is_proven:
                self.receive_dtls(datagram, early_flow, now)
            else:
                self._early_dtls.append((early_flow, datagram))

    def receive_dtls(self, datagram: bytes, flow: Flow, now: float) -> None:
        """Take a DTLS datagram.

        Only a proven flow is fed, a checked one is not enough: one stray record of somebody who
        replays a check can spoil the handshake. Its first datagrams may overtake the proof and
        wait for it.
        """
        counters = self._outside.counters
        if self.dtls.state == LEFT:
            self._receive_unreadable(datagram, flow, now)
            return
        if not flow.is_proven:
            if len(self._early_dtls) < EARLY_DTLS_MAX:
                self._early_dtls.append((flow, datagram))
            else:
                counters.drop__dtls_unproven += 1
            self.ice.receive_unproven(len(datagram), flow, now)
            return
        handshakes = self._outside.handshakes
        try:
            self.dtls.receive(datagram, lambda: handshakes.admit(self, now))
        except WireError:
            counters.drop__bad_dtls += 1
            return
        if self.dtls.state != "handshaking":
            handshakes.release(self)
        if self.dtls.state == "connected" and not self.media.is_started:
            self._start_media(now)
        self._send_dtls(flow)
        if self.dtls.state == "closed":
            self.end("dtls_closed", now)
        elif self.dtls.state == "failed":
            self.end("failed", now)

    def _receive_unreadable(self, datagram: bytes, flow: Flow, now: float) -> None:
        """Take DTLS of a session that was handed over: nobody can decrypt it any more.

        An alert may be the client's close_notify, or anybody's: the client is asked, and the
        session ends if it gives no sign of life.
        """
        counters = self._outside.counters
        try:
            records = parse_records(datagram)
        except WireError:
            counters.drop__bad_dtls += 1
            return
        counters.ignored__dtls_left += 1
        is_alert = any(record.content_type == ALERT and record.epoch for record in records)
        if is_alert and flow is self.ice.selected and self._doubted_at == NEVER:
            self._doubted_at = now
            self.ice.doubt(now)

    def _start_media(self, now: float) -> None:
        derived = self.dtls.derive_keys(self._fingerprints)
        if derived is not None:
            profile, keys = derived
            self.media.start(Srtp(profile, receive_key=keys.client, send_key=keys.server), now)
            self.alive_at = now  # nobody else has the key of the signaled certificate

    def _send_dtls(self, flow: Flow | None) -> None:
        target = self.ice.selected or flow
        for datagram in self.dtls.take_datagrams():
            if target is not None:
                self._outside.transmit(target, datagram)

    def receive_media(self, data: bytes, flow: Flow, now: float) -> None:
        """Take an SRTP or SRTCP datagram, from any flow of the session: SRTP tells whose it is."""
        media = self.media
        if not flow.is_proven:
            self.ice.receive_unproven(len(data), flow, now)
        if media.receive(data, now):
            self.alive_at = flow.alive_at = flow.media_at = now
            if media.has_ended:
                self.end("bye", now)

    def poll(self, now: float) -> float:
        """Do what is due and return when to be called next (monotonic seconds)."""
        # Compared as it is returned below: subtracted, a float may fall short of it for ever.
        if not self.media.is_started and now >= self._created_at + LIVE_SECONDS:
            self.end("failed" if self.ice.selected else "timeout", now)
        elif now >= self.alive_at + LIVE_SECONDS:
            self.end("timeout", now)
        elif now >= self._doubted_at + DOUBT_SECONDS:
            if self.alive_at <= self._doubted_at + DOUBT_GRACE_SECONDS:
                self.end("dtls_closed", now)
            self._doubted_at = NEVER
        if self.ended:
            return NEVER
        due = min(self.ice.poll(now), self.media.poll(now), self.alive_at + LIVE_SECONDS)
        due = min(due, self._doubted_at + DOUBT_SECONDS)
        if not self.media.is_started:
            due = min(due, self._created_at + LIVE_SECONDS, self._poll_handshake(now))
        return NEVER if self.ended else due

    def _poll_handshake(self, now: float) -> float:
        timeout = self.dtls.seconds_to_timeout()
        if timeout is not None and timeout <= 0:
            self.dtls.handle_timeout()
            self._send_dtls(None)
            if self.dtls.state == "failed":
                self.end("failed", now)
            timeout = self.dtls.seconds_to_timeout()
        # A millisecond late: OpenSSL rounds, and asked too early it does nothing.
        return NEVER if timeout is None else now + timeout + 0.001

    # --- a hand-off to another process

    def check_movable(self) -> None:
        """Raise NotMovable if the session has to stay here for now."""
        if self.ended:
            raise NotMovable(f"it has ended: {self.ended}")
        self.media.check_movable()
        self.ice.check_movable()

    def leave(self, vip_of: Callable[[int], str]) -> tuple[State, list[socket]]:
        """End here without a word to the client, and return all there is to go on elsewhere.

        SRTP's contexts are gone when this returns. Call `check_movable` before.
        """
        self.ended = "handed_over"
        media, sockets = self.media.leave()
        farewell = self.dtls.leave()
        self._outside.handshakes.release(self)
        self._outside.counters.drop__dtls_unproven += len(self._early_dtls)
        self._early_dtls.clear()
        state: State = {
            "id": self.id,
            "created_at": self._created_at,
            "alive_at": self.alive_at,
            "doubted_at": self._doubted_at,
            "farewell": pack(farewell),
            "transport_mid": self._transport_mid,
            "ice": self.ice.leave(vip_of),
            "media": media,
        }
        return state, sockets

    def resume(
        self,
        state: State,
        sockets: list[socket],
        number_of: Callable[[str], int | None],
        now: float,
    ) -> None:
        """Go on with what another process left. Times are of the one monotonic clock."""
        self.alive_at = state["alive_at"]
        self._doubted_at = state["doubted_at"]
        self.dtls.resume(unpack(state["farewell"]))
        self.ice.resume(state["ice"], number_of, now)
        self.media.resume(state["media"], sockets)

    def discard(self) -> None:
        """Let go of everything without a word: `resume` could not use what it was given."""
        self.ended = "discarded"
        self.ice.close()
        self.media.discard()

    def end(self, reason: str, now: float) -> None:
        """End the session: BYE and close_notify to the client, then everything is let go of."""
        if self.ended:
            return
        self.ended = reason
        self.media.close(now)
        self.dtls.close()
        self._send_dtls(None)
        self.dtls.release()
        self._outside.handshakes.release(self)
        self._outside.counters.drop__dtls_unproven += len(self._early_dtls)
        self._early_dtls.clear()
        self.ice.close()
        self._outside.session_ended(self, reason)

    def describe(self, now: float) -> dict[str, object]:
        """Return the session as `GET /status` shows it."""
        selected = self.ice.selected
        return {
            "id": self.id,
            "ufrag": self.ice.newest.local_ufrag,
            "age_seconds": round(now - self._created_at, 1),
            "silent_seconds": round(now - self.alive_at, 1),
            "ice": "connected" if selected else "checking" if self.ice.flows else "new",
            "dtls": self.dtls.state,
            "client": str(selected) if selected else None,
            "flows": len(self.ice.flows),
            **self.media.describe(),
        }
