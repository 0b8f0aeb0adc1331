"""The end of a run that was asked for politely: everybody is drained before anything stops.

The supervisor calls it at SIGTERM, with its processes all alive: the agent refuses new sessions,
those there are may come to their own end, and what is left at the deadline is ended as a
drain ends it. Bounded, whatever becomes of the agent meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from turnout.client import Client
from turnout.errors import ApiError

log = logging.getLogger(__name__)

LOOK_S = 0.2
# To end what the deadline has left: a process that hangs costs its sessions' goodbyes this much.
ENDING_S = 3.0
# A line each second at first, then each ten.
_OFTEN_S = 10


async def drain_all(api_socket: Path, seconds: int, say: Callable[[str], None]) -> None:
    """Drain every owner and return when none has a session, after `seconds` + 3 at the latest."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    told = 0.0
    say(f"drains for up to {seconds} s: no new sessions; a second signal stops now")
    try:
        async with asyncio.timeout(seconds + ENDING_S), Client(api_socket) as api:
            while True:
                passed = loop.time() - start
                drains = await _drain_the_rest(api, max(0, round(seconds - passed)))
                if drains is not None and all(drain["ended"] for drain in drains):
                    break
                if drains is not None and passed >= told:
                    left = sum(drain["sessions"] for drain in drains)
                    say(f"drains: {left} sessions left, {max(0.0, seconds - passed):.0f} s to go")
                    told = passed + (1 if passed < _OFTEN_S else 10)
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        log.warning("drain: given up after %.0f s, what is left ends now", seconds + ENDING_S)
        return
    ended = sum(drain["sessions_ended"] for drain in drains)
    say(f"drained; {ended} sessions were ended by the deadline" if ended else "drained: empty")


async def _drain_the_rest(api: Client, seconds: int) -> Sequence[dict[str, Any]] | None:
    """Drain who is not drained that soon yet: who came back meanwhile, too. None: no agent."""
    try:
        in_time = {
            drain["slot"]
            for drain in await api.drains()
            if drain["ended"] or drain["seconds_left"] <= seconds + 1
        }
        for owner in await api.owners():
            if owner["slot"] not in in_time and owner["state"] != "down":
                await api.drain(owner["slot"], seconds)
        return await api.drains()
    except ApiError as error:
        log.debug("drain: %s", error)
        return None
