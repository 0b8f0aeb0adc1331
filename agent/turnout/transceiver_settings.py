"""Tells our transceivers what changes while they live: VIPs, log level, limits. Called by the edge.

A transceiver starts with what the supervisor knew. What the agent learned since it is told when
its owner is active, and again when it is another incarnation.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from turnout.wire.problem import parse_problem

if TYPE_CHECKING:
    from pathlib import Path

    from turnout.settings import Address, Settings
    from turnout.steering import Steering

log = logging.getLogger(__name__)

_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


@dataclass(frozen=True, slots=True)
class Told:
    """What a transceiver was told last."""

    incarnation: int
    vips: tuple[str, ...]
    log_level: str
    handshakes: int


class TransceiverSettings:
    """What each transceiver has been told, by slot."""

    def __init__(self, steering: "Steering") -> None:
        self._steering = steering
        self._told: dict[int, Told] = {}

    async def tell(self, settings: "Settings", vips: Sequence["Address"]) -> None:
        """Bring every transceiver that is up to these VIPs and what else the settings say.

        One that does not take it is asked again at the next call.
        """
        for owner in list(self._steering.owners.values()):
            if owner.kind != "transceiver" or owner.state == "down":
                continue
            wanted = Told(
                owner.incarnation,
                tuple(map(str, vips)),
                settings.log_level,
                settings.limits.handshakes,
            )
            if self._told.get(owner.slot) == wanted:
                continue
            try:
                await _put(settings.transceiver_socket(owner.slot), wanted)
            except (aiohttp.ClientError, OSError) as error:
                reason = str(error) or type(error).__name__
                log.warning("transceiver %d: settings not taken: %s", owner.slot, reason)
            else:
                self._told[owner.slot] = wanted


async def _put(socket: "Path", wanted: Told) -> None:
    body = {
        "vips": list(wanted.vips),
        "log_level": wanted.log_level,
        "handshakes": wanted.handshakes,
    }
    connector = aiohttp.UnixConnector(str(socket), force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as http,
        http.put("http://transceiver/settings", json=body) as response,
    ):
        if response.status != 200:
            title, detail = parse_problem(await response.read()) or ("refused", "")
            raise aiohttp.ClientError(f"{response.status} {title}: {detail}")
