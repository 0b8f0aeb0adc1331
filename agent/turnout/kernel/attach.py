"""Attaches the pinned programs to interfaces, carefully, and takes away only what is ours.

XDP goes through a pinned bpf_link: it cannot be replaced by accident, its program is swapped in
one step, and it ends with its pin. TC goes through clsact (tcx needs 6.6) with an explicit
handle and a name that carries the instance. Called by the edge and by `turnout down`;
swap.py swaps what is attached.
"""

import errno
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from turnout.errors import AttachError, ForeignProgram, StackedDevices
from turnout.files import write_whole
from turnout.kernel import bpf
from turnout.kernel.connectivity import Gateways
from turnout.kernel.host import (
    Interface,
    interface,
    interfaces,
    interfaces_below,
    network_namespace,
)
from turnout.kernel.pins import Pins

logger = logging.getLogger(__name__)

FILTER_HANDLE = 0x7475
FILTER_PRIORITY = 0x7475
_CLSACT_PARENT = 0xFFFFFFF1
_CLSACT_HANDLE = 0xFFFF0000
_INGRESS_PARENT = 0xFFFFFFF2
_EGRESS_PARENT = 0xFFFFFFF3
_ETH_P_ALL = 3
_DIRECT_ACTION = 1  # TCA_BPF_FLAG_ACT_DIRECT
_RECORD = "attachments.json"


@dataclass(frozen=True, slots=True)
class Attachment:
    """Where the programs are, as the kernel says. `note`: why the mode is not as asked."""

    interface: str
    ifindex: int
    mode: str
    egress: bool  # our filter is there
    note: str


def attach(pins: Pins, runtime: Path, name: str, mode: str) -> Attachment:
    """Attach both programs to an interface, or swap them in place where they are ours already.

    `mode`: "native" or "generic"; native falls back to generic where the driver refuses it, with
    a note. Undone when a gateway that answered before answers no more; but what an agent before
    has attached stays, whatever becomes of the host's network meanwhile: calls go through it.
    Raises ForeignProgram, StackedDevices, AttachError.
    """
    link = interface(name)
    _check_fit(pins, link)
    stays = _runs_there(pins, link)
    gateways = Gateways(name, []) if stays else Gateways.of(name)
    note = _attach_xdp(pins, link, mode)
    try:
        _attach_filter(pins, runtime, link)
        gateways.check()
    except BaseException:
        if not stays:
            detach(pins, runtime, name)
        raise
    return Attachment(name, link.index, interface(name).xdp_mode, egress=True, note=note)


def detach(pins: Pins, runtime: Path, name: str) -> list[str]:
    """Detach ours from one interface; what was removed, a line each."""
    removed = []
    with IPRoute() as ipr:
        for link in interfaces(ipr):
            if link.name != name:
                continue
            pin = pins.link(link.index)
            if pin.exists():
                _remove_link(pin)
                removed.append(f"detached XDP ({name})")
            removed += _remove_filter(ipr, pins, runtime, link)
    return removed


def detach_all(pins: Pins, runtime: Path) -> list[str]:
    """Detach and unpin everything of this instance in this network namespace, and nothing else."""
    removed = [f"detached XDP ({place.interface})" for place in attached(pins)]
    for pin in pins.links():
        _remove_link(pin)
    with IPRoute() as ipr:
        for link in interfaces(ipr):
            removed += _remove_filter(ipr, pins, runtime, link)
    removed += [f"unpinned {path}" for path in pins.remove()]
    (runtime / _RECORD).unlink(missing_ok=True)
    return removed


def attached(pins: Pins) -> list[Attachment]:
    """Where this instance's XDP program is now, by its pinned links."""
    found = []
    with IPRoute() as ipr:
        by_index = {link.index: link for link in interfaces(ipr)}
        for pin in pins.links():
            with bpf.open_pin(pin) as fd:
                link = by_index.get(bpf.link_ifindex(fd))
            if link is not None:
                egress = _has_clsact(ipr, link.index) and _filter_name(pins) in _filter_names(
                    ipr, link.index, _EGRESS_PARENT
                )
                found.append(Attachment(link.name, link.index, link.xdp_mode, egress, ""))
    return found


