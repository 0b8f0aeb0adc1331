"""Where the programs are attached: at the start, again when an interface returns, and as a picture.

Everything here asks netlink in pyroute2's own loop: the edge calls it in a thread.
"""

import logging
from collections.abc import Collection, Sequence

from turnout.errors import AttachError, KernelError
from turnout.kernel.attach import attach, attached, detach
from turnout.kernel.follow import attach_again
from turnout.kernel.pins import Pins
from turnout.settings import Settings
from turnout.status import Picture, read_interfaces

log = logging.getLogger(__name__)


class Attachments:
    """The interfaces that carry our programs."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._notes: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self.picture: list[Picture] = []

    def attach(self, settings: Settings, wanted: Sequence[str]) -> None:
        """Attach to these interfaces, and to no other any more. Raises AttachError."""
        for attachment in attached(self._pins):
            if attachment.interface not in wanted:
                log.info("%s is not among the interfaces any more", attachment.interface)
                detach(self._pins, settings.runtime, attachment.interface)
        for name in wanted:
            attachment = attach(self._pins, settings.runtime, name, mode_for(settings, name))
            self._notes[name] = attachment.note
            log.info("%s: attached, XDP in %s mode", name, attachment.mode)
        self.look()

    def mend(self, settings: Settings, wanted: Sequence[str], links: Collection[str]) -> None:
        """Attach where we are not any more, or not yet. What is refused is said once.

        `links`: the interfaces there are. One that went took its attachment along.
        """
        whole = {one.interface for one in attached(self._pins) if one.egress}
        for name in wanted:
            if name in whole or name not in links:
                self._refused.pop(name, None)
                continue
            try:
                mode = mode_for(settings, name)
                attachment = attach_again(self._pins, settings.runtime, name, mode)
            except AttachError as error:
                if self._refused.get(name) != str(error):
                    log.error("nothing is steered on %s: %s", name, error)  # noqa: TRY400
                self._refused[name] = str(error)
                continue
            self._refused.pop(name, None)
            self._notes[name] = attachment.note
            log.warning("%s: attached again, XDP in %s mode", name, attachment.mode)
        self.look()

    def look(self) -> None:
        """Make the picture true: others may have detached what we attached."""
        try:
            self.picture = [
                {**interface, "note": self._notes.get(interface["name"], "")}
                for interface in read_interfaces(self._pins)
            ]
        except KernelError as error:
            # An interface went between two questions; the next look sees that.
            log.debug("looking at the interfaces: %s", error)


def mode_for(settings: Settings, name: str) -> str:
    """Return the XDP mode to ask for: loopback has no driver that could be native."""
    return "generic" if name == "lo" else settings.xdp_mode
