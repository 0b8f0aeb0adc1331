from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import WireError
from turnout.wire.sdp import (
    Candidate,
    Codec,
    Field,
    Fingerprint,
    IceCredentials,
    SessionDescription,
    build_connection,
    build_host_candidates,
)

OFFERS = sorted((Path(__file__).parents[2] / "vectors" / "offers").glob("*.sdp"))
SESSION = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
AUDIO = "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\n"
PWD = "abcdefghijklmnopqrstuv"


def parse(*lines: str, session: str = "") -> SessionDescription:
    body = "".join(f"{line}\r\n" for line in lines)
    return SessionDescription.parse(SESSION + session + AUDIO + body)


@pytest.mark.parametrize("path", OFFERS, ids=lambda path: path.stem)
def test_parse_real_offer_round_trips(path: Path) -> None:
    text = path.read_text()
    assert str(SessionDescription.parse(text)).replace("\r\n", "\n") == text


def test_offers_of_both_clients_are_there() -> None:
    assert {path.stem.partition("-")[0] for path in OFFERS} == {"aiortc", "chromium"}


def test_parse_bare_newlines_are_accepted_and_written_as_crlf() -> None:
    description = SessionDescription.parse((SESSION + AUDIO).replace("\r\n", "\n"))
    assert str(description) == SESSION + AUDIO


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "v=0, o= and s="),
        ("hello", "line 1 is not letter=value"),
        ("v=1\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "v=0, o= and s="),
        ("o=- 1 1 IN IP4 0.0.0.0\r\nv=0\r\ns=-\r\nt=0 0\r\n", "v=0, o= and s="),
        ("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\n", "t= line is missing"),
        (SESSION + "m=audio 9 UDP/TLS/RTP/SAVPF\r\n", "is not 'm=media port"),
        (SESSION + "m=audio 65536 UDP/TLS/RTP/SAVPF 0\r\n", "port '65536'"),
        (SESSION + "m=audio -1 UDP/TLS/RTP/SAVPF 0\r\n", "port '-1'"),
        (SESSION + AUDIO + "a=mid:0\r\n" + AUDIO + "a=mid:0\r\n", "a=mid:0 stands in two"),
        (SESSION + AUDIO + "a=mid:0 1\r\n", "not one word"),
        (SESSION + AUDIO + "a=mid:\r\n", "not one word"),
        (SESSION + AUDIO + "a=mid:0\ra=sendrecv\r\n", "line 6"),
        (SESSION + AUDIO + "a=mid:\0\r\n", "line 6"),
        (SESSION + AUDIO + "a\r\n", "line 6"),
    ],
)
def test_parse_broken_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(WireError) as caught:
        SessionDescription.parse(text)
    assert reason in str(caught.value)


@given(st.text(max_size=200))
def test_parse_any_text_raises_only_wire_error(text: str) -> None:
    try:
        SessionDescription.parse(SESSION + AUDIO + text)
    except WireError as error:
        assert str(error)  # noqa: PT017 - that no other error comes is the test


def test_parse_line_separators_of_unicode_do_not_end_a_line() -> None:
    attributes = parse("a=label:a\u2028a=mid:y", "a=label:x\x0ba=mid:y").media[0].attributes
    assert attributes.values("label") == ["a\u2028a=mid:y", "x\x0ba=mid:y"]
    assert not attributes.has("mid")


def test_attributes_flag_and_values_are_told_apart() -> None:
    attributes = parse("a=rtcp-mux", "a=ssrc:1 cname:a", "a=ssrc:2 cname:b").media[0].attributes
    assert attributes.has("rtcp-mux")
    assert attributes.value("rtcp-mux") is None
    assert attributes.values("ssrc") == ["1 cname:a", "2 cname:b"]
    assert [str(a) for a in attributes.without("ssrc")] == ["rtcp-mux"]


def test_codecs_with_rtpmap_fmtp_and_static_type_are_read() -> None:
    section = parse("a=rtpmap:111 opus/48000/2", "a=fmtp:111 useinbandfec=1").media[0]
    assert section.codecs == [
        Codec(111, "opus", 48000, 2, "useinbandfec=1"),
        Codec(0, "PCMU", 8000),
    ]


@pytest.mark.parametrize(
    "line",
    ["a=rtpmap:111 opus", "a=rtpmap:128 opus/48000", "a=rtpmap:x opus/48000", "a=rtpmap:111 o/4e3"],
)
def test_codecs_broken_rtpmap_is_refused(line: str) -> None:
    section = parse(line).media[0]
    with pytest.raises(WireError):
        _ = section.codecs


def test_codecs_digits_of_another_script_are_refused() -> None:
    section = parse("a=rtpmap:111 opus/\u0664\u0668").media[0]
    with pytest.raises(WireError, match="clock rate"):
        _ = section.codecs


def test_ice_credentials_session_level_holds_for_a_section_without_its_own() -> None:
    description = parse(session=f"a=ice-ufrag:sess\r\na=ice-pwd:{PWD}\r\n")
    assert description.ice_credentials(description.media[0]) == IceCredentials("sess", PWD)


