"""What the network does: a link goes away and comes back, and so does an address."""

import time

from chaos.row import Row
from chaos.stage import Stage
from results import Result
from system.namespaces import EDGE_ADDRESSES, INTERFACE, command

_AWAY_SECONDS = 1.0
_EDGE_PORT = "port0"  # of the bridge; its other end is the edge's interface


def flap(stage: Stage) -> list[Result]:
    """Take the carrier from the edge's interface for a second."""
    port = ("ip", "-n", stage.network.middle, "link", "set", _EDGE_PORT)
    with stage.outage(4, 6, calls_too=True):
        command(*port, "down")
        time.sleep(_AWAY_SECONDS)
        command(*port, "up")
        began = time.monotonic()
    back = time.monotonic() - began
    down = [call for call in stage.calls() if not call.is_up]
    return [
        Result("all clients heard again after, s", round(back, 2)),
        Result("calls that broke", len(down), "0", not down),
    ]


def remove_address(stage: Stage) -> list[Result]:
    """Take the IPv6 VIP from the host for a while."""
    vip = EDGE_ADDRESSES[6]
    address = ("dev", INTERFACE, f"{vip}/128")
    ip = ("ip", "-n", stage.network.edge, "address")
    # The calls' ICE prefers IPv6: these are on the address that goes.
    with stage.outage(6, calls_too=True):
        command(*ip, "delete", address[2], *address[:2])
        gone = stage.until(lambda: _is_away(stage, vip), "the edge knows that it is gone")
        command(*ip, "add", address[2], *address[:2], "nodad")
    back = stage.until(lambda: not _is_away(stage, vip), "the edge knows that it is back")
    down = [call for call in stage.calls() if not call.is_up]
    return [
        Result("the edge knew after, s", f"{gone:.2f}, {back:.2f}"),
        Result("calls that broke", len(down), "0", not down),
    ]


def _is_away(stage: Stage, vip: str) -> bool:
    addresses = stage.edge.status()["addresses"]
    return not next(one["present"] for one in addresses if one["vip"] == vip)


ROWS = (
    Row("link-flap", "the edge's link loses its carrier for a second", flap),
    Row("address", "an address is removed and comes back; the other VIP's calls", remove_address),
)
