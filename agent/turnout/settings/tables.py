"""The tables of turnout.toml: `[[ice_server]]` and `[[upstream]]`. Called by keys.py.

A table's keys are read like any other; errors name them as upstream[2].lane, counted from 1.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from turnout.errors import SettingsError
from turnout.settings.values import (
    Parser,
    parse_number,
    parse_path,
    parse_text,
    parse_texts,
    parse_url,
    refuse,
)

# RFC 7064 section 3.1, RFC 7065 section 3.1.
_ICE_URL = re.compile(r"(stuns?|turns?):[^\s?/@]+(\?transport=(udp|tcp))?", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
WEIGHT_MAX = 1000

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class IceServer:
    """A STUN or TURN server that clients are told of (RFC 9725 section 4.6)."""

    urls: tuple[str, ...]
    username: str = ""
    credential: str = ""

    @property
    def is_turn(self) -> bool:
        """Whether one of its URLs relays, which takes a name and a credential."""
        return any(url.startswith("turn") for url in self.urls)


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """A media server behind the edge: spoken to at `whip` or, if not empty, on UNIX `socket`.

    `lane` is the UDP port it listens on; `weight` its share of new sessions beside the others'.
    """

    name: str
    lane: int
    whip: str = ""
    socket: str = ""
    weight: int = 1


def parse_ice_servers(key: str, value: object) -> tuple[IceServer, ...]:
    """Read the tables of [[ice_server]]."""
    parsers: dict[str, Parser] = {
        "urls": parse_texts,
        "username": parse_text,
        "credential": parse_text,
    }
    rows = _rows(key, value, parsers, ("urls",), IceServer)
    for where, server in rows:
        for url in server.urls:
            if not _ICE_URL.fullmatch(url):
                raise refuse(f"{where}.urls", repr(url), "must be like stun:HOST or turn:HOST:3478")
        if server.is_turn and not (server.username and server.credential):
            raise refuse(where, server.urls[0], "a TURN server needs username and credential")
    return tuple(server for _, server in rows)


def parse_upstreams(key: str, value: object) -> tuple[UpstreamSettings, ...]:
    """Read the tables of [[upstream]]."""
    parsers: dict[str, Parser] = {
        "name": parse_text,
        "lane": parse_number,
        "whip": parse_url,
        "socket": lambda name, path: str(parse_path(name, path)) if path else "",
        "weight": parse_number,
    }
    rows = _rows(key, value, parsers, ("name", "lane"), UpstreamSettings)
    for where, upstream in rows:
        if not _NAME.fullmatch(upstream.name):
            raise refuse(f"{where}.name", repr(upstream.name), "must be 1 to 32 of a-z 0-9 - _")
        if bool(upstream.whip) == bool(upstream.socket):
            raise refuse(where, repr(upstream.name), "needs whip (a URL) or socket (a path)")
        if not 1 <= upstream.weight <= WEIGHT_MAX:
            raise refuse(f"{where}.weight", upstream.weight, f"must be 1 to {WEIGHT_MAX}")
    return tuple(upstream for _, upstream in rows)


def plain(row: IceServer | UpstreamSettings) -> dict[str, object]:
    """Return a row as the values that its parser takes back."""
    values = asdict(row)
    return {key: list(one) if isinstance(one, tuple) else one for key, one in values.items()}


def _rows(
    key: str,
    value: object,
    parsers: Mapping[str, Parser],
    required: tuple[str, ...],
    build: Callable[..., Row],
) -> list[tuple[str, Row]]:
    """Read each table; returns it with the name that errors give it, e.g. upstream[2]."""
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise refuse(key, repr(value), f"must be tables, each headed by [[{file_name(key)}]]")
    rows = []
    for number, table in enumerate(value, 1):
        where = f"{key}[{number}]"
        row: dict[str, Any] = {}
        for name, one in table.items():
            if name not in parsers:
                shown = f"{where}.{name}"
                raise SettingsError(unknown_key(shown, name, parsers), shown)
            row[name] = parsers[name](f"{where}.{name}", one)
        for name in required:
            if not row.get(name):
                raise refuse(f"{where}.{name}", "is missing", f"needs {' and '.join(required)}")
        rows.append((where, build(**row)))
    return rows


def file_name(key: str) -> str:
    """Return a key as turnout.toml has it."""
    return key.replace("-", "_")


def unknown_key(shown: str, key: str, known: Mapping[str, object]) -> str:
    """Return the line that refuses a key nobody knows, with the nearest one that is known."""
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
    return f"{shown}: no such setting; {hint}"
