import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import WireError
from turnout.wire.sdp import Candidate, IceCredentials, build_host_candidates
from turnout.wire.sdpfrag import IceFragment

PWD = "vw5LmwG4y/e6dPP/zAP9Gp5k"
# As in RFC 9725 section 4.3.2, with what libwebrtc adds and a candidate nobody resolves.
TRICKLE = f"""\
a=group:BUNDLE 0 1
m=audio 9 UDP/TLS/RTP/SAVPF 111
a=mid:0
a=ice-ufrag:EsAw
a=ice-pwd:{PWD}
a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw
a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0
a=candidate:1 1 udp 1 3f0a-11.local 9 typ host
a=end-of-candidates
"""


def test_parse_trickle_of_a_client_is_read() -> None:
    fragment = IceFragment.parse(TRICKLE)
    assert fragment.credentials == IceCredentials("EsAw", PWD)
    assert [one.address for one in fragment.candidates] == ["192.0.2.1"] * 2 + ["3f0a-11.local"]
    assert (fragment.mid, fragment.is_complete, fragment.is_lite) == ("0", True, False)


def test_parse_credentials_alone_are_a_fragment() -> None:
    fragment = IceFragment.parse(f"a=ice-ufrag:ysXw\r\na=ice-pwd:{PWD}\r\n")
    assert fragment == IceFragment(IceCredentials("ysXw", PWD))


def test_parse_same_credentials_in_each_section_are_one() -> None:
    again = f"m=video 9 RTP/AVP 96\na=mid:1\na=ice-ufrag:EsAw\na=ice-pwd:{PWD}\n"
    assert IceFragment.parse(TRICKLE + again).credentials == IceCredentials("EsAw", PWD)


def test_parse_ufrag_without_password_is_no_credentials() -> None:
    assert IceFragment.parse("a=ice-ufrag:EsAw\na=end-of-candidates\n").credentials is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither"),
        ("a=mid:0\n", "neither"),
        ("hello\n", "line 1"),
        ("v=0\n", "'v='"),
        ("m=audio\n", "m=audio"),
        ("a=candidate:x\n", "candidate"),
        ("a=ice-ufrag:abc\na=ice-pwd:" + PWD, "ice-ufrag"),
        ("a=ice-ufrag:abcd\na=ice-pwd:short", "ice-pwd"),
        (TRICKLE + "m=video 9 RTP/AVP 96\na=ice-ufrag:else\n", "several"),
    ],
)
def test_parse_broken_fragment_is_refused(text: str, said: str) -> None:
    with pytest.raises(WireError, match=said):
        IceFragment.parse(text)


@given(st.text(max_size=200))
def test_parse_any_text_raises_only_wire_error(text: str) -> None:
    try:
        IceFragment.parse(text)
    except WireError as error:
        assert str(error)  # noqa: PT017 - that no other error comes is the test


@pytest.mark.parametrize(
    "fragment",
    [
        IceFragment(IceCredentials("abcd", PWD)),
        IceFragment(candidates=(Candidate.parse("1 1 udp 1 192.0.2.1 9 typ host"),), mid="a"),
        IceFragment(
            IceCredentials("abcd", PWD),
            tuple(build_host_candidates([("192.0.2.2", 3478), ("2001:db8::1", 3478)])),
            is_complete=True,
            is_lite=True,
            mid="0",
        ),
    ],
)
def test_fragment_round_trips(fragment: IceFragment) -> None:
    assert IceFragment.parse(str(fragment)) == fragment
