"""What an edge is told: the flags of `turnout run`, checked once and frozen.

`Settings.parse` takes values as flags give them (text) or as a file gives them (numbers, lists);
whoever merges two sources merges the mappings first. The supervisor writes the result to
settings.json in the runtime directory, where the agent and the loader read it. Secrets are not
among the settings: the edge key is born in the agent and lives in the kernel's settings map.
"""

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, Self

from turnout.errors import SettingsError

Address = IPv4Address | IPv6Address

VIPS_MAX = 8  # bpf/abi.h VIPS_MAX: VIPs stand inline in the kernel's settings
OWNERS_MAX = 4096  # bpf/abi.h OWNERS_MAX
RUNTIME_ROOT = Path("/run/turnout")
XDP_MODES = ("generic", "native")
LOG_LEVELS = ("debug", "info", "warning", "error")

# bpffs takes no dot in a name, and the instance is a directory there.
_INSTANCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
# IFNAMSIZ is 16 with the NUL; the kernel refuses '/', ':' and white space.
_INTERFACE = re.compile(r"[^\s/:]{1,15}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A TCP address to listen on; an IPv6 host is written in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _default_transceivers() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Settings:
    """One edge's settings. Empty `interfaces` or `vips` stand for the host's default."""

    interfaces: tuple[str, ...] = ()
    vips: tuple[Address, ...] = ()
    shared_port: int = 3478
    lane_first: int = 20000
    lane_last: int = 20999
    http: Endpoint = Endpoint("0.0.0.0", 8080)  # noqa: S104 - the door for clients is public
    metrics: Endpoint = Endpoint("127.0.0.1", 9478)
    transceivers: int = field(default_factory=_default_transceivers)
    xdp_mode: str = "generic"
    local: bool = False
    instance: str = "default"
    bpffs: Path = Path("/sys/fs/bpf")
    log_level: str = "info"
    runtime_root: Path = RUNTIME_ROOT

    def __post_init__(self) -> None:
        _check_names(self)
        _check_vips(self)
        _check_ports(self)

    @property
    def runtime(self) -> Path:
        """The runtime directory of this instance: sockets, pid files, settings.json."""
        return self.runtime_root / self.instance

    @property
    def settings_file(self) -> Path:
        """Where the supervisor leaves these settings for its children."""
        return self.runtime / "settings.json"

    @property
    def api_socket(self) -> Path:
        """The UNIX socket of the agent's local API."""
        return self.runtime / "api.sock"

    @property
    def attach_interfaces(self) -> tuple[str, ...]:
        """All interfaces that get the programs: `lo` last, with `local`."""
        return (*self.interfaces, "lo") if self.local else self.interfaces

    def lane(self, slot: int) -> int:
        """Return the lane of this host's transceiver in `slot`."""
        return self.lane_first + slot

    def transceiver_socket(self, slot: int) -> Path:
        """Return the UNIX socket on which the transceiver in `slot` is controlled."""
        return self.runtime / f"transceiver-{slot}.sock"

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Build settings from `values`, keyed by flag name without the dashes ("shared-port").

        A value is what a flag gives (text, a list of texts, True) or what JSON or TOML gives.
        Raises SettingsError naming the key, the value and what is allowed.
        """
        given: dict[str, Any] = {}
        for key, value in values.items():
            parse = _PARSERS.get(key)
            if parse is None:
                raise SettingsError(_unknown_key(key))
            given.update(parse(key, value))
        return cls(**given)

    def to_values(self) -> dict[str, object]:
        """Return the settings as plain values that `parse` takes back."""
        return {
            "interface": list(self.interfaces),
            "vip": [str(vip) for vip in self.vips],
            "shared-port": self.shared_port,
            "lanes": f"{self.lane_first}-{self.lane_last}",
            "http": str(self.http),
            "metrics": str(self.metrics),
            "transceivers": self.transceivers,
            "xdp-mode": self.xdp_mode,
            "local": self.local,
            "instance": self.instance,
            "bpffs": str(self.bpffs),
            "log-level": self.log_level,
            "runtime-root": str(self.runtime_root),
        }

    def to_json(self) -> str:
        """Return the text of settings.json."""
        return json.dumps(self.to_values(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote. Raises SettingsError."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise SettingsError(
                f"settings.json is not JSON ({error}); start the edge anew"
            ) from error
        if not isinstance(values, dict):
            raise SettingsError("settings.json does not hold an object; start the edge anew")
        return cls.parse(values)

    @classmethod
    def load(cls, instance: str, runtime_root: Path = RUNTIME_ROOT) -> Self:
        """Read the settings of a running instance. Raises SettingsError if there is none."""
        path = cls(instance=instance, runtime_root=runtime_root).settings_file
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise SettingsError(
                f"instance {instance!r}: cannot read {path} ({error.strerror}); "
                "`turnout run` writes it"
            ) from error
        return cls.from_json(text)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with `changes`, checked like any other."""
        return dataclasses.replace(self, **changes)


def refuse(key: str, value: object, allowed: str) -> SettingsError:
    """Return the one line that says what is wrong with a value."""
    return SettingsError(f"{key} {value}: {allowed}")


def _unknown_key(key: str) -> str:
    close = difflib.get_close_matches(key, _PARSERS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(_PARSERS)}"
    return f"{key}: no such setting; {hint}"


def _check_names(settings: Settings) -> None:
    for name in settings.interfaces:
        if name == "lo":
            raise refuse("interface", name, "the loopback interface is switched on by --local")
        if not _INTERFACE.fullmatch(name):
            raise refuse("interface", repr(name), "must be a network interface's name")
    _check_unique("interface", settings.interfaces)
    if not _INSTANCE.fullmatch(settings.instance):
        raise refuse(
            "instance",
            repr(settings.instance),
            "must be 1 to 32 of a-z, 0-9, - and _, e.g. default",
        )
    if settings.xdp_mode not in XDP_MODES:
        raise refuse("xdp-mode", settings.xdp_mode, f"must be {' or '.join(XDP_MODES)}")
    if settings.log_level not in LOG_LEVELS:
        raise refuse("log-level", settings.log_level, f"must be one of {', '.join(LOG_LEVELS)}")
    for key, path in (("bpffs", settings.bpffs), ("runtime-root", settings.runtime_root)):
        if not path.is_absolute():
            raise refuse(key, path, "must be an absolute path")


def _check_vips(settings: Settings) -> None:
    if len(settings.vips) > VIPS_MAX:
        raise refuse("vip", f"({len(settings.vips)} of them)", f"at most {VIPS_MAX} are allowed")
    _check_unique("vip", settings.vips)
    for vip in settings.vips:
        if vip.is_unspecified or vip.is_multicast:
            raise refuse("vip", vip, "must be one host's address, e.g. 192.0.2.2")
        if vip.is_loopback and not settings.local:
            raise refuse("vip", vip, "a loopback address needs --local")
        if isinstance(vip, IPv6Address):
            if vip.ipv4_mapped is not None:
                raise refuse("vip", vip, f"write it as {vip.ipv4_mapped}")
            if vip.is_link_local:
                raise refuse("vip", vip, "a link-local address means nothing to a client elsewhere")


def _check_ports(settings: Settings) -> None:
    _check_port("shared-port", settings.shared_port)
    first, last = settings.lane_first, settings.lane_last
    lanes = f"{first}-{last}"
    # Below 1024 a transceiver would need a privilege for nothing but its port.
    if not 1024 <= first <= last <= 65535:
        raise refuse("lanes", lanes, "must be FIRST-LAST within 1024-65535, e.g. 20000-20999")
    if first <= settings.shared_port <= last:
        raise refuse("shared-port", settings.shared_port, f"must be outside the lanes {lanes}")
    most = min(last - first + 1, OWNERS_MAX)
    if not 0 <= settings.transceivers <= most:
        raise refuse(
            "transceivers", settings.transceivers, f"must be 0 to {most}: one lane of {lanes} each"
        )
    for key, endpoint in (("http", settings.http), ("metrics", settings.metrics)):
        _check_port(key, endpoint.port)
    if settings.http == settings.metrics:
        raise refuse("metrics", settings.metrics, "is the address of --http already")


def _check_port(key: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise refuse(key, port, "must be a port from 1 to 65535")


def _check_unique(key: str, values: tuple[object, ...]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise refuse(key, value, "is given twice")


def _texts(key: str, value: object) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    for one in values:
        if not isinstance(one, str):
            raise refuse(key, repr(one), "must be text")
    return list(values)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise refuse(key, repr(value), "must be text")
    return value


def _number(key: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    raise refuse(key, repr(value), "must be a whole number")


def _parse_interfaces(key: str, value: object) -> dict[str, Any]:
    return {"interfaces": tuple(_texts(key, value))}


def _parse_vips(key: str, value: object) -> dict[str, Any]:
    vips = []
    for text in _texts(key, value):
        try:
            vips.append(ip_address(text))
        except ValueError as error:
            raise refuse(key, repr(text), "must be an IPv4 or IPv6 address") from error
    return {"vips": tuple(vips)}


def _parse_lanes(key: str, value: object) -> dict[str, Any]:
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", _text(key, value), re.ASCII)
    if match is None:
        raise refuse(key, repr(value), "must be FIRST-LAST, e.g. 20000-20999")
    return {"lane_first": int(match[1]), "lane_last": int(match[2])}


def _parse_endpoint(key: str, value: object) -> dict[str, Any]:
    text = _text(key, value)
    allowed = "must be ADDRESS:PORT, e.g. 127.0.0.1:8080 or [::1]:8080"
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):(\d{1,5})", text, re.ASCII)
    if match is None:
        raise refuse(key, repr(text), allowed)
    try:
        host = str(IPv6Address(match[1]) if match[1] else IPv4Address(match[2]))
    except ValueError as error:
        raise refuse(key, repr(text), allowed) from error
    return {key: Endpoint(host, int(match[3]))}


def _parse_flag(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise refuse(key, repr(value), "must be true or false")
    return {key: value}


def _field(
    name: str, parse: Callable[[str, object], Any]
) -> Callable[[str, object], dict[str, Any]]:
    return lambda key, value: {name: parse(key, value)}


def _path(key: str, value: object) -> Path:
    return Path(_text(key, value))


_PARSERS: dict[str, Callable[[str, object], dict[str, Any]]] = {
    "interface": _parse_interfaces,
    "vip": _parse_vips,
    "shared-port": _field("shared_port", _number),
    "lanes": _parse_lanes,
    "http": _parse_endpoint,
    "metrics": _parse_endpoint,
    "transceivers": _field("transceivers", _number),
    "xdp-mode": _field("xdp_mode", _text),
    "local": _parse_flag,
    "instance": _field("instance", _text),
    "bpffs": _field("bpffs", _path),
    "log-level": _field("log_level", _text),
    "runtime-root": _field("runtime_root", _path),
}
