"""What the units run: the parts of `turnout run` that are left where systemd starts the processes.

    loader        set the host up, load and pin; at the end take all of it down
    agent         become the agent of the installation that is written down
    transceiver   become the transceiver of a slot
    edge          start the transceivers, wait until all serves; reload; drain

Called by cli/unit.py.
"""

import logging
import os
import shlex
import subprocess
from collections.abc import Callable
from typing import NoReturn

from turnout.errors import TurnoutError
from turnout.installation import Installation
from turnout.kernel.pins import is_bpffs
from turnout.notify import notify
from turnout.reloading import prepare_reload
from turnout.rundir import ProcessId, hold, mark_unit
from turnout.setting_up import check_leftovers, set_up
from turnout.settings import Settings
from turnout.stopping import ENDING_S, drain_all
from turnout.supervisor import child_arguments, describe, transceiver_arguments, until_ready
from turnout.takedown import check_namespace, end_children, take_down
from turnout.units.files import service_name, transceiver_unit

log = logging.getLogger(__name__)

SYSTEMCTL_S = 90.0


def load(settings: Settings, load_programs: Callable[[Settings], None]) -> None:
    """Set the host up and have every map and program pinned. Raises TurnoutError."""
    if not is_bpffs(settings.bpffs):
        # A mount from inside of the unit would be the unit's alone.
        raise TurnoutError(
            f"{settings.bpffs} is not a BPF file system: mount one with "
            f"`mount -t bpf bpf {settings.bpffs}` (systemd mounts /sys/fs/bpf itself)"
        )
    with hold(settings.runtime, settings.instance):
        check_namespace(settings)
        check_leftovers(settings)
        for line in end_children(settings):
            log.info("%s", line)
        mark_unit(settings.runtime, f"{service_name(settings.instance)}-loader.service")
        set_up(settings)
        load_programs(settings)


def unload(settings: Settings) -> None:
    """Undo all that `load` did, and the agent's attachments. Raises TurnoutError."""
    if not settings.runtime.exists():
        return  # it was refused before it had changed anything
    with hold(settings.runtime, settings.instance):
        for line in take_down(settings):
            log.info("%s", line)


def become_agent(settings: Settings) -> NoReturn:
    """Go on as the agent."""
    _become(settings, "agent", child_arguments(settings, "agent"))


def become_transceiver(settings: Settings, slot: int) -> NoReturn:
    """Go on as the transceiver of a slot."""
    _become(settings, f"transceiver-{slot}", transceiver_arguments(settings, slot))


def _become(settings: Settings, name: str, arguments: list[str]) -> NoReturn:
    """Become what the supervisor would start: the same process, so the same pid."""
    installation = Installation.of(settings.runtime)
    ProcessId.mine().write(settings.runtime / f"{name}.pid")
    command = (installation.python, *arguments)
    os.execve(command[0], command, installation.environment)  # noqa: S606 - no shell is wanted


async def start(settings: Settings) -> None:
    """Start the transceivers and return when the whole edge serves. Raises TurnoutError."""
    _start_transceivers(settings)
    picture = await until_ready(settings)
    for line in describe(settings, picture):
        log.info("%s", line)
    for warning in picture["warnings"]:
        log.warning("%s", warning)


async def reload(running: Settings, read: Callable[[], Settings]) -> None:
    """Apply what can be applied of the settings of now. Raises TurnoutError: nothing changed."""
    change = await prepare_reload(running, read)
    log.info("reload: %s", change)
    if change.applied:
        change.settings.write()
        _start_transceivers(change.settings)
        agent = f"{service_name(running.instance)}-agent.service"
        _systemctl("kill", "--kill-whom=main", "--signal=HUP", agent)


async def drain(settings: Settings) -> None:
    """Drain every owner, for `drain_on_stop` seconds and a few at most."""
    seconds = settings.drain_on_stop
    if seconds == 0:
        return
    patience_us = round((seconds + ENDING_S + SYSTEMCTL_S) * 1e6)
    notify(f"EXTEND_TIMEOUT_USEC={patience_us}", f"STATUS=Drains for up to {seconds} s")
    await drain_all(settings.api_socket, seconds, lambda line: log.info("%s", line))


def _start_transceivers(settings: Settings) -> None:
    slots = range(settings.transceivers)
    if slots:
        _systemctl("start", *(transceiver_unit(settings.instance, slot) for slot in slots))


def _systemctl(*arguments: str) -> None:
    command = ("systemctl", *arguments)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SYSTEMCTL_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TurnoutError(f"{shlex.join(command)}: {error}") from error
    if done.returncode != 0:
        raise TurnoutError(f"{shlex.join(command)}: {done.stderr.strip()}")
