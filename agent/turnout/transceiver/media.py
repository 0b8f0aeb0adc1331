"""The media of one session: SRTP and RTCP both ways, and the application. Called by session.py.

Sans-IO and the hot path: 50 packets a second and call come in by `receive` and, with an echo, leave
through `transmit`. It is silent until `start` brings the keys.
"""

import secrets
from collections.abc import Callable
from socket import socket

import pylibsrtp

from turnout.errors import WireError
from turnout.transceiver.answer import Negotiated
from turnout.transceiver.app import AppFactory
from turnout.transceiver.counters import Counters
from turnout.transceiver.moving import NotMovable, State, pack, put_slots, take_slots, unpack
from turnout.transceiver.replay import SeenIndices, extend_sequence
from turnout.transceiver.rtcp import Emission, Reception
from turnout.transceiver.srtp import PROFILES, PROTECT_MOST, UNPROTECT_MOST, Srtp
from turnout.wire.rtp import (
    RTP_HEADER_BYTES,
    Goodbye,
    SenderReport,
    is_rtcp,
    ntp_from_unix,
    parse_rtcp,
    parse_rtp,
)
from turnout.wire.sdp import Codec

# libsrtp keeps a state for each authenticated SSRC, and dropping one would forget which of its
# packets were seen: so a session may use this many in its life.
SSRCS_MAX = 16
# Reports leave every 2.5 s on average, varied by half so that sessions do not march in step.
REPORT_SECONDS = 2.5
# SRTCP indices that another process used are burnt in slices of half a millisecond, between which
# other calls have their turn.
_BURNT_AT_ONCE = 250
_BURN_SECONDS = 0.05
# A source not heard for so long does not keep a session alive whose other source said BYE.
_SOURCE_SECONDS = 5.0

_NEVER = float("inf")
_random = secrets.SystemRandom()