def _check_fit(pins: Pins, link: Interface) -> None:
    if not link.ethernet:
        msg = f"{link.name} is not Ethernet ({link.kind or 'unknown kind'}): XDP cannot steer there"
        raise AttachError(msg)
    if link.xdp_program and not _is_ours(pins, link):
        owner = _describe_program(link.xdp_program)
        msg = (
            f"{link.name} has an XDP program that is not ours: {owner}, {link.xdp_mode} mode. "
            f"See `bpftool net show dev {link.name}` for whose it is and have it removed there, "
            "or choose another --interface"
        )
        raise ForeignProgram(msg)
    every = interfaces()
    taken = {a.ifindex for a in attached(pins)} - {link.index}
    for other in every:
        if other.index not in taken:
            continue
        if other in interfaces_below(link, every) or link in interfaces_below(other, every):
            msg = (
                f"{link.name} and {other.name} are stacked: a packet would pass both programs "
                "and the lane guard would drop it. Name only one of them with --interface"
            )
            raise StackedDevices(msg)


def _is_ours(pins: Pins, link: Interface) -> bool:
    pin = pins.link(link.index)
    if not pin.exists():
        return False
    with bpf.open_pin(pin) as fd:
        return bpf.link_ifindex(fd) == link.index


def _runs_there(pins: Pins, link: Interface) -> bool:
    """Tell whether the interface runs the very program that would be attached."""
    if not _is_ours(pins, link):
        return False
    with (
        bpf.open_pin(pins.link(link.index)) as fd,
        bpf.open_pin(pins.loaded_program("ingress")) as program,
    ):
        return bpf.link_program(fd) == bpf.program_info(program).id


def _describe_program(program_id: int) -> str:
    try:
        with bpf.program_by_id(program_id) as fd:
            return f"{bpf.program_info(fd).name!r}, id {program_id}"
    except OSError:
        return f"id {program_id}"


def _attach_xdp(pins: Pins, link: Interface, mode: str) -> str:
    """Attach or swap; return a note when the mode is not what was asked for."""
    pin = pins.link(link.index)
    with bpf.open_pin(pins.loaded_program("ingress")) as program:
        if _is_ours(pins, link):
            with bpf.open_pin(pin) as fd:
                bpf.update_link(fd, program)
            # A link keeps its mode for life.
            kept = link.xdp_mode != mode
            return f"attached in {link.xdp_mode} mode already; `turnout down` first" if kept else ""
        pin.unlink(missing_ok=True)  # of an interface that is gone and had this index
        fd, note = _create_link(program, link, mode)
        with fd:
            bpf.pin(fd, pin)
        return note


def _create_link(program: int, link: Interface, mode: str) -> tuple[bpf.Fd, str]:
    note = ""
    if mode == "native":
        try:
            return bpf.create_xdp_link(program, link.index, bpf.XDP_FLAGS_DRV_MODE), note
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise _taken(link, error) from error
            note = f"native mode refused by {link.name} ({error.strerror}); generic instead"
            logger.warning("%s", note)
    try:
        return bpf.create_xdp_link(program, link.index, bpf.XDP_FLAGS_SKB_MODE), note
    except OSError as error:
        raise _taken(link, error) from error


def _taken(link: Interface, error: OSError) -> AttachError:
    if error.errno == errno.EBUSY:
        return ForeignProgram(f"{link.name} was given another XDP program just now: {error}")
    return AttachError(f"cannot attach XDP to {link.name}: {error}")


def _remove_link(pin: Path) -> None:
    with bpf.open_pin(pin) as fd:
        try:
            bpf.detach_link(fd)
        except OSError as error:
            # ENOLINK: the interface went, and the attachment with it.
            if error.errno not in (errno.ENOLINK, errno.EOPNOTSUPP):
                raise
    pin.unlink()


