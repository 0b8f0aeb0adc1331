"""RTP and RTCP, in the clear (RFC 3550; RTCP multiplexed by RFC 5761): bytes <-> values.

Only what a transceiver reads and writes: RTP headers, sender and receiver reports, the CNAME,
BYE, NTP time. Other RTCP is skipped. SRTP is not done here: see transceiver/srtp.py.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from turnout.errors import WireError

RTP_HEADER_BYTES = 12

_SR, _RR, _SDES, _BYE = 200, 201, 202, 203
_RTP = struct.Struct("!BBHII")
_RTCP = struct.Struct("!BBH")
_SENDER_INFO = struct.Struct("!IQIII")
_REPORT = struct.Struct("!IIIIII")
# Seconds from 1900, where NTP time begins, to 1970 (RFC 5905 section 6).
_NTP_EPOCH = 2_208_988_800


class RtpPacket(NamedTuple):
    """One RTP packet without CSRCs, header extension and padding. A tuple: 50 a second a call."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """How one source is received (RFC 3550 section 6.4.1).

    `fraction_lost` in 1/256 since the last report, `packets_lost` since the start and negative
    after duplicates, `jitter` in RTP time units, `last_sr` the middle 32 bits of the SR's NTP
    time, `delay_since_last_sr` in 1/65536 s; both 0 before the first SR.
    """

    ssrc: int
    fraction_lost: int
    packets_lost: int
    highest_sequence: int
    jitter: int
    last_sr: int
    delay_since_last_sr: int


@dataclass(frozen=True, slots=True)
class SenderReport:
    """RTCP SR; `ntp` is 32.32 fixed point since 1900."""

    ssrc: int
    ntp: int
    rtp_timestamp: int
    packets: int
    octets: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """RTCP RR."""

    ssrc: int
    reports: tuple[ReportBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class Goodbye:
    """RTCP BYE: these sources are gone."""

    ssrcs: tuple[int, ...]


RtcpPacket = SenderReport | ReceiverReport | Goodbye


def is_rtcp(datagram: bytes) -> bool:
    """Tell RTCP from RTP by the second byte (RFC 5761 section 4); needs 2 bytes."""
    return 192 <= datagram[1] <= 223


def parse_rtp(data: bytes) -> RtpPacket:
    """Parse a decrypted RTP packet; raises WireError."""
    if len(data) < RTP_HEADER_BYTES:
        raise WireError(f"RTP needs {RTP_HEADER_BYTES} bytes, this packet has {len(data)}")
    first, second, sequence, timestamp, ssrc = _RTP.unpack_from(data)
    if first >> 6 != 2:
        raise WireError(f"RTP version {first >> 6}")
    start = RTP_HEADER_BYTES
    end = len(data)
    if first & 0x3F:
        start += (first & 0x0F) * 4
        if first & 0x10:
            if start + 4 > end:
                raise WireError("RTP header extension is cut off")
            start += 4 + int.from_bytes(data[start + 2 : start + 4], "big") * 4
        if first & 0x20:
            padding = data[-1]
            end -= padding
            if not padding:
                raise WireError("RTP padding of 0 bytes")
        if start > end:
            raise WireError(f"RTP header and padding do not fit {len(data)} bytes")
    return RtpPacket(second & 0x7F, second > 0x7F, sequence, timestamp, ssrc, data[start:end])


def build_rtp(packet: RtpPacket) -> bytes:
    """Build an RTP packet with neither CSRCs nor header extension nor padding."""
    payload_type, marker, sequence, timestamp, ssrc, payload = packet
    second = payload_type | 0x80 if marker else payload_type
    return _RTP.pack(0x80, second, sequence, timestamp, ssrc) + payload


def parse_rtcp(data: bytes) -> list[RtcpPacket]:
    """Parse a decrypted RTCP datagram, compound or reduced-size (RFC 5506); raises WireError."""
    packets: list[RtcpPacket] = []
    for kind, count, body in _walk_rtcp(data):
        if kind == _SR:
            ssrc, ntp, timestamp, sent, octets = _unpack(_SENDER_INFO, body, 0)
            reports = _parse_reports(body, count, _SENDER_INFO.size)
            packets.append(SenderReport(ssrc, ntp, timestamp, sent, octets, reports))
        elif kind == _RR:
            if len(body) < 4:
                raise WireError("RTCP RR without its SSRC")
            ssrc = int.from_bytes(body[:4], "big")
            packets.append(ReceiverReport(ssrc, _parse_reports(body, count, 4)))
        elif kind == _BYE:
            if len(body) < count * 4:
                raise WireError(f"RTCP BYE of {len(body)} bytes for {count} sources")
            packets.append(Goodbye(struct.unpack_from(f"!{count}I", body)))
    return packets


def _walk_rtcp(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    position = 0
    while position < len(data):
        if len(data) - position < 4:
            raise WireError(f"RTCP header cut off at byte {position} of {len(data)}")
        first, kind, words = _RTCP.unpack_from(data, position)
        end = position + 4 + words * 4
        if first >> 6 != 2 or end > len(data):
            raise WireError(f"RTCP packet of {words} words does not fit {len(data)} bytes")
        padding = 0
        if first & 0x20:
            padding = data[end - 1]
            if not padding or padding > words * 4:
                raise WireError(f"RTCP padding of {padding} bytes in {words} words")
        yield kind, first & 0x1F, data[position + 4 : end - padding]
        position = end


def _parse_reports(body: bytes, count: int, start: int) -> tuple[ReportBlock, ...]:
    reports = []
    for index in range(count):
        ssrc, lost, highest, jitter, last_sr, delay = _unpack(_REPORT, body, start + index * 24)
        signed_lost = (lost & 0xFFFFFF) - ((lost & 0x800000) << 1)
        reports.append(ReportBlock(ssrc, lost >> 24, signed_lost, highest, jitter, last_sr, delay))
    return tuple(reports)


def _unpack(layout: struct.Struct, body: bytes, start: int) -> tuple[int, ...]:
    if start + layout.size > len(body):
        raise WireError(f"RTCP report needs {start + layout.size} bytes, it has {len(body)}")
    return layout.unpack_from(body, start)


def build_sender_report(report: SenderReport) -> bytes:
    """Build an RTCP SR; at most 31 report blocks."""
    info = _SENDER_INFO.pack(
        report.ssrc, report.ntp, report.rtp_timestamp, report.packets, report.octets
    )
    return _build_rtcp(_SR, len(report.reports), info + _build_reports(report.reports))


def build_receiver_report(report: ReceiverReport) -> bytes:
    """Build an RTCP RR; at most 31 report blocks."""
    body = report.ssrc.to_bytes(4, "big") + _build_reports(report.reports)
    return _build_rtcp(_RR, len(report.reports), body)


def build_source_description(ssrc: int, cname: str) -> bytes:
    """Build an RTCP SDES with the CNAME, which every compound packet needs (section 6.1)."""
    item = bytes((1, len(cname.encode()))) + cname.encode()
    # At least one zero ends the list of items, then zeros to the next word (section 6.5).
    chunk = ssrc.to_bytes(4, "big") + item
    return _build_rtcp(_SDES, 1, chunk + bytes(4 - len(chunk) % 4))


def build_goodbye(goodbye: Goodbye) -> bytes:
    """Build an RTCP BYE without a reason."""
    count = len(goodbye.ssrcs)
    return _build_rtcp(_BYE, count, struct.pack(f"!{count}I", *goodbye.ssrcs))


def _build_reports(reports: Iterable[ReportBlock]) -> bytes:
    return b"".join(
        _REPORT.pack(
            block.ssrc,
            block.fraction_lost << 24 | block.packets_lost & 0xFFFFFF,
            block.highest_sequence,
            block.jitter,
            block.last_sr,
            block.delay_since_last_sr,
        )
        for block in reports
    )


def _build_rtcp(kind: int, count: int, body: bytes) -> bytes:
    return _RTCP.pack(0x80 | count, kind, len(body) // 4) + body


def ntp_from_unix(seconds: float) -> int:
    """Return a Unix time in seconds as NTP time, 32.32 fixed point since 1900."""
    return int((seconds + _NTP_EPOCH) * (1 << 32)) & 0xFFFF_FFFF_FFFF_FFFF


def middle_of_ntp(ntp: int) -> int:
    """Return the 16.16 middle of an NTP time, as LSR carries it (RFC 3550 section 6.4.1)."""
    return ntp >> 16 & 0xFFFF_FFFF
