"""What the WHIP door is told: who may call, what clients are told, how often they may ask.

The edge makes a policy of its settings and gives the door a function that returns the one that
holds now: a reload takes effect with the next request.
"""

from dataclasses import dataclass, field
from pathlib import Path

from turnout.settings.tables import IceServer
from turnout.settings.values import Network


@dataclass(frozen=True, slots=True)
class WhipPolicy:
    """How the door treats its callers. The defaults let everybody in.

    `token`: what `Authorization: Bearer` must carry, empty for no such need. `trusted_proxies`:
    whose X-Forwarded-For is believed. `ice_servers`: what every 201 names in Link headers.
    `offers_a_minute`: how many offers one client address may make, 0 for any number.
    `sdp_bytes`: the most that an offer or a fragment may have.
    """

    token: str = field(default="", repr=False)
    trusted_proxies: tuple[Network, ...] = ()
    ice_servers: tuple[IceServer, ...] = field(default=(), repr=False)
    offers_a_minute: int = 0
    sdp_bytes: int = 1 << 16


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of a TLS door: certificate chain and private key."""

    cert: Path
    key: Path


def build_links(servers: tuple[IceServer, ...]) -> list[str]:
    """Build one Link header value for each URL of each server (RFC 9725 section 4.6)."""
    links = []
    for server in servers:
        for url in server.urls:
            link = f'<{url}>; rel="ice-server"'
            # STUN asks for no credentials: a name sent along would only be given away.
            if url.startswith("turn"):
                link += f"; username={_quote(server.username)}"
                link += f'; credential={_quote(server.credential)}; credential-type="password"'
            links.append(link)
    return links


def _quote(text: str) -> str:
    """Build a quoted-string (RFC 9110 section 5.6.4)."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
