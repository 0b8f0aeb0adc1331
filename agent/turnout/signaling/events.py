"""What a transceiver tells about itself, line by line, on `GET /events` (NDJSON).

Pure: signaling/upstream.py reads the stream and acts on what comes out of here.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from turnout.errors import WireError
from turnout.wire.sdp import ICE_PWD, ICE_UFRAG

_SESSION_ID = re.compile(r"[0-9a-f]{32}")
_TEXT_MOST = 256


@dataclass(frozen=True, slots=True)
class Hello:
    """The first line: which process this is and what it owns, as (session id, ufrag, pwd).

    A session in an ICE restart stands twice, its new ufrag last.
    """

    incarnation: int
    lane: int
    sessions: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """A session is over: deleted, bye, dtls_closed, timeout or failed."""

    session_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class IceRestarted:
    """A session's client uses the ufrag of its restart: the old one is over."""

    session_id: str
    ufrag: str


@dataclass(frozen=True, slots=True)
class Alive:
    """Nothing happened, every second."""


Event = Hello | SessionEnded | IceRestarted | Alive


def parse_event(line: bytes) -> Event | None:
    """Read one line; None for an event of a later version. Raises WireError."""
    try:
        record = json.loads(line)
        match record["event"]:
            case "hello":
                return _parse_hello(record)
            case "session_ended":
                return SessionEnded(_text(record["id"]), _text(record["reason"]))
            case "ice_restarted":
                return IceRestarted(_text(record["id"]), _text(record["ufrag"]))
            case "alive":
                return Alive()
            case _:
                return None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        shown = line[:80].decode("ascii", "backslashreplace")
        raise WireError(f"{shown!r} is not an event of a transceiver: {error!r}") from error


def _parse_hello(record: dict[str, Any]) -> Hello:
    sessions = []
    for entry in record["sessions"]:
        session_id = _text(entry["id"])
        # The first half is the kernel's session id, and its 0 means nobody.
        if not _SESSION_ID.fullmatch(session_id) or int(session_id[:16], 16) == 0:
            raise ValueError(f"session id {session_id!r} is not 32 hex digits")
        ufrag, pwd = _text(entry["ufrag"]), _text(entry["pwd"])
        if not ICE_UFRAG.fullmatch(ufrag) or not ICE_PWD.fullmatch(pwd):
            raise ValueError(f"session {session_id}: its ufrag or password is none of ICE's")
        sessions.append((session_id, ufrag, pwd))
    return Hello(_count(record["incarnation"]), _count(record["lane"]), tuple(sessions))


def _text(value: object) -> str:
    # Reasons get into the log and to clients: no line breaks, and short.
    if not (isinstance(value, str) and value.isascii() and value.isprintable()):
        raise TypeError(f"{value!r} is not ASCII text")
    if len(value) > _TEXT_MOST:
        raise ValueError(f"a text of {len(value)} characters")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise TypeError(f"{value!r} is not a whole number below 2^63")
    return value
