from pathlib import Path

import pytest

from turnout.errors import SignalingError
from turnout.signaling.answer import build_client_answer, parse_upstream_answer
from turnout.transceiver.answer import LocalDescription, build_answer
from turnout.wire.sdp import Candidate, SessionDescription

OFFERS = Path(__file__).parents[2] / "vectors" / "offers"
ADVERTISED = [("203.0.113.7", 3478), ("2001:db8::7", 3478)]
LOCAL = LocalDescription(
    ufrag="serv",
    pwd="p" * 24,
    fingerprint_sha256=":".join(["AB"] * 32),
    candidates=[("192.0.2.2", 20005), ("fd00::2", 20005)],
    session_id=77,
    ssrc=1234,
    cname="echo",
)
# The shape of another media server's answer: session-level ICE, a reflexive candidate, RTCP line.
FOREIGN = "\r\n".join(
    [
        "v=0",
        "o=- 1 2 IN IP4 0.0.0.0",
        "s=-",
        "c=IN IP4 192.0.2.9",
        "t=0 0",
        "a=group:BUNDLE a b",
        "a=ice-ufrag:frgn",
        "a=ice-pwd:" + "f" * 22,
        "a=candidate:1 1 udp 1 192.0.2.9 20005 typ host",
        "m=audio 20005 UDP/TLS/RTP/SAVPF 111",
        "i=voice",
        "c=IN IP4 192.0.2.9",
        "b=AS:64",
        "a=mid:a",
        "a=rtcp:20005 IN IP4 192.0.2.9",
        "a=candidate:1 1 udp 1 192.0.2.9 20005 typ host",
        "a=candidate:2 1 tcp 1 192.0.2.9 9 typ host tcptype active",
        "a=candidate:3 1 udp 1 198.51.100.9 20005 typ srflx raddr 192.0.2.9 rport 20005",
        "a=extmap:1 urn:x",
        "m=video 20005 UDP/TLS/RTP/SAVPF 96",
        "a=mid:b",
        "a=candidate:1 1 udp 1 192.0.2.9 20005 typ host",
        "a=inactive",
        "",
    ]
)


def upstream_answer(name: str) -> str:
    offer = SessionDescription.parse((OFFERS / f"{name}.sdp").read_bytes().decode())
    return str(build_answer(offer, LOCAL)[0])


@pytest.mark.parametrize("name", ["chromium-audio-video", "chromium-video-first-max-bundle"])
def test_client_answer_names_only_advertised_addresses_and_the_shared_port(name: str) -> None:
    answer, credentials = parse_upstream_answer(upstream_answer(name))
    assert (credentials.ufrag, credentials.pwd) == (LOCAL.ufrag, LOCAL.pwd)
    built = build_client_answer(answer, ADVERTISED)
    text = str(built)
    assert "20005" not in text
    assert "192.0.2.2" not in text
    assert "fd00::2" not in text
    accepted = [section for section in built.media if not section.is_rejected]
    candidates = [Candidate.parse(value) for value in accepted[0].attributes.values("candidate")]
    assert [(c.address, c.port, c.kind) for c in candidates] == [
        ("203.0.113.7", 3478, "host"),
        ("2001:db8::7", 3478, "host"),
    ]
    assert all(section.port == 3478 for section in accepted)
    assert sum(text.count(f"a={name}") for name in ("candidate", "end-of-candidates")) == 3


def test_client_answer_leaves_rejected_sections_and_the_rest_alone() -> None:
    text = upstream_answer("chromium-audio-video").replace("BUNDLE 0 1", "BUNDLE 0")
    answer, _ = parse_upstream_answer(text.replace("m=video 20005", "m=video 0"))
    built = build_client_answer(answer, ADVERTISED)
    assert answer.media[1].is_rejected
    assert built.media[1] == answer.media[1]
    gone = ("candidate", "end-of-candidates")
    assert built.media[0].attributes.without(*gone) == answer.media[0].attributes.without(*gone)
    assert built.fields == answer.fields
    assert built.attributes == answer.attributes


def test_client_answer_of_another_server_hides_every_address_of_it() -> None:
    answer, credentials = parse_upstream_answer(FOREIGN)
    assert credentials.ufrag == "frgn"
    text = str(build_client_answer(answer, ADVERTISED))
    assert "192.0.2.9" not in text
    assert "198.51.100.9" not in text
    assert "20005" not in text
    assert "i=voice\r\nc=IN IP4 203.0.113.7\r\nb=AS:64\r\n" in text
    assert "a=extmap:1 urn:x" in text


def test_client_answer_without_bundle_has_candidates_in_each_section() -> None:
    answer, _ = parse_upstream_answer(FOREIGN.replace("a=group:BUNDLE a b\r\n", ""))
    built = build_client_answer(answer, ADVERTISED)
    assert [len(section.attributes.values("candidate")) for section in built.media] == [2, 2]


def test_client_answer_ipv6_alone_is_in_the_connection_line() -> None:
    answer, _ = parse_upstream_answer(upstream_answer("chromium-audio"))
    built = build_client_answer(answer, [("2001:db8::7", 3478)])
    assert "c=IN IP6 2001:db8::7\r\n" in str(built)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hello", "line 1"),
        (FOREIGN.replace("a=ice-ufrag:frgn\r\n", ""), "a=ice-ufrag"),
        (FOREIGN.replace("frgn", "x"), "ice-ufrag:x"),
        (FOREIGN.replace("m=audio 20005", "m=audio 0").replace("m=video 20005", "m=video 0"), "no"),
        (FOREIGN.replace("a=mid:b", "a=mid:b\r\na=ice-ufrag:othr"), "2 ICE transports"),
    ],
)
def test_upstream_answer_that_cannot_be_steered_is_a_bad_gateway(text: str, said: str) -> None:
    with pytest.raises(SignalingError) as caught:
        parse_upstream_answer(text)
    assert caught.value.status == 502
    assert said in caught.value.detail
