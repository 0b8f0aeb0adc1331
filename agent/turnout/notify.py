"""What a process tells the service manager that started it: that it serves, lives, stops.

A datagram to the socket that NOTIFY_SOCKET names, as sd_notify(3) describes for those who want no
library: python3-systemd is one that is compiled, and not on every machine. Where nobody set
the variable, nothing is told. Used by the agent, the transceivers and units/parts.py.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

log = logging.getLogger(__name__)

# Where no watchdog waits: how often STATUS= is brought up to date.
STATUS_PAUSE_S = 10.0


def notify(*assignments: str) -> None:
    """Tell the service manager, e.g. "READY=1"; does nothing where there is none."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    # An abstract socket is named with an @ for its first byte, which is 0.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    message = "\n".join(assignments).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            # A manager that is behind must not hold the event loop up; the next one gets through.
            manager.sendto(message, socket.MSG_DONTWAIT, address)
    except OSError as error:
        log.warning("the service manager was not told %s: %s", assignments[0], error)


@asynccontextmanager
async def serving(status: Callable[[], str]) -> AsyncIterator[None]:
    """Tell that the process serves, and while the block lasts that its event loop turns.

    `status` gives one line for people (systemctl status).
    """
    async with asyncio.TaskGroup() as group:
        notify("READY=1")
        alive = group.create_task(_tell_alive(status), name="alive")
        try:
            yield
        finally:
            notify("STOPPING=1")
            alive.cancel()


async def _tell_alive(status: Callable[[], str]) -> None:
    """Feed the watchdog three times in the time it waits, for ever.

    From the event loop itself: when that hangs, the manager hears nothing and kills the process.
    """
    if "NOTIFY_SOCKET" not in os.environ:
        return
    watchdog_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6
    while True:
        notify("WATCHDOG=1", f"STATUS={status()}")
        await asyncio.sleep(watchdog_s / 3 or STATUS_PAUSE_S)
