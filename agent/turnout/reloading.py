"""SIGHUP: the settings read anew, checked, and what can be applied applied. Used by the supervisor.

Nothing changes unless all of it can be read and checked; what takes a restart is said.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable

from turnout.accounts import find_account
from turnout.client import Client
from turnout.doors import wait_for_vips
from turnout.errors import ApiError
from turnout.settings import OWNERS_MAX, Settings
from turnout.settings.reload import Reload, plan_reload

log = logging.getLogger(__name__)


class Terminal:
    """The terminal a process was started on: SIGHUP also says that it has gone."""

    def __init__(self) -> None:
        self._was_there = _is_there()

    @property
    def has_gone(self) -> bool:
        """Whether there was one and there is none now."""
        return self._was_there and not _is_there()


def _is_there() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def prepare_reload(running: Settings, read: Callable[[], Settings]) -> Reload:
    """Read and check the settings of now; changes nothing. Raises TurnoutError."""
    # In a thread: filling in the host's defaults asks netlink, which runs a loop of its own.
    wanted = await asyncio.to_thread(read)
    if wanted.transceivers:
        # Who is started again after this is started as that user: it must not have gone meanwhile.
        find_account(running.transceiver_user)
    new = tuple(vip for vip in wanted.vips if vip not in running.vips)
    if new:
        await asyncio.to_thread(wait_for_vips, wanted.replace(vips=new, advertise=()))
    most = OWNERS_MAX
    if wanted.transceivers > running.transceivers:
        most = room_for_transceivers(running, await _owners(running))
    return plan_reload(running, wanted, transceivers_most=most)


def room_for_transceivers(settings: Settings, owners: Iterable[dict[str, object]]) -> int:
    """Return how many transceivers there can be before one meets a registered owner's slot or lane.

    `owners` are those of the local API.
    """
    taken = [
        min(int(str(owner["slot"])), int(str(owner["lane"])) - settings.lane_first)
        for owner in owners
        if owner["kind"] != "transceiver"
    ]
    return min(taken, default=OWNERS_MAX)


async def _owners(settings: Settings) -> list[dict[str, object]]:
    try:
        async with Client(settings.api_socket) as api:
            return await api.owners()
    except ApiError as error:
        # The agent is being started again; it refuses nothing that stands in its settings.
        log.warning("owners are not known just now: %s", error)
        return []
