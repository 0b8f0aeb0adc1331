"""Swaps the programs of a running edge for those of another version, on every interface.

XDP by its link, the egress filter by its handle, each in one step: packets meet the one or the
other, and old and new of two halves work together. Called by `turnout upgrade`.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from turnout.errors import AttachError
from turnout.kernel import bpf
from turnout.kernel.attach import attached, replace_filter
from turnout.kernel.connectivity import Gateways
from turnout.kernel.pins import Pins

logger = logging.getLogger(__name__)


class Swap:
    """Has every interface that runs our programs run other pinned ones, without a gap.

    Made before anything that must not grow old until `run`: gateways take their time to answer.
    """

    def __init__(self, pins: Pins, programs: Mapping[str, Path], old_egress: Path) -> None:
        """`old_egress`: the filter's program to go back to; netlink does not tell what it runs."""
        self._pins = pins
        self._programs = programs
        self._old_egress = old_egress
        try:
            self._places = attached(pins)
            self._gateways = [Gateways.of(place.interface) for place in self._places]
        except NetlinkError as error:
            raise AttachError(f"the interfaces change as they are looked at: {error}") from error

    def run(self, settle: Callable[[], None] = lambda: None) -> list[str]:
        """Swap, all or none: when one refuses, or a gateway answers no more, the old ones return.

        `settle` is called when all are swapped. Returns the names of the interfaces. Raises
        AttachError.
        """
        undo: list[partial[None]] = []
        with ExitStack() as opened:
            try:
                self._swap(opened, undo)
                settle()
                for gateway in self._gateways:
                    gateway.check()
            except BaseException as error:
                for step in reversed(undo):
                    _undo(step)
                if isinstance(error, (OSError, NetlinkError)):
                    raise AttachError(f"the programs could not be swapped: {error}") from error
                raise
        return [place.interface for place in self._places]

    def _swap(self, opened: ExitStack, undo: list[partial[None]]) -> None:
        ipr = opened.enter_context(IPRoute())
        ingress = opened.enter_context(bpf.open_pin(self._programs["ingress"]))
        egress = opened.enter_context(bpf.open_pin(self._programs["egress"]))
        old = opened.enter_context(bpf.open_pin(self._old_egress))
        for place in self._places:
            link = opened.enter_context(bpf.open_pin(self._pins.link(place.ifindex)))
            before = opened.enter_context(bpf.program_by_id(bpf.link_program(link)))
            bpf.update_link(link, ingress)
            undo.append(partial(bpf.update_link, link, before))
        for place in self._places:
            if not place.egress:
                continue  # somebody removed it; the agent puts it back
            replace_filter(ipr, self._pins, place.ifindex, egress)
            undo.append(partial(replace_filter, ipr, self._pins, place.ifindex, old))


def _undo(step: partial[None]) -> None:
    try:
        step()
    except (OSError, NetlinkError) as error:
        # An interface that went meanwhile; the others go back all the same.
        logger.error("could not go back: %s", error)  # noqa: TRY400
