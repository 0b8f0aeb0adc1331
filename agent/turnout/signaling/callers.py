"""Who asks at the WHIP door, and whether he may: client addresses, bearer tokens, offer budgets.

Pure but for the two classes' memory; guard.py puts them before the door.
"""

import hmac
from collections import OrderedDict
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address

from turnout.settings.values import Network

Address = IPv4Address | IPv6Address

# Clients whose budgets are remembered; the one that asked longest ago makes room.
CLIENTS_MOST = 10_000


def find_client(
    remote: str | None, forwarded_for: Iterable[str], trusted: Iterable[Network]
) -> str:
    """Return the client's address as the nearest host that is trusted saw it.

    `remote` is who is connected, `forwarded_for` the X-Forwarded-For headers in their order. Each
    proxy adds at the right who asked it: so the list is read from there, and what stands left of
    the first stranger is a stranger's word.
    """
    client = _parse_address(remote or "")
    if client is None:
        return remote or "unknown"
    networks = tuple(trusted)
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",")]
    while hops and any(_contains(network, client) for network in networks):
        hop = _parse_address(hops.pop())
        if hop is None:
            break
        client = hop
    return str(client)


def has_token(authorization: str | None, token: str) -> bool:
    """Tell whether an Authorization header carries the bearer token, in constant time."""
    scheme, _, credentials = (authorization or "").partition(" ")
    given = credentials.strip().encode("utf-8", "surrogateescape")
    is_right = hmac.compare_digest(given, token.encode())
    return is_right and scheme.lower() == "bearer"


class OfferBudgets:
    """A token bucket for each client: a minute's worth at once, refilled all the time."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def spend(self, client: str, a_minute: int, now: float) -> float:
        """Take one offer of the client's budget; returns 0, or the seconds until there is one.

        `now` is monotonic seconds.
        """
        key = _budget_key(client)
        tokens, at = self._buckets.pop(key, (float(a_minute), now))
        tokens = min(float(a_minute), tokens + (now - at) * a_minute / 60)
        wait = 0.0 if tokens >= 1 else (1 - tokens) * 60 / a_minute
        self._buckets[key] = (tokens if wait else tokens - 1, now)
        if len(self._buckets) > CLIENTS_MOST:
            self._buckets.popitem(last=False)
        return wait


def _budget_key(client: str) -> str:
    # An IPv6 subscriber has a /64 to himself (RFC 6177): its addresses are one client.
    address = _parse_address(client)
    if isinstance(address, IPv6Address):
        return str(IPv6Address(int(address) >> 64 << 64))
    return client


def _parse_address(text: str) -> Address | None:
    """Read an address as proxies write it: bare, with a port, or in brackets; None for others."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _contains(network: Network, address: Address) -> bool:
    return network.version == address.version and address in network
