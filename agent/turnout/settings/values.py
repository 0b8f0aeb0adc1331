"""The values that settings are made of, and how one is read from a flag's text or a file's value.

A parser takes the key's name, for its error, and the value: text, a list of texts or True from
flags; numbers, lists and tables too from a file. Called by keys.py and tables.py.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path
from urllib.parse import urlsplit

from turnout.errors import SettingsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Parser = Callable[[str, object], object]  # key and value in; raises SettingsError

VIPS_MAX = 8  # bpf/abi.h VIPS_MAX: VIPs stand inline in the kernel's settings
OWNERS_MAX = 4096  # bpf/abi.h OWNERS_MAX
RUNTIME_ROOT = Path("/run/turnout")
XDP_MODES = ("generic", "native")

# RFC 6750 section 2.1, and long enough that nobody guesses it.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,256}=*")
_TOKEN_ALLOWED = "must be 16 to 256 characters of A-Z a-z 0-9 - . _ ~ + /"  # noqa: S105

# Addresses that a client elsewhere cannot send to.
_PRIVATE = tuple(
    ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
        "100.64.0.0/10",  # RFC 6598: behind a carrier's NAT
        *("169.254.0.0/16", "fe80::/10"),  # link-local: RFC 3927, RFC 4291
        "fc00::/7",  # RFC 4193
    )
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address to listen on; an IPv6 host is written in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Advertise:
    """A public address in front of a VIP; `vip` None: in front of the only one of its family."""

    public: Address
    vip: Address | None = None

    def __str__(self) -> str:
        return str(self.public) if self.vip is None else f"{self.public}={self.vip}"


def refuse(key: str, value: object, allowed: str) -> SettingsError:
    """Return the one line that says what is wrong with a value."""
    return SettingsError(f"{key} {value}: {allowed}", key)


def is_private(address: Address) -> bool:
    """Tell whether clients elsewhere cannot reach the address: it needs an advertised one."""
    return any(address in network for network in _PRIVATE)


def parse_text(key: str, value: object) -> str:
    """Read text."""
    if not isinstance(value, str):
        raise refuse(key, repr(value), "must be text")
    return value


def parse_texts(key: str, value: object) -> tuple[str, ...]:
    """Read one text or a list of them."""
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(parse_text(key, one) for one in values)


def parse_number(key: str, value: object) -> int:
    """Read a whole number that is not negative."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    raise refuse(key, repr(value), "must be a whole number")


def parse_flag(key: str, value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise refuse(key, repr(value), "must be true or false")
    return value


def parse_path(key: str, value: object) -> Path:
    """Read an absolute path."""
    path = Path(parse_text(key, value))
    if not path.is_absolute():
        raise refuse(key, path, "must be an absolute path")
    return path


def parse_addresses(key: str, value: object) -> tuple[Address, ...]:
    """Read one address or a list of them."""
    return tuple(_address(key, text, text) for text in parse_texts(key, value))


def parse_advertise(key: str, value: object) -> tuple[Advertise, ...]:
    """Read PUBLIC or PUBLIC=VIP, or a list of those."""
    found = []
    for text in parse_texts(key, value):
        public, equals, vip = text.partition("=")
        first = _address(key, public, text)
        found.append(Advertise(first, _address(key, vip, text) if equals else None))
    return tuple(found)


def _address(key: str, part: str, text: str) -> Address:
    try:
        return ip_address(part)
    except ValueError as error:
        expected = "an IPv4 or IPv6 address"
        if key == "advertise":
            expected = "PUBLIC or PUBLIC=VIP, both addresses, e.g. 203.0.113.5=10.0.0.5"
        raise refuse(key, repr(text), f"must be {expected}") from error


def parse_networks(key: str, value: object) -> tuple[Network, ...]:
    """Read one network (or address) or a list of them."""
    networks = []
    for text in parse_texts(key, value):
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            hint = "must be an address or network, e.g. 10.0.0.0/8"
            raise refuse(key, repr(text), f"{hint} ({error})") from error
    return tuple(networks)


def parse_lanes(key: str, value: object) -> tuple[int, int]:
    """Read FIRST-LAST."""
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", parse_text(key, value), re.ASCII)
    if match is None:
        raise refuse(key, repr(value), "must be FIRST-LAST, e.g. 20000-20999")
    return int(match[1]), int(match[2])


def parse_endpoint(key: str, value: object) -> Endpoint:
    """Read ADDRESS:PORT."""
    text = parse_text(key, value)
    allowed = "must be ADDRESS:PORT, e.g. 127.0.0.1:8080 or [::1]:8080"
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):(\d{1,5})", text, re.ASCII)
    if match is None:
        raise refuse(key, repr(text), allowed)
    try:
        host = str(IPv6Address(match[1]) if match[1] else IPv4Address(match[2]))
    except ValueError as error:
        raise refuse(key, repr(text), allowed) from error
    return Endpoint(host, int(match[3]))


def parse_token(key: str, value: object) -> str:
    """Read a bearer token; "" is none. It is a secret: no error repeats it."""
    if value == "":
        return ""
    if not isinstance(value, str):
        raise refuse(key, f"(a {type(value).__name__})", _TOKEN_ALLOWED)
    if not _TOKEN.fullmatch(value):
        raise refuse(key, f"(of {len(value)} characters)", _TOKEN_ALLOWED)
    return value


def parse_url(key: str, value: object) -> str:
    """Read an http or https URL; "" is none."""
    text = parse_text(key, value)
    if text and not is_url(text, ("http", "https")):
        raise refuse(key, repr(text), "must be a URL, e.g. http://127.0.0.1:9000/turnout")
    return text


def parse_app(key: str, value: object) -> str:
    """Read what answers calls: "echo", or rtp://HOST:PORT."""
    text = parse_text(key, value)
    split = urlsplit(text) if is_url(text, ("rtp",)) else None
    bare = split is not None and split.port and not split.path and not split.query
    if text != "echo" and not bare:
        raise refuse(key, repr(text), "must be echo or rtp://HOST:PORT, e.g. rtp://127.0.0.1:4000")
    return text


def is_url(text: str, schemes: tuple[str, ...]) -> bool:
    """Tell whether a text is a URL of one of the schemes, with a host and a sound port."""
    try:
        split = urlsplit(text)
        has_sound_port = split.port is None or split.port > 0
    except ValueError:
        return False
    return split.scheme in schemes and bool(split.hostname) and has_sound_port and " " not in text
