"""The SDP answer of a transceiver to a client's offer (RFC 8829 section 5.3, RFC 8843, RFC 8445).

One audio section carries the call. What else is in its BUNDLE group is accepted and idle: clients
refuse an answer, or tell their users of an error, for a section that is rejected; what has a
transport of its own is rejected. No RTP header extension and no RTCP feedback is accepted, because
none is implemented. Called once a session by the worker; nothing here knows sockets, ICE or DTLS.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from turnout.errors import SignalingError, WireError
from turnout.wire.sdp import (
    Attribute,
    Attributes,
    Codec,
    Field,
    Fingerprint,
    IceCredentials,
    MediaSection,
    SessionDescription,
    build_connection,
    build_host_candidates,
)

# What we answer to each direction (RFC 3264 section 6.1). An echo wants all it can have.
_MIRRORED = {
    "sendrecv": "sendrecv",
    "sendonly": "recvonly",
    "recvonly": "sendonly",
    "inactive": "inactive",
}
# RFC 8829 section 5.1.2 names the profiles that mean SRTP keyed by DTLS; the offer's is mirrored.
_PROFILES = frozenset(
    {
        "UDP/TLS/RTP/SAVPF",
        "UDP/TLS/RTP/SAVP",
        "TCP/DTLS/RTP/SAVPF",
        "TCP/DTLS/RTP/SAVP",
        "RTP/SAVPF",
        "RTP/SAVP",
    }
)
# RFC 8841 section 4.4, and the form before it that aiortc writes.
_SCTP_PROFILES = frozenset({"UDP/DTLS/SCTP", "TCP/DTLS/SCTP", "DTLS/SCTP"})
# Hash of a=fingerprint -> digest bytes. SHA-1 and MD5 can be forged (RFC 8122 section 5).
_HASHES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
# A client has a certificate or two; what an offer names is kept as long as its session.
FINGERPRINTS_MAX = 16
# Opus wherever it is offered, else what comes first of these. (name, clock rate in RTP, channels)
_OPUS = ("opus", 48000, 2)
_TELEPHONY = {("pcmu", 8000, 1), ("pcma", 8000, 1), ("g722", 8000, 1)}


@dataclass(frozen=True, slots=True)
class LocalDescription:
    """The transceiver's own half. `candidates` are (address, port), most wanted first.

    `fingerprint_sha256` is "AB:CD:..."; `session_id` is the number of the o= line, below 2**63.
    """

    ufrag: str
    pwd: str
    fingerprint_sha256: str
    candidates: Sequence[tuple[str, int]]
    session_id: int
    ssrc: int
    cname: str


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What offer and answer agreed on. `direction` is ours: "recvonly" means we never send."""

    audio_mid: str | None
    codec: Codec
    telephone_event: Codec | None
    direction: str
    remote: IceCredentials
    remote_fingerprints: tuple[Fingerprint, ...]
    transport_mid: str | None = None  # of the section that carries ICE and DTLS for all

    @property
    def payload_type(self) -> int:
        """The RTP payload type of the audio codec, the same in both directions."""
        return self.codec.payload_type

    @property
    def remote_ufrag(self) -> str:
        """The client's username fragment."""
        return self.remote.ufrag

    @property
    def remote_pwd(self) -> str:
        """The client's ICE password."""
        return self.remote.pwd


def build_answer(
    offer: SessionDescription, local: LocalDescription
) -> tuple[SessionDescription, Negotiated]:
    """Answer an offer; raises SignalingError (400, 406, 422) that says what to change in it."""
    try:
        return _build_answer(offer, local)
    except WireError as error:
        raise SignalingError(400, "Bad offer", str(error)) from error


def _build_answer(
    offer: SessionDescription, local: LocalDescription
) -> tuple[SessionDescription, Negotiated]:
    audio, codec = _choose_audio(offer)
    # In a BUNDLE group every section rides on the transport of the tagged, that is first, one.
    tagged = offer.section(offer.bundle[0]) if audio.mid in offer.bundle else audio
    if tagged is None or tagged.is_rejected:
        raise SignalingError(
            400,
            "Bad offer",
            f"a=group:BUNDLE begins with {offer.bundle[0]!r}, which names no section in use",
        )
    negotiated = _negotiate(offer, audio, tagged, codec)

    sections = []
    accepted = set()
    for section in offer.media:
        if section is audio:
            answered = _accept_audio(section, negotiated, local)
        elif section is tagged or (audio.mid in offer.bundle and _rides_along(offer, section)):
            answered = _accept_idle(section)
        else:
            sections.append(_reject(section))
            continue
        accepted.add(section.mid)
        sections.append(_with_transport(answered, section, local, is_tagged=section is tagged))

    attributes = [Attribute("ice-lite"), Attribute("ice-options", "ice2")]
    if audio.mid in offer.bundle:
        # In the offer's order, so that the tagged one stays the first; rejected ones have left it.
        mids = [mid for mid in offer.bundle if mid in accepted]
        attributes.insert(0, Attribute("group", " ".join(["BUNDLE", *mids])))
    answer = SessionDescription(
        fields=(
            Field("v", "0"),
            Field("o", f"- {local.session_id} 1 IN IP4 0.0.0.0"),
            Field("s", "-"),
            Field("t", "0 0"),
        ),
        attributes=Attributes(attributes),
        media=tuple(sections),
    )
    return answer, negotiated