def _filter_name(pins: Pins) -> str:
    return f"turnout:{pins.instance}:egress"


def _attach_filter(pins: Pins, runtime: Path, link: Interface) -> None:
    with IPRoute() as ipr:
        if not _has_clsact(ipr, link.index):
            # Before it is added: whoever is killed in between leaves a record, not a qdisc.
            _record(runtime, [*_recorded(runtime), link.index])
            try:
                ipr.tc("add", "clsact", link.index)
            except NetlinkError as error:
                msg = f"cannot add clsact to {link.name}: {error}"
                raise AttachError(msg) from error
        for name in _filter_names(ipr, link.index, _EGRESS_PARENT):
            if name is not None and name != _filter_name(pins):
                msg = f"{link.name} has a filter {name!r} at handle {FILTER_HANDLE:#x}: remove it"
                raise ForeignProgram(msg)
        with bpf.open_pin(pins.loaded_program("egress")) as program:
            replace_filter(ipr, pins, link.index, program)


def replace_filter(ipr: IPRoute, pins: Pins, index: int, program: int) -> None:
    """Add the filter, or swap its program in one step: the same handle and priority."""
    ipr.tc(
        "replace-filter",
        "bpf",
        index,
        FILTER_HANDLE,
        fd=int(program),
        name=_filter_name(pins),
        parent=_EGRESS_PARENT,
        prio=FILTER_PRIORITY,
        protocol=_ETH_P_ALL,
        flags=_DIRECT_ACTION,
    )


def _has_clsact(ipr: IPRoute, index: int) -> bool:
    return any(q.get_attr("TCA_KIND") == "clsact" for q in ipr.get_qdiscs(index=index))


def _filter_names(ipr: IPRoute, index: int, parent: int, *, ours: bool = True) -> list[str | None]:
    """Names of the bpf filters under a parent; `ours`: only of our handle and priority."""
    names = []
    for message in ipr.get_filters(index=index, parent=parent):
        options = message.get_attr("TCA_OPTIONS")
        if not message["handle"] or options is None:
            continue
        mine = message["handle"] == FILTER_HANDLE and message["info"] >> 16 == FILTER_PRIORITY
        if mine or not ours:
            names.append(options.get_attr("TCA_BPF_NAME"))
    return names


def _remove_filter(ipr: IPRoute, pins: Pins, runtime: Path, link: Interface) -> list[str]:
    if not _has_clsact(ipr, link.index):
        return []
    removed = []
    if _filter_name(pins) in _filter_names(ipr, link.index, _EGRESS_PARENT):
        ipr.tc(
            "del-filter",
            "bpf",
            link.index,
            FILTER_HANDLE,
            parent=_EGRESS_PARENT,
            prio=FILTER_PRIORITY,
            protocol=_ETH_P_ALL,
        )
        removed.append(f"removed the egress filter of {link.name}")
    left = [
        name
        for parent in (_INGRESS_PARENT, _EGRESS_PARENT)
        for name in _filter_names(ipr, link.index, parent, ours=False)
    ]
    recorded = _recorded(runtime)
    if link.index in recorded and not left:
        ipr.tc("del", "clsact", link.index)
        _record(runtime, [index for index in recorded if index != link.index])
        removed.append(f"removed clsact of {link.name}")
    return removed


def _recorded(runtime: Path) -> list[int]:
    """Indexes of the interfaces whose clsact we added: one that was there before stays there."""
    path = runtime / _RECORD
    if not path.exists():
        return []
    record = json.loads(path.read_text())
    # Those of another network namespace mean nothing in this one.
    return list(record["clsact"]) if record["netns"] == network_namespace() else []


def _record(runtime: Path, indexes: list[int]) -> None:
    record = {"netns": network_namespace(), "clsact": indexes}
    write_whole(runtime / _RECORD, json.dumps(record))
