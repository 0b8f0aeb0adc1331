"""SDP as WebRTC writes it (RFC 8866; ICE in RFC 8839, fingerprints in RFC 8122): text <-> values.

Owns the line format and the attributes that more than one part reads: candidates, codecs, ICE
credentials, fingerprints, BUNDLE groups. The transceiver builds its answer with it, signaling
rewrites an upstream's. What an answer must contain is not decided here.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple, Self

from turnout.errors import WireError

CONTENT_TYPE = "application/sdp"

# Payload types that may stand without an rtpmap (RFC 3551 section 6).
_STATIC_CODECS = {0: "PCMU/8000", 8: "PCMA/8000", 9: "G722/8000"}
# RFC 8839 section 5.4
ICE_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
ICE_PWD = re.compile(r"[A-Za-z0-9+/]{22,256}")
_FINGERPRINT = re.compile(r"([A-Za-z0-9-]+) +([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2})+)")


class Field(NamedTuple):
    """One line that is not an attribute: `c=IN IP4 192.0.2.1` is Field("c", "IN IP4 192.0.2.1")."""

    letter: str
    value: str


class Attribute(NamedTuple):
    """One `a=` line; `value` is None for a flag such as `a=rtcp-mux`."""

    name: str
    value: str | None = None

    def __str__(self) -> str:
        return self.name if self.value is None else f"{self.name}:{self.value}"


class Attributes(tuple[Attribute, ...]):
    """The attributes of a session or section in their order; a name may stand several times."""

    __slots__ = ()

    def has(self, name: str) -> bool:
        """Tell whether the attribute is there, as a flag or with a value."""
        return any(attribute.name == name for attribute in self)

    def value(self, name: str) -> str | None:
        """Return the first value under that name."""
        return next(iter(self.values(name)), None)

    def values(self, name: str) -> list[str]:
        """Return every value under that name."""
        return [a.value for a in self if a.name == name and a.value is not None]

    def without(self, *names: str) -> "Attributes":
        """Return the same attributes less the named ones."""
        return Attributes(a for a in self if a.name not in names)


class Codec(NamedTuple):
    """One RTP payload type with its rtpmap and fmtp; `clock_rate` in Hz."""

    payload_type: int
    name: str
    clock_rate: int
    channels: int = 1
    parameters: str | None = None


class Fingerprint(NamedTuple):
    """A certificate's digest: algorithm as "sha-256", digest as upper-case "AB:CD:..."."""

    algorithm: str
    digest: str


class IceCredentials(NamedTuple):
    """One side's username fragment and password (RFC 8839 section 5.4)."""

    ufrag: str
    pwd: str

    @classmethod
    def parse(cls, ufrag: str, pwd: str) -> "IceCredentials":
        """Check the values of a=ice-ufrag and a=ice-pwd; a WireError never tells the password."""
        if not ICE_UFRAG.fullmatch(ufrag):
            raise WireError(f"a=ice-ufrag:{ufrag[:300]} must be 4 to 256 of A-Z a-z 0-9 + /")
        if not ICE_PWD.fullmatch(pwd):
            raise WireError("the value of a=ice-pwd must be 22 to 256 of A-Z a-z 0-9 + /")
        return cls(ufrag, pwd)


# What a description costs to read grows with these; a browser with every codec, a hundred
# candidates and twenty tracks stays far below.
LINES_MAX = 2000
SECTIONS_MAX = 64
FORMATS_MAX = 128


@dataclass(frozen=True, slots=True)
class Candidate:
    """One `a=candidate` (RFC 8839 section 5.1). `address` may be a name such as `x.local`."""

    foundation: str
    component: int
    protocol: str
    priority: int
    address: str
    port: int
    kind: str
    extensions: str = ""

    @classmethod
    def parse(cls, value: str) -> Self:
        """Read the value of one `a=candidate` line."""
        parts = value.split()
        if len(parts) < 8 or parts[6] != "typ":
            raise WireError(f"candidate {value!r} is not 'foundation component ... typ type'")
        return cls(
            foundation=parts[0],
            component=_number(parts[1], 256, "candidate component"),
            protocol=parts[2].lower(),
            priority=_number(parts[3], 2**32 - 1, "candidate priority"),
            address=parts[4],
            port=_port(parts[5]),
            kind=parts[7],
            extensions=" ".join(parts[8:]),
        )

    def __str__(self) -> str:
        """Write the value of an `a=candidate` line."""
        text = (
            f"{self.foundation} {self.component} {self.protocol} {self.priority} "
            f"{self.address} {self.port} typ {self.kind}"
        )
        return f"{text} {self.extensions}" if self.extensions else text