def _choose_audio(offer: SessionDescription) -> tuple[MediaSection, Codec]:
    """Pick the audio section that carries the call: the first one in use, else the first idle."""
    usable = []
    offered: list[str] = []
    for section in offer.media:
        if section.kind != "audio" or section.is_rejected or section.protocol not in _PROFILES:
            continue
        offered += [f"{codec.name}/{codec.clock_rate}" for codec in section.codecs]
        codec = _choose_codec(section)
        if codec is not None:
            usable.append((offer.direction(section) == "inactive", section, codec))
    if not usable:
        found = f"its codecs are {', '.join(offered)}" if offered else "it has none over DTLS-SRTP"
        raise SignalingError(
            406,
            "No usable audio",
            "the offer needs an m=audio section over UDP/TLS/RTP/SAVPF with opus/48000/2, PCMU, "
            f"PCMA or G722; {found}",
        )
    _, section, codec = min(usable, key=lambda entry: entry[0])
    return section, codec


def _choose_codec(section: MediaSection) -> Codec | None:
    # With rtcp-mux, payload types 64 to 95 look like RTCP (RFC 5761 section 4).
    codecs = [codec for codec in section.codecs if not 64 <= codec.payload_type <= 95]
    shapes = {codec: (codec.name.lower(), codec.clock_rate, codec.channels) for codec in codecs}
    opus = next((codec for codec in codecs if shapes[codec] == _OPUS), None)
    return opus or next((codec for codec in codecs if shapes[codec] in _TELEPHONY), None)


def _negotiate(
    offer: SessionDescription, audio: MediaSection, tagged: MediaSection, codec: Codec
) -> Negotiated:
    if not any(section.attributes.has("rtcp-mux") for section in (audio, tagged)):
        raise SignalingError(
            422,
            "rtcp-mux is required",
            "RTP and RTCP share one port here: offer a=rtcp-mux (rtcpMuxPolicy 'require')",
        )
    setup = offer.inherited(tagged, "setup") or "active"  # RFC 4145 section 4.1: the default
    if setup not in {"actpass", "active"}:
        raise SignalingError(
            422,
            "Unsupported DTLS role",
            f"a=setup:{setup} leaves the DTLS client's part to the server, which only listens: "
            "offer a=setup:actpass",
        )
    remote = offer.ice_credentials(tagged)
    if remote is None:
        raise SignalingError(
            422,
            "ICE credentials are missing",
            "the offer needs a=ice-ufrag and a=ice-pwd, in the session or in the section of "
            f"mid {tagged.mid!r}",
        )
    return Negotiated(
        audio_mid=audio.mid,
        codec=codec,
        telephone_event=_choose_telephone_event(audio, codec),
        direction=_MIRRORED[offer.direction(audio)],
        remote=remote,
        remote_fingerprints=_choose_fingerprints(offer.fingerprints(tagged)),
        transport_mid=tagged.mid,
    )


def _choose_telephone_event(audio: MediaSection, codec: Codec) -> Codec | None:
    # Only at the audio's clock rate: then both are one RTP stream with one time line.
    for event in audio.codecs:
        same_clock = event.clock_rate == codec.clock_rate
        if event.name.lower() == "telephone-event" and same_clock:
            return event
    return None


def _choose_fingerprints(offered: Sequence[Fingerprint]) -> tuple[Fingerprint, ...]:
    usable = tuple(fingerprint for fingerprint in offered if fingerprint.algorithm in _HASHES)
    if not usable:
        found = ", ".join(fingerprint.algorithm for fingerprint in offered) or "no a=fingerprint"
        raise SignalingError(
            422,
            "No usable certificate fingerprint",
            f"media is keyed by DTLS: offer a=fingerprint with {', '.join(_HASHES)}; "
            f"the offer has {found}",
        )
    if len(usable) > FINGERPRINTS_MAX:
        raise WireError(f"{len(usable)} of a=fingerprint: at most {FINGERPRINTS_MAX} are taken")
    for algorithm, digest in usable:
        wanted = _HASHES[algorithm]
        if len(digest) != wanted * 3 - 1:
            raise WireError(f"a=fingerprint:{algorithm} has not {wanted} bytes: {digest}")
    return usable


