"""Fuzzes the HTTP doors: WHIP, page, local API and metrics, before a real transceiver.

Called by tests/fuzz/__main__.py (`run`) and, in a short form, by tests/unit. Never a 500, every 4xx
says what is wrong, a good request is served afterwards, and no session is left behind.
"""

import asyncio
import json
import logging
import random
from collections.abc import Sequence

from fuzz.app.budget import Budget, Finding
from fuzz.app.edge import Edge, judge, open_edge
from fuzz.app.mutations import WORDS, mutate, mutate_text
from fuzz.app.offers import FRAGMENT, read_offers
from results import Result

_METHODS = ("GET", "HEAD", "POST", "POST", "POST", "PATCH", "DELETE", "OPTIONS", "PUT", "BREW", "")
_PATHS = {
    "whip": (
        "/whip", "/whip", "/whip/", "/whip/{id}", "/whip/{id}", "/whip/..%2f..", "/",
        "/page/page.js",
        "/page/../../api.py", "/v1/realtime/calls", "/v1/realtime/calls/{id}", "/%00",
        "/whip?x=%zz",
        "*", "http://other/whip", "/whip/" + "a" * 9000, "/whip/\u00e9", "//",
    ),
    "api": (
        "/owners", "/owners", "/sessions", "/sessions", "/owners/1", "/owners/0", "/owners/-1",
        "/owners/99999999999", "/sessions/{id}", "/status", "/", "/sessions/%0d%0a",
    ),
    "metrics": ("/metrics", "/metrics?name[]=x", "/", "/metrics/"),
}  # fmt: skip
# Method, path, type of the body and a header that go together.
_RIGHT = {
    "whip": (
        ("POST", "/whip", "application/sdp", ""),
        ("POST", "/whip", "application/sdp", ""),
        ("PATCH", "/whip/{id}", "application/trickle-ice-sdpfrag", "If-Match: *"),
        ("PATCH", "/whip/{id}", "application/trickle-ice-sdpfrag", 'If-Match: "0"'),
        ("DELETE", "/whip/{id}", "", ""),
        ("GET", "/", "", "If-Modified-Since: Mon, 01 Jan 2035 00:00:00 GMT"),
    ),
    "api": (
        ("POST", "/owners", "application/json", ""),
        ("POST", "/sessions", "application/json", ""),
        ("POST", "/sessions", "application/json; charset=none", ""),
        ("DELETE", "/owners/1", "", ""),
        ("DELETE", "/sessions/{id}", "", ""),
    ),
    "metrics": (("GET", "/metrics", "", "Accept: application/openmetrics-text"),),
}
_TYPES = (
    "application/sdp", "application/sdp", "application/sdp", "application/trickle-ice-sdpfrag",
    "application/json", "application/sdp; charset=utf-16", "multipart/form-data; boundary=x",
    "multipart/form-data", "text/plain", "", ";", "application/", "a" * 9000,
)  # fmt: skip
_HEADERS = (
    "If-Match: *", 'If-Match: "*"', 'If-Match: W/"x"', "If-Match: \"" + "x" * 300,
    "Expect: 100-continue",
    "Expect: tea", "Authorization: Bearer \u00ff", "Authorization: Basic",
    "X-Forwarded-For: ,,[::1",
    "Content-Encoding: gzip", "Content-Encoding: br", "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked", "Upgrade: websocket", "Upgrade: h2c", "Connection: upgrade",
    "Access-Control-Request-Headers: a\u00e9", "Access-Control-Request-Method: PATCH",
    "Range: bytes=9-1",
    "If-Modified-Since: never", "Origin: null", "Accept: text/html", "Content-Length: 5",
    "Content-Length: -1", "Host:", "Cookie: " + "a=b;" * 500, "X: " + "y" * 9000, ": x",
    "If-None-Match: *",
)  # fmt: skip
_VALUES: Sequence[object] = (
    None, True, False, 0, 1, 2, -1, 20500, 65535, 65536, 1e400, 10**30, 0.5, "", "abcd", "a" * 300,
    "abcdefghijklmnopqrstuv", "\ud800", "\x00", [], {}, [[]], {"lane": 1},
)  # fmt: skip
# Requests between two looks at what the doors are there for.
_LOOK = 25


