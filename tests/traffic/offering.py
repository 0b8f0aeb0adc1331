"""An offer posted to an edge's WHIP door, and what a client needs of the answer."""

import http.client
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from traffic.sessions import Credentials

_OFFER = Path(__file__).parents[1] / "vectors/offers/aiortc-audio.sdp"
OFFER = _OFFER.read_text(encoding="utf-8")
# What the offer calls itself: the second half of a check's USERNAME.
OFFER_UFRAG = next(
    line.partition(":")[2] for line in OFFER.splitlines() if line.startswith("a=ice-ufrag:")
)
HEADERS = {"Content-Type": "application/sdp"}
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A session that was made."""

    location: str
    credentials: Credentials


def parse_answer(location: str, sdp: str) -> Answer:
    """Read an answer's credentials."""
    lines = dict(line[2:].partition(":")[::2] for line in sdp.splitlines() if line[:2] == "a=")
    return Answer(location, Credentials(lines["ice-ufrag"], lines["ice-pwd"]))


def post_offer(url: str, offer: str = OFFER) -> Answer:
    """Post one and wait for the answer. Raises OSError; RuntimeError for one that is no 201."""
    status, location, text = _ask("POST", url, offer)
    if status != 201:
        raise RuntimeError(f"an offer was answered {status}: {text[:200]}")
    return parse_answer(urljoin(url, location), text)


def end_session(location: str) -> None:
    """End a session as its client does. Raises OSError; RuntimeError if there is none."""
    status, _, text = _ask("DELETE", location)
    if status != 200:
        raise RuntimeError(f"a DELETE was answered {status}: {text[:200]}")


def _ask(method: str, url: str, body: str | None = None) -> tuple[int, str, str]:
    """Return status, Location and text of the answer."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, _PATIENCE_SECONDS)
    try:
        connection.request(method, parts.path, body, HEADERS)
        reply = connection.getresponse()
        return reply.status, reply.headers.get("Location", ""), reply.read().decode()
    finally:
        connection.close()