def _accept_audio(
    section: MediaSection, negotiated: Negotiated, local: LocalDescription
) -> MediaSection:
    codecs = [codec for codec in (negotiated.codec, negotiated.telephone_event) if codec]
    attributes = [Attribute(negotiated.direction)]
    if negotiated.direction in {"sendrecv", "sendonly"}:
        # Clients hang the track on streams[0]: a stream id must be there (RFC 8830).
        attributes.append(Attribute("msid", f"{local.cname} {local.cname}-audio"))
        attributes.append(Attribute("ssrc", f"{local.ssrc} cname:{local.cname}"))
    attributes.append(Attribute("rtcp-mux"))
    for codec in codecs:
        attributes += _codec_attributes(codec)
    # What comes back is what was sent, so the client's own limits are the right ones to ask for.
    for name in ("ptime", "maxptime"):
        value = section.attributes.value(name)
        if value is not None:
            attributes.append(Attribute(name, value))
    return MediaSection(
        kind=section.kind,
        port=section.port,
        protocol=section.protocol,
        formats=tuple(str(codec.payload_type) for codec in codecs),
        fields=(),
        attributes=Attributes(attributes),
    )


def _codec_attributes(codec: Codec) -> list[Attribute]:
    channels = f"/{codec.channels}" if codec.channels > 1 else ""
    rtpmap = f"{codec.payload_type} {codec.name}/{codec.clock_rate}{channels}"
    attributes = [Attribute("rtpmap", rtpmap)]
    if codec.parameters is not None:
        attributes.append(Attribute("fmtp", f"{codec.payload_type} {codec.parameters}"))
    return attributes


def _rides_along(offer: SessionDescription, section: MediaSection) -> bool:
    """Tell whether a section can be accepted idle on the transport of the call."""
    if section.is_rejected or section.mid not in offer.bundle:
        return False
    if section.kind == "application":
        return section.protocol in _SCTP_PROFILES
    return section.protocol in _PROFILES and any(map(_is_media, section.codecs))


def _accept_idle(section: MediaSection) -> MediaSection:
    """Accept a section that carries nothing: a rejection would cost more than it says."""
    if section.kind == "application":
        # Its channels stay "connecting": nothing answers SCTP here. Rejected, aiortc would take no
        # part of the answer, and Chromium would raise an error on a call that goes well.
        kept = [a for a in section.attributes if a.name in {"sctp-port", "sctpmap"}]
        formats = section.formats
    else:
        codec = next(filter(_is_media, section.codecs), None)
        kept = [Attribute("inactive"), Attribute("rtcp-mux")]
        kept += _codec_attributes(codec) if codec else []
        formats = (str(codec.payload_type) if codec else section.formats[0],)
    return MediaSection(
        kind=section.kind,
        port=section.port,
        protocol=section.protocol,
        formats=formats,
        fields=(),
        attributes=Attributes(kept),
    )


def _is_media(codec: Codec) -> bool:
    return codec.name.lower() not in {"red", "rtx", "ulpfec", "flexfec-03", "telephone-event"}


def _reject(section: MediaSection) -> MediaSection:
    attributes = [Attribute("inactive")]
    if section.mid is not None:
        attributes.insert(0, Attribute("mid", section.mid))
    return MediaSection(
        kind=section.kind,
        port=0,
        protocol=section.protocol,
        formats=section.formats[:1],
        fields=(Field("c", "IN IP4 0.0.0.0"),),
        attributes=Attributes(attributes),
    )


def _with_transport(
    section: MediaSection, offered: MediaSection, local: LocalDescription, *, is_tagged: bool
) -> MediaSection:
    """Add what connects a section: ICE and DTLS in each, as clients expect; candidates in one."""
    address, port = local.candidates[0]
    before = [Attribute("mid", offered.mid)] if offered.mid is not None else []
    after = [
        Attribute("ice-ufrag", local.ufrag),
        Attribute("ice-pwd", local.pwd),
        Attribute("fingerprint", f"sha-256 {local.fingerprint_sha256}"),
        Attribute("setup", "passive"),
    ]
    if is_tagged:
        candidates = build_host_candidates(local.candidates)
        after += [Attribute("candidate", str(candidate)) for candidate in candidates]
        after.append(Attribute("end-of-candidates"))
    return replace(
        section,
        port=port,
        fields=(build_connection(address),),
        attributes=Attributes([*before, *section.attributes, *after]),
    )
