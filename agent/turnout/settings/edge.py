"""Settings: what one edge is told, checked once and frozen.

`Settings.parse` takes values as flags give them (text) or as a file gives them (numbers, lists,
tables); whoever merges two sources merges the mappings first. The supervisor writes the result to
settings.json in the runtime directory, for root alone, where agent and loader read it.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from turnout.errors import SettingsError
from turnout.files import write_whole
from turnout.settings.checks import check
from turnout.settings.keys import KEYS
from turnout.settings.limits import Limits
from turnout.settings.tables import IceServer, UpstreamSettings, unknown_key
from turnout.settings.values import (
    RUNTIME_ROOT,
    Address,
    Advertise,
    Endpoint,
    Network,
    is_private,
)

_HTTP = Endpoint("0.0.0.0", 8080)  # noqa: S104 - the door for clients is public
_METRICS = Endpoint("127.0.0.1", 9478)


def _default_transceivers() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Settings:
    """One edge's settings. Empty `interfaces` or `vips` stand for the host's default.

    docs/settings.md says what each is. `follow_interfaces` and `follow_vips`: the host's defaults
    were taken, and the edge goes along when they change.
    """

    interfaces: tuple[str, ...] = ()
    vips: tuple[Address, ...] = ()
    advertise: tuple[Advertise, ...] = ()
    shared_port: int = 3478
    lane_first: int = 20000
    lane_last: int = 20999
    http: Endpoint = _HTTP
    http_token: str = field(default="", repr=False)
    open: bool = False
    offers_a_minute: int = 0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    trusted_proxies: tuple[Network, ...] = ()
    ice_servers: tuple[IceServer, ...] = field(default=(), repr=False)
    metrics: Endpoint = _METRICS
    transceivers: int = field(default_factory=_default_transceivers)
    upstreams: tuple[UpstreamSettings, ...] = ()
    app: str = "echo"
    webhook: str = ""
    transceiver_user: str = ""
    drain_on_stop: int = 5
    xdp_mode: str = "generic"
    local: bool = False
    instance: str = "default"
    bpffs: Path = Path("/sys/fs/bpf")
    log_level: str = "info"
    log_json: bool = False
    flow_table: int = 1 << 17
    session_table: int = 1 << 16
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    runtime_root: Path = RUNTIME_ROOT
    follow_interfaces: bool = False
    follow_vips: bool = False

    def __post_init__(self) -> None:
        check(self)

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

    def advertised_for(self, vip: Address, vips: Sequence[Address]) -> list[Address]:
        """Return the public addresses that stand in front of a VIP; empty if there are none.

        `vips` are all that are there: a public address without a VIP is that of the first of its
        family.
        """
        first = next((one for one in vips if one.version == vip.version), None)
        return [
            entry.public
            for entry in self.advertise
            if entry.vip == vip
            or (entry.vip is None and vip == first and entry.public.version == vip.version)
        ]

    def candidates(self, vips: Sequence[Address]) -> list[tuple[str, int]]:
        """Return what an SDP answer names for these VIPs: (address, shared port) each."""
        return [
            (str(address), self.shared_port)
            for vip in vips
            for address in self.advertised_for(vip, vips) or [vip]
        ]

    def hidden_vips(self, vips: Sequence[Address]) -> list[Address]:
        """Return the private VIPs that nothing is advertised for: no client elsewhere gets there.

        A private address may be advertised as itself, by who knows that all clients are near.
        """
        return [vip for vip in vips if is_private(vip) and not self.advertised_for(vip, vips)]

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> Self:
        """Build settings from `values`, keyed by flag name without the dashes ("shared-port").

        A value is what a flag gives (text, a list of texts, True) or what JSON or TOML gives.
        Raises SettingsError naming the key, the value and what is allowed.
        """
        given: dict[str, Any] = {}
        for name, value in values.items():
            key = KEYS.get(name)
            if key is None:
                raise SettingsError(unknown_key(name, name, KEYS), name)
            given.update(key.read(value))
        return cls(**given)

    def to_values(self) -> dict[str, object]:
        """Return the settings as plain values that `parse` takes back. Secrets are among them."""
        return {key.name: key.value_in(self) for key in KEYS.values()}

    def to_json(self) -> str:
        """Return the text of settings.json."""
        return json.dumps(self.to_values(), indent=2) + "\n"

    def write(self) -> None:
        """Write settings.json in one piece, for root alone."""
        write_whole(self.settings_file, self.to_json(), mode=0o600)

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
