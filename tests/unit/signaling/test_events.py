import json

import pytest

from turnout.errors import WireError
from turnout.signaling.events import Alive, Hello, SessionEnded, parse_event

ID = "0123456789abcdef" * 2
HELLO = {
    "event": "hello",
    "incarnation": 2**62,
    "lane": 20000,
    "sessions": [{"id": ID, "ufrag": "abcd", "pwd": "p" * 22}],
}


def line(**fields: object) -> bytes:
    return json.dumps({**HELLO, **fields}).encode()


def test_parse_hello_with_a_session_is_read() -> None:
    assert parse_event(line()) == Hello(2**62, 20000, ((ID, "abcd", "p" * 22),))


def test_parse_session_ended_and_alive_are_read() -> None:
    ended = b'{"event":"session_ended","id":"%s","reason":"bye"}' % ID.encode()
    assert parse_event(ended) == SessionEnded(ID, "bye")
    assert parse_event(b'{"event":"alive"}') == Alive()


def test_parse_event_of_a_later_version_is_passed_over() -> None:
    assert parse_event(b'{"event":"draining"}') is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hello",
        b"\xff",
        b"[]",
        b"{}",
        b'"hello"',
        b'{"event":"session_ended","id":1,"reason":"bye"}',
        line(incarnation=-1),
        line(incarnation="1"),
        line(incarnation=2**63),
        b"[" * 100_000,
        b'{"event":"session_ended","id":"a","reason":"bye\\nagent ERROR forged"}',
        b'{"event":"session_ended","id":"a","reason":"%s"}' % (b"a" * 300),
        line(sessions=[{"id": ID, "ufrag": "abc", "pwd": "p" * 22}]),
        line(sessions=[{"id": ID, "ufrag": "abcd", "pwd": ""}]),
        line(lane=True),
        line(sessions=None),
        line(sessions=[{"id": ID}]),
        line(sessions=[{"id": ID[:-1], "ufrag": "abcd", "pwd": "p" * 22}]),
        line(sessions=[{"id": ID.upper(), "ufrag": "abcd", "pwd": "p" * 22}]),
        line(sessions=[{"id": "0" * 32, "ufrag": "abcd", "pwd": "p" * 22}]),
        line(sessions=[{"id": ID, "ufrag": "\u00e4bcd", "pwd": "p" * 22}]),
    ],
)
def test_parse_broken_event_is_refused(text: bytes) -> None:
    with pytest.raises(WireError, match="not an event"):
        parse_event(text)
