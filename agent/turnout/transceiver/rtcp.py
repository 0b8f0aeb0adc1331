"""What RTCP needs to know of a session's streams (RFC 3550 sections 6.4, A.1, A.3 and A.8).

`Reception` is one source as we receive it, `Emission` the one source that we are. Sans-IO, called
by session.py for every packet, so it is kept lean; `now` is monotonic seconds.
"""

from turnout.wire.rtp import (
    Goodbye,
    ReceiverReport,
    ReportBlock,
    RtpPacket,
    SenderReport,
    build_goodbye,
    build_receiver_report,
    build_rtp,
    build_sender_report,
    build_source_description,
    middle_of_ntp,
    ntp_from_unix,
)


class Reception:
    """Loss and jitter of one source of the client. Sequence numbers here are extended ones."""

    __slots__ = (
        "_arrival",
        "_clock_rate",
        "_expected_before",
        "_first",
        "_received_before",
        "_sr_arrival",
        "_sr_middle",
        "_timestamp",
        "heard_at",
        "highest",
        "jitter",
        "received",
    )

    def __init__(self, packet: RtpPacket, clock_rate: int, now: float) -> None:
        self._clock_rate = clock_rate
        self._first = self.highest = packet.sequence
        self._arrival = now
        self._timestamp = packet.timestamp
        self.jitter = 0.0  # RTP time units
        self.received = 1
        self.heard_at = now
        self._expected_before = 0
        self._received_before = 0
        self._sr_middle = 0
        self._sr_arrival = 0.0

    def receive(self, packet: RtpPacket, now: float) -> None:
        """Take one more authenticated packet, which SRTP has shown not to be a replay."""
        step = packet.sequence - self.highest & 0xFFFF
        if step < 0x8000:
            self.highest += step
        self.received += 1
        self.heard_at = now
        # Transit time now less transit time of the packet before; both clocks may start anywhere.
        ticks = packet.timestamp - self._timestamp & 0xFFFFFFFF
        if ticks >= 0x80000000:
            ticks -= 0x100000000
        difference = (now - self._arrival) * self._clock_rate - ticks
        self.jitter += (abs(difference) - self.jitter) / 16
        self._arrival = now
        self._timestamp = packet.timestamp

    def receive_sender_report(self, report: SenderReport, now: float) -> None:
        """Remember the client's SR, so that the client can compute its round trip."""
        self._sr_middle = middle_of_ntp(report.ntp)
        self._sr_arrival = now

    @property
    def lost(self) -> int:
        """Packets lost since the start; negative if more came than were expected."""
        return self.highest - self._first + 1 - self.received

    def report(self, ssrc: int, now: float) -> ReportBlock:
        """Build the report block and begin the next interval."""
        expected = self.highest - self._first + 1
        expected_now = expected - self._expected_before
        lost_now = expected_now - (self.received - self._received_before)
        self._expected_before = expected
        self._received_before = self.received
        fraction = (lost_now << 8) // expected_now if expected_now > 0 and lost_now > 0 else 0
        delay = int((now - self._sr_arrival) * 65536) if self._sr_middle else 0
        return ReportBlock(
            ssrc=ssrc,
            fraction_lost=min(fraction, 255),
            packets_lost=max(-0x800000, min(self.lost, 0x7FFFFF)),
            highest_sequence=self.highest & 0xFFFFFFFF,
            jitter=min(int(self.jitter), 0xFFFFFFFF),
            last_sr=self._sr_middle,
            delay_since_last_sr=min(delay, 0xFFFFFFFF),
        )


class Emission:
    """The one source that we send: its sequence numbers, which never go back, and its counts."""

    __slots__ = (
        "_cname",
        "_sent_at",
        "_timestamp",
        "clock_rate",
        "next_index",
        "octets",
        "packets",
        "round_trip",
        "ssrc",
    )

    def __init__(self, ssrc: int, cname: str, clock_rate: int, first_sequence: int) -> None:
        self.ssrc = ssrc
        self._cname = cname
        self.clock_rate = clock_rate
        self.next_index = first_sequence  # extended: its upper part is the roll-over counter
        self.packets = 0
        self.octets = 0
        self._sent_at = 0.0
        self._timestamp = 0
        self.round_trip: float | None = None  # seconds, from the client's latest report on us

    def build(
        self, payload_type: int, marker: bool, timestamp: int, payload: bytes, now: float
    ) -> bytes:
        """Build the next packet. Whatever happens to it, its sequence number is used up."""
        sequence = self.next_index & 0xFFFF
        self.next_index += 1
        self.packets += 1
        self.octets += len(payload)
        self._sent_at = now
        self._timestamp = timestamp
        return build_rtp(RtpPacket(payload_type, marker, sequence, timestamp, self.ssrc, payload))

    def receive_report(self, block: ReportBlock, ntp_now: int) -> None:
        """Take the client's report on us: round trip by RFC 3550 section 6.4.1."""
        if block.last_sr:
            ticks = middle_of_ntp(ntp_now) - block.last_sr - block.delay_since_last_sr
            ticks &= 0xFFFFFFFF
            if ticks < 0x80000000:
                self.round_trip = ticks / 65536

    def build_report(self, blocks: tuple[ReportBlock, ...], now: float, unix_now: float) -> bytes:
        """Build the compound packet that is due: SR if we have sent, else RR, then the CNAME."""
        if self.packets:
            ticks = int((now - self._sent_at) * self.clock_rate)
            report = build_sender_report(
                SenderReport(
                    ssrc=self.ssrc,
                    ntp=ntp_from_unix(unix_now),
                    rtp_timestamp=self._timestamp + ticks & 0xFFFFFFFF,
                    packets=self.packets & 0xFFFFFFFF,
                    octets=self.octets & 0xFFFFFFFF,
                    reports=blocks,
                )
            )
        else:
            report = build_receiver_report(ReceiverReport(self.ssrc, blocks))
        return report + build_source_description(self.ssrc, self._cname)

    def build_goodbye(self, now: float, unix_now: float) -> bytes:
        """Build the last compound packet."""
        return self.build_report((), now, unix_now) + build_goodbye(Goodbye((self.ssrc,)))
