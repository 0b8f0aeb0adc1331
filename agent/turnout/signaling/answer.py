"""An upstream's SDP answer, read for steering and rewritten for the client.

The upstream names its lane; the client is told the advertised addresses and the shared port. The
rest of the answer is the upstream's business and passes unchanged.
"""

from collections.abc import Sequence
from dataclasses import replace

from turnout.errors import SignalingError, WireError
from turnout.wire.sdp import (
    Attribute,
    Attributes,
    Candidate,
    IceCredentials,
    MediaSection,
    SessionDescription,
    build_connection,
    build_host_candidates,
)

_REPLACED = ("candidate", "end-of-candidates", "remote-candidates", "rtcp")


def parse_upstream_answer(text: str) -> tuple[SessionDescription, IceCredentials]:
    """Read an answer and the one set of ICE credentials in it; raises SignalingError (502)."""
    try:
        answer = SessionDescription.parse(text)
        found = {
            answer.ice_credentials(section) for section in answer.media if not section.is_rejected
        }
    except WireError as error:
        raise _bad_answer(str(error)) from error
    if len(found) > 1:
        raise _bad_answer(
            f"it opens {len(found)} ICE transports; one for all sections is needed (BUNDLE)"
        )
    credentials = next(iter(found), None)
    if credentials is None:
        raise _bad_answer("no accepted section of it has a=ice-ufrag and a=ice-pwd")
    return answer, credentials


def build_client_answer(
    answer: SessionDescription, advertised: Sequence[tuple[str, int]]
) -> SessionDescription:
    """Replace every transport address by one host candidate an advertised (address, port)."""
    bundled = answer.bundle[1:]
    media = []
    for section in answer.media:
        if section.is_rejected:
            media.append(section)
            continue
        # Sections that follow in a BUNDLE group take the first one's candidates (RFC 8843 7.3).
        candidates = build_host_candidates(advertised) if section.mid not in bundled else []
        media.append(_readdress(section, advertised[0], candidates))
    return replace(
        answer,
        fields=tuple(field for field in answer.fields if field.letter != "c"),
        attributes=answer.attributes.without(*_REPLACED),
        media=tuple(media),
    )


def _readdress(
    section: MediaSection, default: tuple[str, int], candidates: Sequence[Candidate]
) -> MediaSection:
    address, port = default
    others = [field for field in section.fields if field.letter != "c"]
    # i= comes before c=, b= and k= after it (RFC 8866 section 9).
    before = [field for field in others if field.letter == "i"]
    after = [field for field in others if field.letter != "i"]
    attributes = [*section.attributes.without(*_REPLACED)]
    attributes += [Attribute("candidate", str(candidate)) for candidate in candidates]
    if candidates:
        attributes.append(Attribute("end-of-candidates"))
    return replace(
        section,
        port=port,
        fields=(*before, build_connection(address), *after),
        attributes=Attributes(attributes),
    )


def _bad_answer(reason: str) -> SignalingError:
    return SignalingError(502, "Bad answer from the media server", f"its SDP answer: {reason}")