class Media:
    """One audio stream each way; implements app.Call for the application."""

    __slots__ = (
        "_app",
        "_codecs",
        "_counters",
        "_emission",
        "_latest",
        "_may_send",
        "_payload_types",
        "_receptions",
        "_report_at",
        "_seen",
        "_seen_reports",
        "_session_id",
        "_srtp",
        "_transmit",
        "_wall_offset",
        "has_ended",
        "packets_in",
    )

    def __init__(
        self,
        negotiated: Negotiated,
        *,
        session_id: str,
        ssrc: int,
        cname: str,
        app: AppFactory,
        counters: Counters,
        transmit: Callable[[bytes], None],
        wall_offset: float,
    ) -> None:
        """`wall_offset` is Unix time less `now`."""
        self.has_ended = False  # the client said BYE
        self.packets_in = 0
        self._counters = counters
        self._session_id = session_id
        self._transmit = transmit
        self._wall_offset = wall_offset
        agreed = (negotiated.codec, negotiated.telephone_event)
        self._codecs = tuple(codec for codec in agreed if codec)
        self._payload_types = frozenset(codec.payload_type for codec in self._codecs)
        self._may_send = negotiated.direction in {"sendrecv", "sendonly"}
        self._srtp: Srtp | None = None
        # By SSRC, what came of it; of SRTP also the datagram with the highest index.
        self._seen: dict[int, SeenIndices] = {}
        self._latest: dict[int, bytes] = {}
        self._seen_reports: dict[int, SeenIndices] = {}
        self._receptions: dict[int, Reception] = {}
        self._report_at = _NEVER
        # Below 2**15: were the first packet lost just before a wrap, the client would take the
        # roll-over counter for 0 (RFC 3711 section 3.3.1).
        self._emission = Emission(ssrc, cname, negotiated.codec.clock_rate, secrets.randbits(15))
        self._app = app(self)

    @property
    def session_id(self) -> str:
        """See app.Call."""
        return self._session_id

    @property
    def clock_rate(self) -> int:
        """RTP time units a second."""
        return self._emission.clock_rate

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """See app.Call."""
        return self._codecs

    @property
    def counters(self) -> Counters:
        """See app.Call."""
        return self._counters

    @property
    def is_started(self) -> bool:
        """The keys are there."""
        return self._srtp is not None

    def start(self, srtp: Srtp, now: float) -> None:
        """Take the keys: media may come and go."""
        self._srtp = srtp
        self._report_at = now + _random.uniform(0.5, 1.5)
        self._app.start()

    def receive(self, data: bytes, now: float) -> bool:
        """Take an SRTP or SRTCP datagram and count it; True if it is the client's own."""
        counters = self._counters
        srtp = self._srtp
        if srtp is None:
            counters.drop__media_before_dtls += 1
            return False
        if not RTP_HEADER_BYTES <= len(data) <= UNPROTECT_MOST:
            counters.drop__oversize += len(data) > UNPROTECT_MOST
            counters.drop__bad_rtp += len(data) < RTP_HEADER_BYTES
            return False
        rtcp = is_rtcp(data)
        ssrc = int.from_bytes(data[4:8] if rtcp else data[8:12], "big")
        if self._is_one_too_many(ssrc):
            counters.drop__ssrc_limit += 1
            return False
        try:
            plain = srtp.rx.unprotect_rtcp(data) if rtcp else srtp.rx.unprotect(data)
        except pylibsrtp.Error as error:
            if str(error).startswith("replay"):
                counters.drop__srtp_replay += 1
            else:
                counters.drop__srtp_auth += 1
            return False
        if not self._take_index(srtp, ssrc, data, is_report=rtcp):
            counters.drop__srtp_replay += 1
            return False
        if rtcp:
            self._receive_rtcp(plain, now)
        else:
            self._receive_rtp(plain, now)
        return True

    def _is_one_too_many(self, ssrc: int) -> bool:
        if ssrc in self._seen or ssrc in self._seen_reports:
            return False
        return len(self._seen.keys() | self._seen_reports.keys()) >= SSRCS_MAX

    def _take_index(self, srtp: Srtp, ssrc: int, data: bytes, *, is_report: bool) -> bool:
        """Note what came; False for what came while another process had the call."""
        if is_report:
            seen = self._seen_reports.get(ssrc)
            if seen is None:
                seen = self._seen_reports[ssrc] = SeenIndices()
            return seen.take(srtp.profile.rtcp_index(data))
        seen = self._seen.get(ssrc)
        if seen is None:
            seen = self._seen[ssrc] = SeenIndices()
        index = extend_sequence(seen.highest, data[2] << 8 | data[3])
        if not seen.take(index):
            return False
        if index == seen.highest:
            self._latest[ssrc] = data
        return True

    def _receive_rtp(self, plain: bytes, now: float) -> None:
        counters = self._counters
        try:
            packet = parse_rtp(plain)
        except WireError:
            counters.drop__bad_rtp += 1
            return
        if packet.payload_type not in self._payload_types:
            counters.drop__payload_type += 1
            return
        reception = self._receptions.get(packet.ssrc)
        if reception is None:
            self._receptions[packet.ssrc] = Reception(packet, self.clock_rate, now)
        else:
            reception.receive(packet, now)
        self.packets_in += 1
        counters.handled__rtp += 1
        self._app.receive_rtp(packet, now)

    def _receive_rtcp(self, plain: bytes, now: float) -> None:
        try:
            packets = parse_rtcp(plain)
        except WireError:
            self._counters.drop__bad_rtcp += 1
            return
        self._counters.handled__rtcp += 1
        for packet in packets:
            if isinstance(packet, Goodbye):
                self._receive_goodbye(packet, now)
                continue
            if isinstance(packet, SenderReport) and packet.ssrc in self._receptions:
                self._receptions[packet.ssrc].receive_sender_report(packet, now)
            for block in packet.reports:
                if block.ssrc == self._emission.ssrc:
                    self._emission.receive_report(block, ntp_from_unix(now + self._wall_offset))

    def _receive_goodbye(self, goodbye: Goodbye, now: float) -> None:
        """End with the last source: a client that changes its source says BYE for the old one."""
        for ssrc in goodbye.ssrcs:
            self._receptions.pop(ssrc, None)
        heard = (reception.heard_at for reception in self._receptions.values())
        self.has_ended = max(heard, default=-_NEVER) < now - _SOURCE_SECONDS

    def send_rtp(
        self, payload_type: int, marker: bool, timestamp: int, payload: bytes, now: float
    ) -> None:
        """Send one packet, if the answer said that we would; see app.Call."""
        srtp = self._srtp
        if srtp is None or not self._may_send:
            return
        if len(payload) > PROTECT_MOST - RTP_HEADER_BYTES:
            self._counters.unsent__oversize += 1
            return
        packet = self._emission.build(payload_type, marker, timestamp, payload, now)
        self._transmit(srtp.tx.protect(packet))

    def poll(self, now: float) -> float:
        """Send the report that is due and return when the next one is (monotonic seconds)."""
        if self._srtp is not None and self._srtp.reports_owed:
            self._srtp.burn(_BURNT_AT_ONCE)
            return now + _random.uniform(0.5, 1.5) * _BURN_SECONDS
        if self._srtp is not None and self._report_at <= now:
            self._report_at = now + _random.uniform(0.5, 1.5) * REPORT_SECONDS
            blocks = [
                reception.report(ssrc, now)
                for ssrc, reception in self._receptions.items()
                if now - reception.heard_at < 2 * REPORT_SECONDS
            ]
            if blocks or self._emission.packets:
                report = self._emission.build_report(tuple(blocks), now, now + self._wall_offset)
                self._transmit(self._srtp.protect_rtcp(report))
        return self._report_at

    def close(self, now: float) -> None:
        """Say BYE and let go of keys and application."""
        if self._srtp is not None:
            goodbye = self._emission.build_goodbye(now, now + self._wall_offset)
            self._transmit(self._srtp.protect_rtcp(goodbye))
        self._app.close()
        self.discard()

    def discard(self) -> None:
        """Let go of keys, application and session, without a word to anybody."""
        self._srtp = None
        self._report_at = _NEVER
        del self._app, self._transmit  # they refer to this: see IceAgent.close

    # --- a hand-off to another process

    def check_movable(self) -> None:
        """Raise NotMovable unless the client has shown the keys, and all that moves is known."""
        srtp = self._srtp
        if srtp is None or not (self._seen or self._seen_reports):
            raise NotMovable("nothing under the call's SRTP keys has come from its client yet")
        for ssrc, seen in self._seen.items():
            if srtp.rollover_in(ssrc) != seen.highest >> 16:
                raise NotMovable(f"libsrtp is at another roll-over of SSRC {ssrc:#x}")

    def leave(self) -> tuple[State, list[socket]]:
        """Stop and return all there is to go on elsewhere, with the application's sockets.

        From here on nothing is sent or understood: the keys have left. Call `check_movable` before.
        """
        srtp = self._srtp
        if srtp is None:
            raise RuntimeError("a call without keys cannot be handed over")
        app, sockets = self._app.leave()
        state: State = {
            "codecs": list(self._codecs),
            "may_send": self._may_send,
            "packets_in": self.packets_in,
            "wall_offset": self._wall_offset,
            "report_at": self._report_at,
            "profile": srtp.profile.name,
            "receive_key": pack(srtp.receive_key),
            "send_key": pack(srtp.send_key),
            "next_index": self._emission.next_index,
            "reports_sent": srtp.reports_sent,
            "emission": take_slots(self._emission),
            "receptions": [[ssrc, take_slots(one)] for ssrc, one in self._receptions.items()],
            "seen": [
                [ssrc, seen.highest, f"{seen.window:x}", pack(self._latest[ssrc])]
                for ssrc, seen in self._seen.items()
            ],
            "seen_reports": [
                [ssrc, seen.highest, f"{seen.window:x}"]
                for ssrc, seen in self._seen_reports.items()
            ],
            "app": app,
        }
        self.discard()
        srtp.destroy()
        return state, sockets

    def resume(self, state: State, sockets: list[socket]) -> None:
        """Go on with what another process left. Raises pylibsrtp.Error, or what a lie raises."""
        profile = next(one for one in PROFILES if one.name == state["profile"])
        srtp = Srtp(profile, unpack(state["receive_key"]), unpack(state["send_key"]))
        self._emission = put_slots(Emission, state["emission"])
        srtp.resume(self._emission.ssrc, state["next_index"], state["reports_sent"])
        for ssrc, highest, window, latest in state["seen"]:
            self._seen[ssrc] = SeenIndices(highest, int(window, 16))
            self._latest[ssrc] = unpack(latest)
            srtp.follow(ssrc, highest >> 16, self._latest[ssrc])
        for ssrc, highest, window in state["seen_reports"]:
            self._seen_reports[ssrc] = SeenIndices(highest, int(window, 16))
        self._receptions = {ssrc: put_slots(Reception, one) for ssrc, one in state["receptions"]}
        self.packets_in = state["packets_in"]
        self._report_at = state["report_at"]
        self._srtp = srtp
        self._app.resume(state["app"], sockets)

    def describe(self) -> dict[str, object]:
        """Return what `GET /status` shows of it."""
        receptions = self._receptions.values()
        jitter = max((reception.jitter for reception in receptions), default=0.0)
        round_trip = self._emission.round_trip
        return {
            "srtp_profile": self._srtp.profile.name if self._srtp else None,
            "packets_in": self.packets_in,
            "packets_out": self._emission.packets,
            "packets_lost": sum(reception.lost for reception in receptions),
            "jitter_ms": round(jitter * 1000 / self.clock_rate, 1),
            "round_trip_ms": None if round_trip is None else round(round_trip * 1000, 1),
            **self._app.describe(),
        }