def test_ice_credentials_section_level_wins() -> None:
    description = parse("a=ice-ufrag:mine", session=f"a=ice-ufrag:sess\r\na=ice-pwd:{PWD}\r\n")
    assert description.ice_credentials(description.media[0]) == IceCredentials("mine", PWD)


def test_ice_credentials_without_password_are_none() -> None:
    description = parse("a=ice-ufrag:mine")
    assert description.ice_credentials(description.media[0]) is None


@pytest.mark.parametrize(
    ("ufrag", "pwd", "named"),
    [
        ("abc", PWD, "ice-ufrag:abc"),
        ("a" * 257, PWD, "ice-ufrag"),
        ("ab:d", PWD, "ice-ufrag:ab:d"),
        ("abcd", PWD[:-1], "ice-pwd"),
        ("abcd", PWD + "=", "ice-pwd"),
    ],
)
def test_ice_credentials_out_of_bounds_are_refused(ufrag: str, pwd: str, named: str) -> None:
    description = parse(f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{pwd}")
    with pytest.raises(WireError, match=named):
        description.ice_credentials(description.media[0])


def test_ice_credentials_bad_password_is_not_repeated_in_the_error() -> None:
    description = parse("a=ice-ufrag:abcd", "a=ice-pwd:secret")
    with pytest.raises(WireError) as caught:
        description.ice_credentials(description.media[0])
    assert "secret" not in str(caught.value)


def test_fingerprints_case_is_normalised() -> None:
    description = parse("a=fingerprint:SHA-256 ab:cd")
    assert description.fingerprints(description.media[0]) == [Fingerprint("sha-256", "AB:CD")]


def test_fingerprints_session_level_holds_where_the_section_has_none() -> None:
    description = parse(session="a=fingerprint:sha-256 AB:CD\r\n")
    assert description.fingerprints(description.media[0]) == [Fingerprint("sha-256", "AB:CD")]


@pytest.mark.parametrize("value", ["sha-256", "sha-256 ABCD", "sha-256 AB:C", "sha-256 AB:XY"])
def test_fingerprints_broken_are_refused(value: str) -> None:
    description = parse(f"a=fingerprint:{value}")
    with pytest.raises(WireError, match="fingerprint"):
        description.fingerprints(description.media[0])


def test_direction_falls_back_to_the_session_then_sendrecv() -> None:
    own = parse("a=recvonly", session="a=sendonly\r\n")
    inherited = parse(session="a=sendonly\r\n")
    neither = parse()
    assert own.direction(own.media[0]) == "recvonly"
    assert inherited.direction(inherited.media[0]) == "sendonly"
    assert neither.direction(neither.media[0]) == "sendrecv"


def test_section_port_0_with_bundle_only_is_not_rejected() -> None:
    text = SESSION + "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\n"
    assert SessionDescription.parse(text).media[0].is_rejected
    assert not SessionDescription.parse(text + "a=bundle-only\r\n").media[0].is_rejected


def test_bundle_other_groups_are_passed_over() -> None:
    description = parse("a=mid:b", session="a=group:LS x\r\na=group:BUNDLE b c\r\n")
    assert description.bundle == ("b", "c")
    assert description.section("b") is description.media[0]
    assert description.section("c") is None


def test_candidate_with_extensions_round_trips() -> None:
    value = "842163049 1 udp 1677729535 198.51.100.7 3478 typ srflx raddr 0.0.0.0 rport 0"
    candidate = Candidate.parse(value)
    assert (candidate.address, candidate.port, candidate.kind) == ("198.51.100.7", 3478, "srflx")
    assert str(candidate) == value


def test_candidate_with_local_name_is_kept_as_text() -> None:
    assert Candidate.parse("1 1 UDP 1 a-b.local 9 typ host").address == "a-b.local"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1 1 udp 1 192.0.2.1 9 host",
        "1 1 udp 1 192.0.2.1 70000 typ host",
        "1 x udp 1 a 9 typ host",
    ],
)
def test_candidate_broken_is_refused(value: str) -> None:
    with pytest.raises(WireError):
        Candidate.parse(value)


def test_host_candidates_first_address_has_the_highest_priority() -> None:
    first, second = build_host_candidates([("fd00::2", 3478), ("192.0.2.2", 3478)])
    assert str(first) == "1 1 udp 2130706431 fd00::2 3478 typ host"
    assert str(second) == "2 1 udp 2130706175 192.0.2.2 3478 typ host"


def test_connection_names_the_address_family() -> None:
    assert build_connection("fd00::2") == Field("c", "IN IP6 fd00::2")
    assert build_connection("192.0.2.2") == Field("c", "IN IP4 192.0.2.2")


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("a=x\r\n" * 2001, "more than 2000 lines"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 65, "more than 64 media sections"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF" + " 0" * 129 + "\r\n", "more than 128 formats"),
    ],
)
def test_sdp_that_costs_much_to_read_is_refused(tail: str, reason: str) -> None:
    text = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n" + tail
    with pytest.raises(WireError, match=reason):
        SessionDescription.parse(text)
