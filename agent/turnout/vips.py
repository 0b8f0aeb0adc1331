"""The VIPs of the running edge: which are served, which are offered, and their shared ports.

Served: the kernel steers them and their sockets are open. Offered: SDP answers name them, because
the settings want them and the host has the address now. A VIP that is wanted no longer, or whose
address is gone, stays served: its calls go on, or wait for it. Owned by the edge.
"""

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from turnout.errors import TurnoutError
from turnout.kernel_settings import vips_in_use, write_kernel_settings
from turnout.settings import VIPS_MAX, Address, Settings

if TYPE_CHECKING:
    from turnout.doors import SharedPorts
    from turnout.kernel.maps import Maps

log = logging.getLogger(__name__)


def choose_served(wanted: Sequence[Address], served: Sequence[Address]) -> list[Address]:
    """Return what to serve: all that is wanted, then what was, as long as the map has room."""
    kept = [vip for vip in served if vip not in wanted]
    return [*wanted, *kept][: max(VIPS_MAX, len(wanted))]


class Vips:
    """The VIPs, the kernel's record of them, and their sockets on the shared port."""

    def __init__(self, maps: "Maps", shared_ports: "SharedPorts") -> None:
        self._maps = maps
        self._shared_ports = shared_ports
        self._wanted: list[Address] = []
        self._served: list[Address] = []
        self._present: set[Address] = set()
        self._written: tuple[object, ...] = ()

    @property
    def served(self) -> list[Address]:
        """The VIPs that the kernel steers, most wanted first."""
        return list(self._served)

    @property
    def offered(self) -> list[Address]:
        """The VIPs that a new client is told of, most wanted first."""
        return [vip for vip in self._wanted if vip in self._present and vip in self._served]

    def is_present(self, vip: Address) -> bool:
        """Tell whether the host has the address."""
        return vip in self._present

    def start(self, settings: Settings, present: Collection[Address]) -> None:
        """Serve the settings' VIPs. Raises TurnoutError when a shared port is somebody else's.

        An agent before this one may have followed the host to further VIPs, which have flows.
        """
        self._present = set(present)
        record = self._maps.settings.lookup(0) or {}
        held = vips_in_use(record) if settings.follow_vips and "vips" in record else []
        self._wanted = list(settings.vips)
        self._served = choose_served(settings.vips, [vip for vip in held if vip in present])
        for vip in self._served:
            self._shared_ports.open(vip)
        self._write(settings)

    def follow(
        self, settings: Settings, present: Collection[Address], defaults: Sequence[Address]
    ) -> None:
        """Go along with new settings or a changed host; `defaults`: the VIPs it would give now.

        What cannot be done is said, and tried again at the next call.
        """
        self._tell_presence(set(present))
        wanted = list(settings.vips)
        if settings.follow_vips and defaults:
            wanted = list(defaults)
        for vip in wanted:
            if vip not in self._wanted:
                log.info("VIP %s: new clients are told of it", vip)
        for vip in self._wanted:
            if vip not in wanted:
                log.info("VIP %s: new clients are not told of it any more; its calls go on", vip)
        self._wanted = wanted
        self._served = [
            vip for vip in choose_served(wanted, self._served) if self._has_shared_port(vip)
        ]
        # The port first, then the steering; and back in reverse.
        self._write(settings)
        for vip in [vip for vip in self._shared_ports.vips if vip not in self._served]:
            log.info("VIP %s: makes room", vip)
            self._shared_ports.close(vip)

    def _tell_presence(self, present: set[Address]) -> None:
        for vip in self._served:
            if vip in self._present and vip not in present:
                log.warning(
                    "VIP %s: the host lost this address; its calls wait for it, and new clients "
                    "are not told of it",
                    vip,
                )
            elif vip in present and vip not in self._present:
                log.warning("VIP %s: the address is back", vip)
        self._present = present

    def _has_shared_port(self, vip: Address) -> bool:
        try:
            self._shared_ports.open(vip)
        except TurnoutError as error:
            log.error("not served: %s", error)  # noqa: TRY400 - the message says it all
            return False
        return True

    def _write(self, settings: Settings) -> None:
        record = (
            tuple(self._served),
            settings.shared_port,
            settings.lane_first,
            settings.limits,
        )
        if record != self._written:
            write_kernel_settings(self._maps, settings, self._served)
            self._written = record
