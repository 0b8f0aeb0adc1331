"""What a start does on the host before any program is loaded, and what is noted for the way back.

The supervisor does it, and so does the loader's unit where systemd starts the processes
(units/parts.py); takedown.py undoes it.
"""

import logging
from dataclasses import replace

from turnout.accounts import find_account
from turnout.doors import wait_for_vips
from turnout.errors import SettingsError, TurnoutError
from turnout.installation import Installation
from turnout.kernel import host
from turnout.kernel.pins import mount_bpffs
from turnout.portranges import build_port_ranges, parse_port_ranges
from turnout.settings import Settings
from turnout.takedown import HostChanges

log = logging.getLogger(__name__)


def check_leftovers(settings: Settings) -> None:
    """Refuse to start over a killed run whose pins are elsewhere: nobody would find them again."""
    try:
        left = Settings.load(settings.instance, settings.runtime_root)
    except SettingsError:
        return
    if left.bpffs != settings.bpffs:
        raise TurnoutError(
            f"instance {settings.instance} was killed and left its pins under {left.bpffs}: "
            f"`turnout down --instance {settings.instance}` first"
        )


def set_up(settings: Settings) -> None:
    """Leave the settings where every process finds them and change the host. Raises TurnoutError.

    The runtime directory is held by the caller.
    """
    settings.write()
    Installation.mine().write(settings.runtime)
    if settings.transceivers and (note := find_account(settings.transceiver_user).note):
        log.warning("%s", note)
    _change_host(settings)
    wait_for_vips(settings)


def _change_host(settings: Settings) -> None:
    # A run that was killed may have left changes; they are ours to undo now.
    changes = HostChanges.read(settings.runtime) or HostChanges(host.network_namespace())
    changes = replace(changes, network_namespace=host.network_namespace())
    changes.write(settings.runtime)
    if mount_bpffs(settings.bpffs):
        changes = replace(changes, mounted_bpffs=True)
        changes.write(settings.runtime)
    before = host.reserve_ports(settings.lane_first, settings.lane_last)
    if before is not None:
        lanes = set(range(settings.lane_first, settings.lane_last + 1))
        ours = lanes - parse_port_ranges(before) | parse_port_ranges(changes.reserved_ports)
        replace(changes, reserved_ports=build_port_ranges(ours)).write(settings.runtime)