def build_host_candidates(addresses: Iterable[tuple[str, int]]) -> list[Candidate]:
    """Build one UDP host candidate an (address, port), the first with the highest priority.

    Priority as in RFC 8445 section 5.1.2: type preference 126, component 1.
    """
    return [
        Candidate(
            foundation=str(index + 1),
            component=1,
            protocol="udp",
            priority=126 << 24 | (65535 - index) << 8 | 255,
            address=str(ip_address(address)),
            port=port,
            kind="host",
        )
        for index, (address, port) in enumerate(addresses)
    ]


def build_connection(address: str) -> Field:
    """Build the `c=` line for an address."""
    return Field("c", f"IN IP{ip_address(address).version} {address}")


@dataclass(frozen=True, slots=True)
class MediaSection:
    """One `m=` section. `fields` are its i=, c=, b= and k= lines in their order."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    fields: tuple[Field, ...]
    attributes: Attributes

    @property
    def mid(self) -> str | None:
        """The section's identification tag (RFC 5888)."""
        return self.attributes.value("mid")

    @property
    def is_rejected(self) -> bool:
        """Port 0, and not because the section shares another's port (RFC 8843 section 6)."""
        return self.port == 0 and not self.attributes.has("bundle-only")

    @property
    def codecs(self) -> list[Codec]:
        """The section's payload types that name a codec, in the order of preference."""
        if "RTP/" not in self.protocol:
            return []
        maps = _by_payload_type(self.attributes.values("rtpmap"))
        parameters = _by_payload_type(self.attributes.values("fmtp"))
        codecs = []
        for text in self.formats:
            payload_type = _number(text, 127, f"payload type of m={self.kind}")
            encoding = maps.get(payload_type) or _STATIC_CODECS.get(payload_type)
            if encoding is not None:
                fmtp = parameters.get(payload_type)
                codecs.append(_parse_codec(payload_type, encoding, fmtp))
        return codecs

    def _lines(self) -> list[str]:
        formats = " ".join(self.formats)
        return [
            f"m={self.kind} {self.port} {self.protocol} {formats}",
            *(f"{field.letter}={field.value}" for field in self.fields),
            *(f"a={attribute}" for attribute in self.attributes),
        ]


