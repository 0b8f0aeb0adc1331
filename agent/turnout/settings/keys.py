"""Every key of the settings, in the order of the documents: the one list of them.

Settings.parse reads by it, to_values and `turnout config check` write by it, reload.py asks it
what can change while an edge runs, and docs/settings.md is held against it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from turnout.settings.limits import Limits
from turnout.settings.tables import (
    IceServer,
    UpstreamSettings,
    file_name,
    parse_ice_servers,
    parse_upstreams,
    plain,
)
from turnout.settings.values import (
    Parser,
    parse_addresses,
    parse_advertise,
    parse_app,
    parse_endpoint,
    parse_flag,
    parse_lanes,
    parse_networks,
    parse_number,
    parse_path,
    parse_text,
    parse_texts,
    parse_token,
    parse_url,
)

if TYPE_CHECKING:
    from turnout.settings.edge import Settings


class Source(Enum):
    """Who may give a key."""

    BOTH = "flag and file"
    FILE = "file"
    CHILDREN = "settings.json, for the processes that `turnout run` starts"


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `is_live`: SIGHUP applies a change; otherwise it takes a restart."""

    name: str  # as the flag has it, without the dashes
    parse: Parser
    fields: tuple[str, ...]
    is_live: bool = False
    source: Source = Source.BOTH
    is_secret: bool = False

    @property
    def file_name(self) -> str:
        """The key as turnout.toml has it."""
        return file_name(self.name)

    def read(self, value: object) -> dict[str, Any]:
        """Return the fields of Settings that a value makes. Raises SettingsError."""
        parsed: Any = self.parse(self.name, value)
        return dict(zip(self.fields, parsed if len(self.fields) > 1 else (parsed,), strict=True))

    def value_in(self, settings: "Settings") -> object:
        """Return the value as text, number, list or table, as `read` takes it back."""
        if self.name == "lanes":
            return f"{settings.lane_first}-{settings.lane_last}"
        return _plain(getattr(settings, self.fields[0]))


def _plain(value: Any) -> object:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, IceServer | UpstreamSettings):
        return plain(value)
    if isinstance(value, Limits):
        return value.plain()
    if isinstance(value, bool | int):
        return value
    return "" if value is None else str(value)


def _optional_path(key: str, value: object) -> object:
    return None if value == "" else parse_path(key, value)


def _key(name: str, parse: Parser, *fields: str, live: bool = False, **others: Any) -> Key:
    return Key(name, parse, fields or (file_name(name),), live, **others)


_ALL = (
    _key("interface", parse_texts, "interfaces"),
    _key("vip", parse_addresses, "vips", live=True),
    _key("advertise", parse_advertise, live=True),
    _key("shared-port", parse_number),
    _key("local", parse_flag),
    _key("xdp-mode", parse_text),
    _key("transceivers", parse_number, live=True),
    _key("lanes", parse_lanes, "lane_first", "lane_last"),
    _key("app", parse_app),
    _key("webhook", parse_url),
    _key("transceiver-user", parse_text),
    _key("drain-on-stop", parse_number, live=True),
    _key("http", parse_endpoint),
    _key("http-token", parse_token, live=True, source=Source.FILE, is_secret=True),
    _key("open", parse_flag, live=True),
    _key("offers-a-minute", parse_number, live=True),
    _key("tls-cert", _optional_path, live=True),
    _key("tls-key", _optional_path, live=True),
    _key("trusted-proxy", parse_networks, "trusted_proxies", live=True),
    _key("metrics", parse_endpoint),
    _key("instance", parse_text),
    _key("bpffs", parse_path),
    _key("log-level", parse_text, live=True),
    _key("log-json", parse_flag),
    _key("flow-table", parse_number, source=Source.FILE),
    _key("session-table", parse_number, source=Source.FILE),
    _key("limits", Limits.parse, live=True, source=Source.FILE),
    _key("ice-server", parse_ice_servers, "ice_servers", live=True, source=Source.FILE),
    _key("upstream", parse_upstreams, "upstreams", source=Source.FILE),
    # For tests: pid files and sockets of an edge are in one place for everybody else.
    _key("runtime-root", parse_path, source=Source.CHILDREN),
    # The host's defaults were taken, and what becomes of them is followed.
    _key("follow-interfaces", parse_flag, source=Source.CHILDREN),
    _key("follow-vips", parse_flag, source=Source.CHILDREN),
)

KEYS: Mapping[str, Key] = {key.name: key for key in _ALL}
