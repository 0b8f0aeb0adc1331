"""[limits]: how much one client, session or source may ask of an edge, and an edge of its host.

All of them are applied by a reload. The kernel holds the first four (kernel_settings.py), the
agent and its doors the rest. How often one client address may make an offer is `offers_a_minute`,
a setting of the door. Called by keys.py.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from turnout.errors import SettingsError
from turnout.settings.tables import unknown_key
from turnout.settings.values import parse_number, refuse

SESSION_FLOWS_MAX = 16  # bpf/abi.h SESSION_FLOWS_MAX: a session's flows stand inline in its entry
# A meter counts a tick's packets in 24 bits (bpf/meter.h).
_METER_MOST = 10_000_000

_ALLOWED: Mapping[str, tuple[int, int]] = {
    "flows_per_session": (1, SESSION_FLOWS_MAX),
    "flow_packets_per_second": (0, _METER_MOST),
    "checks_per_session_per_second": (1, _METER_MOST),
    "failed_checks_per_prefix_per_second": (1, _METER_MOST),
    "max_sessions": (1, 1 << 24),
    # Below, no browser's offer fits; above, one offer takes the agent's loop for itself.
    "sdp_bytes": (4096, 1 << 20),
    "handshakes": (1, 100_000),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one edge; docs/settings.md says what each is. Raises SettingsError."""

    flows_per_session: int = 8
    flow_packets_per_second: int = 2000  # 0: any number
    checks_per_session_per_second: int = 50
    failed_checks_per_prefix_per_second: int = 20
    max_sessions: int = 1 << 16
    sdp_bytes: int = 1 << 16
    handshakes: int = 100

    def __post_init__(self) -> None:
        for name, (least, most) in _ALLOWED.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise refuse(f"limits.{name}", value, f"must be {least} to {most}")

    @classmethod
    def parse(cls, key: str, value: object) -> Self:
        """Read the table; what it leaves out has its default. Raises SettingsError."""
        if not isinstance(value, Mapping):
            raise refuse(key, repr(value), f"must be a table, headed by [{key}]")
        given: dict[str, int] = {}
        for name, number in value.items():
            shown = f"{key}.{name}"
            if name not in _ALLOWED:
                raise SettingsError(unknown_key(shown, name, _ALLOWED), shown)
            given[name] = parse_number(shown, number)
        return cls(**given)

    def plain(self) -> dict[str, object]:
        """Return the values that `parse` takes back."""
        return dataclasses.asdict(self)
