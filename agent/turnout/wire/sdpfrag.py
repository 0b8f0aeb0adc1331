"""Fragments of SDP that carry ICE alone: application/trickle-ice-sdpfrag (RFC 8840 section 9).

A client trickles candidates and asks for an ICE restart with one; an ICE restart is answered with
one. Read by signaling, by the transceiver's control, and built by both.
"""

from dataclasses import dataclass
from typing import Self

from turnout.errors import WireError
from turnout.wire.sdp import (
    Attributes,
    Candidate,
    IceCredentials,
    parse_attributes,
    parse_section,
    split_sections,
)

CONTENT_TYPE = "application/trickle-ice-sdpfrag"


@dataclass(frozen=True, slots=True)
class IceFragment:
    """What a fragment says of one ICE agent; all its sections share one transport (BUNDLE).

    `credentials` is None where ufrag or password is missing. `mid` is that of the first section.
    """

    credentials: IceCredentials | None = None
    candidates: tuple[Candidate, ...] = ()
    is_complete: bool = False  # a=end-of-candidates
    is_lite: bool = False
    mid: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a fragment; raises WireError that names what is wrong in it."""
        session, *sections = split_sections(text)
        for field in session:
            if field.letter != "a":
                raise WireError(f"'{field.letter}=' stands before the first m= line of a fragment")
        parsed = [parse_section(lines) for lines in sections]
        levels = [parse_attributes(session), *(section.attributes for section in parsed)]
        fragment = cls(
            credentials=_parse_credentials(levels),
            candidates=tuple(
                Candidate.parse(value) for level in levels for value in level.values("candidate")
            ),
            is_complete=any(level.has("end-of-candidates") for level in levels),
            is_lite=levels[0].has("ice-lite"),
            mid=next((section.mid for section in parsed), None),
        )
        if not (fragment.credentials or fragment.candidates or fragment.is_complete):
            raise WireError(
                "the fragment has neither a=candidate nor a=end-of-candidates nor a=ice-ufrag with "
                "a=ice-pwd"
            )
        return fragment

    def __str__(self) -> str:
        lines = ["a=ice-lite"] if self.is_lite else []
        if self.credentials is not None:
            lines += [f"a=ice-ufrag:{self.credentials.ufrag}", f"a=ice-pwd:{self.credentials.pwd}"]
        if self.candidates or self.is_complete or self.mid is not None:
            # A line to stand under, no more: port, protocol and format mean nothing (section 9).
            lines.append("m=audio 9 UDP/TLS/RTP/SAVPF 0")
            lines += [f"a=mid:{self.mid}"] if self.mid is not None else []
            lines += [f"a=candidate:{candidate}" for candidate in self.candidates]
            lines += ["a=end-of-candidates"] if self.is_complete else []
        return "".join(f"{line}\r\n" for line in lines)


def _parse_credentials(levels: list[Attributes]) -> IceCredentials | None:
    ufrags = {ufrag for level in levels for ufrag in level.values("ice-ufrag")}
    pwds = {pwd for level in levels for pwd in level.values("ice-pwd")}
    if len(ufrags) > 1 or len(pwds) > 1:
        raise WireError("the fragment names several ICE sessions; one transport has one (BUNDLE)")
    if not ufrags or not pwds:
        return None
    return IceCredentials.parse(ufrags.pop(), pwds.pop())
