"""What has changed on the host between two looks, in words for the log. Pure; called by the edge.

Addresses are told by vips.py, which knows what hangs on them.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turnout.kernel.follow import HostPicture
    from turnout.kernel.host import Interface


def tell_news(
    before: "HostPicture", now: "HostPicture", interfaces: Sequence[str]
) -> Iterator[str]:
    """Yield a line for each change of our interfaces and of the default routes."""
    for name in interfaces:
        yield from _tell_link(name, before.links.get(name), now.links.get(name))
    if before.default_routes != now.default_routes:
        yield f"default route: {before.describe_routes()}, now {now.describe_routes()}"


def _tell_link(name: str, before: "Interface | None", now: "Interface | None") -> Iterator[str]:
    if before is None or now is None:
        if before is not None:
            yield f"{name}: the interface is gone"
        if now is not None:
            yield f"{name}: the interface is there again"
        return
    if before.index != now.index:
        yield f"{name}: another interface has taken this name"
    if before.up != now.up:
        yield f"{name}: the link was set {'up' if now.up else 'down'}"
    if before.mtu != now.mtu:
        yield f"{name}: MTU {before.mtu}, now {now.mtu}"