@dataclass(frozen=True, slots=True)
class SessionDescription:
    """A whole description. `fields` are the session's lines before its attributes, v= first."""

    fields: tuple[Field, ...]
    attributes: Attributes
    media: tuple[MediaSection, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an offer or answer; raises WireError that names the line."""
        session, *sections = split_sections(text)
        if [field.letter for field in session[:3]] != ["v", "o", "s"] or session[0].value != "0":
            raise WireError("a session description begins with the lines v=0, o= and s=")
        if not any(field.letter == "t" for field in session):
            raise WireError("the t= line is missing (RFC 8866 section 5.9)")
        description = cls(
            fields=tuple(field for field in session if field.letter != "a"),
            attributes=parse_attributes(session),
            media=tuple(parse_section(lines) for lines in sections),
        )
        mids = [section.mid for section in description.media if section.mid is not None]
        for mid in mids:
            if mids.count(mid) > 1:
                raise WireError(f"a=mid:{mid} stands in two sections (RFC 5888 section 5)")
        return description

    def __str__(self) -> str:
        lines = [f"{field.letter}={field.value}" for field in self.fields]
        lines += [f"a={attribute}" for attribute in self.attributes]
        for section in self.media:
            lines += section._lines()  # noqa: SLF001 - one file, one format
        return "".join(f"{line}\r\n" for line in lines)

    @property
    def bundle(self) -> tuple[str, ...]:
        """The mids of the first BUNDLE group; the first of them is the tagged section."""
        for group in self.attributes.values("group"):
            semantics, *mids = group.split() or [""]
            if semantics == "BUNDLE":
                return tuple(mids)
        return ()

    def section(self, mid: str) -> MediaSection | None:
        """Return the section with that mid."""
        return next((section for section in self.media if section.mid == mid), None)

    def inherited(self, section: MediaSection, name: str) -> str | None:
        """Return an attribute's value in the section or, where it has none, in the session."""
        value = section.attributes.value(name)
        return value if value is not None else self.attributes.value(name)

    def direction(self, section: MediaSection) -> str:
        """Return the section's direction; sendrecv where nothing says otherwise (RFC 8866 6.7)."""
        for attributes in (section.attributes, self.attributes):
            for attribute in attributes:
                if attribute.name in {"sendrecv", "sendonly", "recvonly", "inactive"}:
                    return attribute.name
        return "sendrecv"

    def ice_credentials(self, section: MediaSection) -> IceCredentials | None:
        """Return ufrag and password that hold for a section; None where either is missing."""
        ufrag = self.inherited(section, "ice-ufrag")
        pwd = self.inherited(section, "ice-pwd")
        if ufrag is None or pwd is None:
            return None
        return IceCredentials.parse(ufrag, pwd)

    def fingerprints(self, section: MediaSection) -> list[Fingerprint]:
        """Return the fingerprints that hold for a section (RFC 8122 section 5)."""
        values = section.attributes.values("fingerprint") or self.attributes.values("fingerprint")
        return [_parse_fingerprint(value) for value in values]


def split_sections(text: str) -> list[list[Field]]:
    """Cut the text into the session's lines and each media section's, m= line first."""
    sections: list[list[Field]] = [[]]
    if text.count("\n") > LINES_MAX:
        raise WireError(f"more than {LINES_MAX} lines")
    # Not splitlines(): it also cuts at characters that are data in SDP.
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r")
        if not line:
            continue
        if "\r" in line or "\0" in line or len(line) < 2 or line[1] != "=":
            raise WireError(f"line {number} is not letter=value: {line[:80]!r}")
        if line[0] == "m":
            if len(sections) > SECTIONS_MAX:
                raise WireError(f"more than {SECTIONS_MAX} media sections")
            sections.append([])
        sections[-1].append(Field(line[0], line[2:]))
    return sections


def parse_section(lines: Sequence[Field]) -> MediaSection:
    """Read one media section's lines, the m= line first."""
    parts = lines[0].value.split()
    if len(parts) < 4:
        raise WireError(f"'m={lines[0].value[:80]}' is not 'm=media port protocol format ...'")
    if len(parts) > 3 + FORMATS_MAX:
        raise WireError(f"m={parts[0]}: more than {FORMATS_MAX} formats")
    section = MediaSection(
        kind=parts[0],
        port=_port(parts[1].partition("/")[0]),
        protocol=parts[2],
        formats=tuple(parts[3:]),
        fields=tuple(field for field in lines[1:] if field.letter != "a"),
        attributes=parse_attributes(lines),
    )
    if section.mid is not None and len(section.mid.split()) != 1:
        raise WireError(f"a=mid:{section.mid} is not one word (RFC 5888 section 4)")
    return section


def parse_attributes(lines: Iterable[Field]) -> Attributes:
    """Return the a= lines among the given ones."""
    attributes = []
    for letter, text in lines:
        if letter == "a":
            name, colon, value = text.partition(":")
            attributes.append(Attribute(name, value if colon else None))
    return Attributes(attributes)


def _by_payload_type(values: Iterable[str]) -> dict[int, str]:
    """Read `<payload type> <rest>` values; the first of a payload type counts."""
    found: dict[int, str] = {}
    for value in values:
        number, _, rest = value.partition(" ")
        found.setdefault(_number(number, 127, "payload type"), rest.strip())
    return found


def _parse_codec(payload_type: int, encoding: str, parameters: str | None) -> Codec:
    name, _, rest = encoding.partition("/")
    clock_rate, _, channels = rest.partition("/")
    return Codec(
        payload_type=payload_type,
        name=name,
        clock_rate=_number(clock_rate, 2**32 - 1, f"clock rate of {encoding!r}"),
        channels=_number(channels, 255, f"channels of {encoding!r}") if channels else 1,
        parameters=parameters,
    )


def _parse_fingerprint(value: str) -> Fingerprint:
    match = _FINGERPRINT.fullmatch(value.strip())
    if match is None:
        raise WireError(f"a=fingerprint:{value[:120]} is not 'hash AB:CD:...'")
    return Fingerprint(match[1].lower(), match[2].upper())


def _port(text: str) -> int:
    return _number(text, 65535, "port")


def _number(text: str, most: int, what: str) -> int:
    # int() alone would also take signs, blanks, underscores and other scripts' digits.
    if not (text.isascii() and text.isdecimal() and len(text) <= 10) or int(text) > most:
        raise WireError(f"{what} {text[:40]!r} is not a number from 0 to {most}")
    return int(text)
