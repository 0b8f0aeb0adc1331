"""What must hold of the settings of an edge together. Called by Settings when it is made."""

import re
from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from turnout.logs import LOG_LEVELS
from turnout.settings.values import (
    OWNERS_MAX,
    VIPS_MAX,
    XDP_MODES,
    Address,
    refuse,
)

if TYPE_CHECKING:
    from turnout.settings.edge import Settings

# bpffs takes no dot in a name, and the instance is a directory there.
_INSTANCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
# IFNAMSIZ is 16 with the NUL; the kernel refuses '/', ':' and white space.
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
# useradd(8) takes no other name; or a number.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}|[1-9][0-9]{0,9}")

# 1 GB of flows: more than the clients of one host, and the kernel's maps still take it.
ENTRIES_MOST = 1 << 24
DRAIN_MOST_S = 24 * 3600


def check(settings: "Settings") -> None:
    """Raise SettingsError for the first thing that does not hold."""
    _check_names(settings)
    _check_vips(settings)
    _check_advertise(settings)
    _check_ports(settings)
    _check_upstreams(settings)
    _check_tables(settings)
    if not 0 <= settings.drain_on_stop <= DRAIN_MOST_S:
        raise refuse(
            "drain-on-stop", settings.drain_on_stop, f"must be 0 to {DRAIN_MOST_S} seconds"
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        given = "tls-cert" if settings.tls_key is None else "tls-key"
        other = "tls-key" if settings.tls_key is None else "tls-cert"
        value = settings.tls_cert or settings.tls_key
        raise refuse(given, value, f"needs {other} beside it")


def _check_names(settings: "Settings") -> None:
    for name in settings.interfaces:
        if name == "lo":
            raise refuse("interface", name, "the loopback interface is switched on by --local")
        if not _INTERFACE.fullmatch(name):
            raise refuse("interface", repr(name), "must be a network interface's name")
    _check_unique("interface", settings.interfaces)
    if not _INSTANCE.fullmatch(settings.instance):
        allowed = "must be 1 to 32 of a-z, 0-9, - and _, e.g. default"
        raise refuse("instance", repr(settings.instance), allowed)
    user = settings.transceiver_user
    if user and (not _USER.fullmatch(user) or user == "root"):
        allowed = "must be the name or number of a user that is not root, e.g. turnout"
        raise refuse("transceiver-user", repr(user), allowed)
    if settings.xdp_mode not in XDP_MODES:
        raise refuse("xdp-mode", settings.xdp_mode, f"must be {' or '.join(XDP_MODES)}")
    if settings.log_level not in LOG_LEVELS:
        raise refuse("log-level", settings.log_level, f"must be one of {', '.join(LOG_LEVELS)}")
    for key, path in (("bpffs", settings.bpffs), ("runtime-root", settings.runtime_root)):
        if not path.is_absolute():
            raise refuse(key, path, "must be an absolute path")


def _check_vips(settings: "Settings") -> None:
    if len(settings.vips) > VIPS_MAX:
        raise refuse("vip", f"({len(settings.vips)} of them)", f"at most {VIPS_MAX} are allowed")
    _check_unique("vip", settings.vips)
    for vip in settings.vips:
        _check_host_address("vip", vip)
        if vip.is_loopback and not settings.local:
            raise refuse("vip", vip, "a loopback address needs --local")


def _check_host_address(key: str, address: Address) -> None:
    if address.is_unspecified or address.is_multicast:
        raise refuse(key, address, "must be one host's address, e.g. 192.0.2.2")
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            raise refuse(key, address, f"write it as {address.ipv4_mapped}")
        if address.is_link_local:
            raise refuse(key, address, "a link-local address means nothing to a client elsewhere")


def _check_advertise(settings: "Settings") -> None:
    if len(settings.advertise) > VIPS_MAX:
        count = f"({len(settings.advertise)} of them)"
        raise refuse("advertise", count, f"at most {VIPS_MAX} are allowed")
    _check_unique("advertise", [entry.public for entry in settings.advertise])
    for entry in settings.advertise:
        _check_host_address("advertise", entry.public)
        if entry.vip is not None and entry.vip.version != entry.public.version:
            raise refuse("advertise", entry, "both must be IPv4, or both IPv6")
        # VIPs that nobody named are known when the host was asked for them, not here.
        if settings.vips:
            _check_has_vip(settings, entry.public, entry.vip)


def _check_has_vip(settings: "Settings", public: Address, vip: Address | None) -> None:
    named = ", ".join(str(one) for one in settings.vips)
    if vip is not None:
        if vip not in settings.vips:
            raise refuse("advertise", f"{public}={vip}", f"{vip} is no VIP; they are {named}")
        return
    same = [one for one in settings.vips if one.version == public.version]
    # The host's defaults may become several in time; then the first one is meant.
    if len(same) == 0 or (len(same) > 1 and not settings.follow_vips):
        raise refuse(
            "advertise",
            public,
            f"{len(same)} of the VIPs ({named}) are IPv{public.version}: name one, {public}=VIP",
        )


def _check_ports(settings: "Settings") -> None:
    _check_port("shared-port", settings.shared_port)
    first, last = settings.lane_first, settings.lane_last
    lanes = f"{first}-{last}"
    # Below 1024 a transceiver would need a privilege for nothing but its port.
    if not 1024 <= first <= last <= 65535:
        raise refuse("lanes", lanes, "must be FIRST-LAST within 1024-65535, e.g. 20000-20999")
    if first <= settings.shared_port <= last:
        raise refuse("shared-port", settings.shared_port, f"must be outside the lanes {lanes}")
    most = min(last - first + 1, OWNERS_MAX)
    if not 0 <= settings.transceivers <= most:
        raise refuse(
            "transceivers", settings.transceivers, f"must be 0 to {most}: one lane of {lanes} each"
        )
    for key, endpoint in (("http", settings.http), ("metrics", settings.metrics)):
        _check_port(key, endpoint.port)
    if settings.http == settings.metrics:
        raise refuse("metrics", settings.metrics, "is the address of --http already")


def _check_upstreams(settings: "Settings") -> None:
    first, last = settings.lane(settings.transceivers), settings.lane_last
    _check_unique("upstream", [upstream.name for upstream in settings.upstreams])
    _check_unique("upstream", [upstream.lane for upstream in settings.upstreams])
    for number, upstream in enumerate(settings.upstreams, 1):
        if not first <= upstream.lane <= last:
            raise refuse(
                f"upstream[{number}].lane",
                upstream.lane,
                f"must be {first} to {last}: a lane that none of our transceivers has",
            )


def _check_tables(settings: "Settings") -> None:
    for key, entries in (
        ("flow-table", settings.flow_table),
        ("session-table", settings.session_table),
    ):
        if not 1024 <= entries <= ENTRIES_MOST:
            raise refuse(key, entries, f"must be 1024 to {ENTRIES_MOST}")


def _check_port(key: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise refuse(key, port, "must be a port from 1 to 65535")


def _check_unique(key: str, values: Sequence[object]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise refuse(key, value, "is given twice")
