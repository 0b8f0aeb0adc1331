"""Network interfaces and routes as `turnout doctor` needs to know them, by netlink, read-only.

Everything is asked of the network namespace the process is in: sysfs is not used, because it shows
the namespace it was mounted in. Called by kernel/facts/.
"""

import array
import contextlib
import errno
import fcntl
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from turnout.kernel import bpf
from turnout.kernel.host import Interface, interfaces, interfaces_below

Address = IPv4Address | IPv6Address

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 0x3
_DRVINFO_BYTES = 196  # struct ethtool_drvinfo
_NETDEV_CMD_DEV_GET = 1
_XDP_BASIC = 1 << 0  # NETDEV_XDP_ACT_BASIC: the driver has the hook
# RFC 5737 and RFC 3849: addresses that nobody has stand for a client somewhere.
A_CLIENT: dict[int, Address] = {
    4: IPv4Address("198.51.100.1"),
    6: IPv6Address("2001:db8::1"),
}


@dataclass(frozen=True, slots=True)
class XdpProgram:
    """An XDP program on an interface. `name` is empty when the kernel would not tell it.

    `instance` is the edge of this host whose program it is, empty for a stranger's.
    """

    id: int
    name: str
    mode: str  # native, generic, or another as the kernel names it
    instance: str


@dataclass(frozen=True, slots=True)
class Link:
    """One interface. `native`: what the kernel reports of its driver; None: it reports nothing."""

    interface: Interface
    driver: str
    native: bool | None
    xdp: XdpProgram | None
    below: tuple[str, ...]  # the interfaces it runs on top of, all the way down


@dataclass(frozen=True, slots=True)
class Route:
    """How a reply from `vip` leaves: `interface` is empty when there is no route to clients."""

    vip: Address
    interface: str


def read_links(names: Collection[str], instances: Mapping[int, str]) -> dict[str, Link]:
    """Describe the interfaces that exist; `instances`: ifindex -> the edge attached there.

    A name that is missing in the answer does not exist.
    """
    every = interfaces()
    natives = _native_by_index()
    return {
        link.name: Link(
            interface=link,
            driver=_driver(link.name) or link.kind,
            native=natives.get(link.index),
            xdp=_xdp(link, instances),
            below=tuple(other.name for other in interfaces_below(link, every)),
        )
        for link in every
        if link.name in names
    }


def local_addresses() -> frozenset[str]:
    """Return every address of this namespace, as text."""
    with IPRoute() as netlink:
        return frozenset(
            message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            for message in netlink.get_addr()
        )


def reply_routes(vips: Sequence[Address]) -> list[Route]:
    """Ask the kernel which way a reply from each VIP to a client somewhere would go."""
    routes = []
    with IPRoute() as netlink:
        for vip in vips:
            client = A_CLIENT[vip.version]
            try:
                answer = netlink.route("get", dst=str(client), src=str(vip))
                index = answer[0].get_attr("RTA_OIF")
                name = netlink.get_links(index)[0].get_attr("IFLA_IFNAME") if index else ""
            except NetlinkError as error:
                # EINVAL: the VIP is not an address of this host, which is a finding of its own.
                if error.code not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL):
                    raise
                name = ""
            routes.append(Route(vip, name))
    return routes


def rp_filter(interface: str) -> int:
    """Return the reverse path filter that is in force: the higher of `all` and the interface's."""
    values = [0]
    for name in ("all", interface):
        with contextlib.suppress(FileNotFoundError):
            text = Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").read_text(encoding="ascii")
            values.append(int(text))
    return max(values)


def _xdp(link: Interface, instances: Mapping[int, str]) -> XdpProgram | None:
    if not link.xdp_program:
        return None
    name = _program_name(link.xdp_program)
    return XdpProgram(link.xdp_program, name, link.xdp_mode, instances.get(link.index, ""))


def _program_name(program_id: int) -> str:
    try:
        with bpf.program_by_id(program_id) as program:
            return bpf.program_info(program).name
    except OSError:
        return ""  # without CAP_SYS_ADMIN ids cannot be opened


def _driver(name: str) -> str:
    """Ask ethtool for the driver's name; empty where a device has none to tell."""
    info = array.array("B", struct.pack("I", _ETHTOOL_GDRVINFO).ljust(_DRVINFO_BYTES, b"\0"))
    request = struct.pack("16sP", name.encode(), info.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
        except OSError:
            return ""
    return info.tobytes()[4:36].rstrip(b"\0").decode(errors="replace")


class _DeviceMessage(genlmsg):  # type: ignore[misc] # pyroute2 has no types
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def _native_by_index() -> dict[int, bool]:
    """Ask the netdev family (Linux 6.3 and newer) which drivers have the XDP hook."""
    with contextlib.closing(GenericNetlinkSocket()) as netlink:
        try:
            netlink.bind("netdev", _DeviceMessage)
        except (NetlinkError, KeyError):
            return {}
        request = _DeviceMessage()
        request["cmd"], request["version"] = _NETDEV_CMD_DEV_GET, 1
        answers = netlink.nlm_request(
            request, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST | NLM_F_DUMP
        )
        return {
            answer.get_attr("NETDEV_A_DEV_IFINDEX"): bool(
                answer.get_attr("NETDEV_A_DEV_XDP_FEATURES") & _XDP_BASIC
            )
            for answer in answers
        }
