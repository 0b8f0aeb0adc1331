"""What becomes of new settings while an edge runs: applied at once, or only at the next start.

Pure; called by the supervisor when it is sent SIGHUP.
"""

from dataclasses import dataclass

from turnout.settings.edge import Settings
from turnout.settings.keys import KEYS, Key, Source
from turnout.settings.values import OWNERS_MAX


@dataclass(frozen=True, slots=True)
class Reload:
    """The settings to run with from now on, and the keys (as the file has them) that changed."""

    settings: Settings
    applied: tuple[str, ...]
    needs_restart: tuple[str, ...]

    def __str__(self) -> str:
        parts = []
        if self.applied:
            parts.append(f"applied {', '.join(self.applied)}")
        if self.needs_restart:
            parts.append(f"takes a restart: {', '.join(self.needs_restart)}")
        return "; ".join(parts) or "nothing has changed"


def plan_reload(
    running: Settings, wanted: Settings, *, transceivers_most: int = OWNERS_MAX
) -> Reload:
    """Return what to do to come from `running` to `wanted`. Raises SettingsError if it clashes.

    `transceivers_most`: how many there is room for now, beside registered owners.
    """
    applied: list[str] = []
    needs_restart: list[str] = []
    changes: dict[str, object] = {}
    for key in KEYS.values():
        if key.source == Source.CHILDREN or _is_followed(key.name, running, wanted):
            continue
        if all(getattr(running, name) == getattr(wanted, name) for name in _fields(key)):
            continue
        if key.is_live and _is_possible(key, running, wanted, transceivers_most):
            applied.append(key.file_name)
            changes |= {name: getattr(wanted, name) for name in _fields(key)}
        else:
            needs_restart.append(key.file_name)
    return Reload(running.replace(**changes), tuple(applied), tuple(needs_restart))


def _is_possible(key: Key, running: Settings, wanted: Settings, transceivers_most: int) -> bool:
    if key.name == "transceivers":
        # One that is ended takes its calls along.
        return running.transceivers <= wanted.transceivers <= transceivers_most
    if key.name in ("tls-cert", "tls-key"):
        # Other files, yes; but a door is http or https for as long as it is open.
        return running.tls_cert is not None and wanted.tls_cert is not None
    return True


def _fields(key: Key) -> tuple[str, ...]:
    # To name the VIP that is the host's default is a change: it is not followed any more.
    return (*key.fields, "follow_vips") if key.name == "vip" else key.fields


def _is_followed(name: str, running: Settings, wanted: Settings) -> bool:
    """Tell whether the agent already goes along with the host: its defaults are no change."""
    if name == "vip":
        return running.follow_vips and wanted.follow_vips
    return name == "interface" and running.follow_interfaces and wanted.follow_interfaces
