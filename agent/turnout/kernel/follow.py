"""The host's links, addresses and default routes as they are now, and word of every change.

Level-triggered: netlink only says that something has changed, `look` then reads all of it, so a
lost message costs a moment and never the truth. Called by the edge.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import (
    RTMGRP_IPV4_IFADDR,
    RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR,
    RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
)

from turnout.errors import AttachError, KernelError
from turnout.kernel import host
from turnout.kernel.attach import Attachment, attach
from turnout.kernel.host import DefaultRoute, Interface, IPAddress
from turnout.kernel.pins import Pins

log = logging.getLogger(__name__)

_GROUPS = (
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
)
# Changes come in bursts: one look serves all of a burst.
_SETTLE_S = 0.1


@dataclass(frozen=True, slots=True)
class HostPicture:
    """What matters of the host. `addresses`: all local ones, of every interface."""

    links: Mapping[str, Interface]
    addresses: frozenset[IPAddress]
    default_routes: tuple[DefaultRoute, ...]

    default_interfaces: tuple[str, ...]

    def describe_routes(self) -> str:
        """Return the default routes in words."""
        routes = [
            f"by {route.gateway or 'no gateway'} on {route.interface}"
            for route in self.default_routes
        ]
        return ", ".join(routes) or "none"


def look() -> HostPicture:
    """Ask netlink. Not inside of an event loop: pyroute2 runs one of its own.

    Raises KernelError when something went while it was asked for.
    """
    try:
        return HostPicture(
            {link.name: link for link in host.interfaces()},
            host.local_addresses(),
            tuple(host.default_routes()),
            _default_interfaces(),
        )
    except NetlinkError as error:
        raise KernelError(f"netlink: {error}") from error


def default_vips(names: Sequence[str], picture: HostPicture) -> list[IPAddress]:
    """Return the VIPs an edge on these interfaces takes by default. Raises KernelError."""
    try:
        return host.default_vips([name for name in names if name in picture.links])
    except NetlinkError as error:
        raise KernelError(f"netlink: {error}") from error


def attach_again(pins: Pins, runtime: Path, name: str, mode: str) -> Attachment:
    """Attach where the interface may be going as we come: whatever fails is an AttachError."""
    try:
        return attach(pins, runtime, name, mode)
    except AttachError:
        raise
    except (KernelError, NetlinkError, OSError, LookupError) as error:
        raise AttachError(f"{name}: {error!r}") from error


def _default_interfaces() -> tuple[str, ...]:
    try:
        return tuple(host.default_interfaces())
    except KernelError:
        return ()  # without a default route several interfaces, or none, would do


class Changes:
    """An event that is set whenever links, addresses or default routes have changed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def announce(self) -> None:
        """Have the waiting one look, for another reason."""
        self._changed.set()

    async def wait(self, patience_s: float) -> bool:
        """Return True after a change (a burst of them is one), or False after `patience_s`."""
        try:
            async with asyncio.timeout(patience_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(_SETTLE_S)
        self._changed.clear()
        return True

    async def listen(self) -> None:
        """Listen to netlink, for ever. OSError: this process may not."""
        while True:
            try:
                async with AsyncIPRoute() as netlink:
                    await netlink.bind(groups=_GROUPS)
                    # What happened before we listened is a change too.
                    self._changed.set()
                    async for message in _messages(netlink):
                        if _matters(message):
                            self._changed.set()
            except OSError as error:
                # ENOBUFS: more has happened than fitted. What is true now is read anew.
                log.warning("netlink: %s; listening anew", error)
            await asyncio.sleep(1.0)


async def _messages(netlink: Any) -> AsyncIterator[Any]:
    while True:
        async for message in netlink.get():
            yield message


def _matters(message: Any) -> bool:
    """Tell whether a message is worth a look: a router's routes come and go by the thousand."""
    return message["event"] not in ("RTM_NEWROUTE", "RTM_DELROUTE") or message["dst_len"] == 0