class Caller:
    """Makes requests up, of bytes that are right, changed or random."""

    def __init__(self, rng: random.Random, edge: Edge) -> None:
        self._rng = rng
        self._edge = edge
        self._offers = read_offers()
        self._asked = [b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n"]

    @property
    def good_offer(self) -> bytes:
        return self._rng.choice([o for o in self._offers if "m=audio" in o]).encode()

    def build(self) -> tuple[str, bytes]:
        """Return a door and what to send to it."""
        rng = self._rng
        door = rng.choice(("whip", "whip", "whip", "api", "metrics"))
        request = self._build_request(door)
        self._asked = [*self._asked[-50:], request]
        match rng.randrange(10):
            case 0:
                request = mutate(rng, request[:4000], self._asked)
            case 1:
                request = rng.randbytes(rng.choice((1, 2, 20, 500, 70000)))
            case 2:
                request = request[: rng.randrange(len(request) + 1)]
            case 3:
                request += rng.choice(self._asked)
        return door, request

    def _build_request(self, door: str) -> bytes:
        rng = self._rng
        # An operator who ends a caller's session leaves the transceiver's to its 30 s of silence.
        kind_here = "api" if door == "api" else "upstream"
        live = self._edge.steering.sessions.values()
        sessions = [session.id for session in live if session.kind == kind_here] or ["0" * 32]
        method, path, kind, header = rng.choice(_RIGHT[door])
        if rng.random() < 0.5:
            method, header = rng.choice(_METHODS), ""
            path, kind = rng.choice(_PATHS[door]), rng.choice(_TYPES)
        path = path.replace("{id}", rng.choice(sessions))
        body = self._build_body(door, kind)
        lines = [f"{method} {path} {rng.choice(('HTTP/1.1',) * 8 + ('HTTP/1.0', 'HTTP/9.9', ''))}"]
        lines += ["Host: edge", f"Content-Type: {kind}"]
        lines += [header] if header else []
        lines += rng.sample(_HEADERS, rng.choice((0, 0, 0, 1, 2)))
        if rng.random() < 0.9:
            lines.append(f"Content-Length: {len(body)}")
        # Not always: several requests may come in one connection.
        lines += ["Connection: close"] if rng.random() < 0.8 else []
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogatepass") + body

    def _build_body(self, door: str, kind: str) -> bytes:
        rng = self._rng
        if door == "api":
            return self._build_json()
        if "sdpfrag" in kind:
            text = mutate_text(rng, FRAGMENT)
        else:
            offer = rng.choice(self._offers)
            text = mutate_text(rng, offer, self._offers) if rng.random() < 0.4 else offer
        body = text.encode("utf-8", "surrogatepass")
        if kind.startswith("multipart"):
            part = b'--x\r\nContent-Disposition: form-data; name="sdp"\r\n\r\n'
            body = part + body + rng.choice((b"\r\n--x--\r\n", b"\r\n--x\r\n", b""))
        return mutate(rng, body) if rng.random() < 0.1 else body

    def _build_json(self) -> bytes:
        rng = self._rng
        names = ("lane", "ufrag", "pwd", "owner", "x")
        good: Sequence[object] = (
            {"lane": 20500},
            {"ufrag": "abcd", "pwd": "abcdefghijklmnopqrstuv", "owner": rng.randrange(3)},
        )
        value = rng.choice(good)
        if isinstance(value, dict) and rng.random() < 0.6:
            value = {**value, rng.choice(names): rng.choice(_VALUES)}
        if rng.random() < 0.1:
            value = rng.choice((*_VALUES, *WORDS))
        text = json.dumps(value) if rng.random() < 0.95 else "[" * 100_000
        body = text.encode()
        return mutate(rng, body) if rng.random() < 0.2 else body


async def _fuzz(seed: int, budget: Budget) -> int:
    async with open_edge() as edge:
        caller = Caller(random.Random(seed), edge)
        while budget.spend():
            door, request = caller.build()
            judge(door, request, await edge.ask(door, request, idle=True))
            if budget.steps % _LOOK == 0:
                await edge.clear()
                await edge.require_good(caller.good_offer)
                await edge.clear()
    return budget.steps


def fuzz_doors(seed: int, budget: Budget) -> int:
    """Ask until the budget is spent; returns the number of requests. Raises Finding."""
    # What aiohttp logs of requests that are none would fill the terminal.
    loggers = [logging.getLogger(name) for name in ("aiohttp.server", "turnout")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        return asyncio.run(_fuzz(seed, budget))
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def run(seconds: float, seed: int) -> list[Result]:
    """Fuzz the doors; stops at what it finds."""
    budget = Budget(seconds=seconds)
    try:
        return [Result("doors: requests", fuzz_doors(seed, budget), "no finding")]
    except Finding as finding:
        told = f"seed {seed}, request {budget.steps}: {finding}"
        return [Result("doors: requests", told, "no finding", met=False)]
