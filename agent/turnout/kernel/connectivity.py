"""Does the host still reach its gateways? Asked around every attach to an interface.

A kernel neighbour entry set to PROBE makes the kernel ask the gateway by ARP or ND; its answer
has to come back through the program that was just attached. Called by attach.py.
"""

import logging
import time
from dataclasses import dataclass
from typing import Self

from pyroute2 import IPRoute

from turnout.errors import AttachError
from turnout.kernel.host import default_routes

logger = logging.getLogger(__name__)

_NUD_REACHABLE = 0x02
_NUD_PROBE = 0x10
# Three unicast probes, a second apart, are the kernel's default (ucast_solicit, retrans_time).
_PATIENCE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Gateways:
    """The gateways behind an interface that answered before we attached."""

    interface: str
    answering: list[str]

    @classmethod
    def of(cls, interface: str) -> Self:
        """Probe every default gateway of the interface; those that do not answer are left out."""
        gateways = {
            str(route.gateway)
            for route in default_routes()
            if route.interface == interface and route.gateway is not None
        }
        return cls(interface, sorted(g for g in gateways if _answers(interface, g)))

    def check(self) -> None:
        """Probe again; AttachError when one that answered before does not now."""
        for gateway in self.answering:
            if not _answers(self.interface, gateway):
                msg = (
                    f"gateway {gateway} on {self.interface} answered before the program was "
                    "attached and does not now; it was detached again. Try another --xdp-mode"
                )
                raise AttachError(msg)


def _answers(interface: str, gateway: str) -> bool:
    with IPRoute() as ipr:
        index = ipr.link_lookup(ifname=interface)[0]

        def entry() -> tuple[int, str | None]:
            for message in ipr.get_neighbours(ifindex=index, dst=gateway):
                return message["state"], message.get_attr("NDA_LLADDR")
            return 0, None

        _, address = entry()
        if address is None:
            logger.info("gateway %s on %s is not known yet: not probed", gateway, interface)
            return False
        ipr.neigh("replace", dst=gateway, ifindex=index, lladdr=address, state=_NUD_PROBE)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if entry()[0] & _NUD_REACHABLE:
                return True
            time.sleep(0.05)
        return False
