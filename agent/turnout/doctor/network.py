"""The checks of `turnout doctor` that concern the network: pure, on facts."""

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address

from turnout.doctor.finding import Finding, fail, ok, warn
from turnout.doctor.firewall import check_firewall
from turnout.kernel.facts import Facts, PortUse
from turnout.kernel.facts.links import Link, Route
from turnout.kernel.facts.sockets import HeldPort
from turnout.kernel.host import is_reserved
from turnout.settings import Endpoint, Settings

# Drivers with the XDP hook in Linux 5.18, where the kernel does not report it (before 6.3). A
# name is a guess: whether this device attaches depends on its queues, MTU and offloads.
NATIVE_DRIVERS = frozenset(
    (
        *("bnxt_en", "bonding", "ena", "fsl_dpaa2_eth", "fsl_enetc", "gve", "hv_netvsc", "i40e"),
        *("ice", "igb", "igc", "ixgbe", "ixgbevf", "mlx4_en", "mlx5_core", "mvneta", "mvpp2"),
        *("nfp", "nicvf", "qede", "sfc", "stmmaceth", "tun", "veth", "vif", "virtio_net"),
    )
)
_MINIMUM_MTU = 1280  # RFC 8200 section 5, and what WebRTC stacks build their packets for
_STRICT = 1  # rp_filter of Documentation/networking/ip-sysctl


def examine_network(facts: Facts) -> list[Finding]:
    """Return the findings on interfaces, addresses, routes, firewall and ports."""
    settings = facts.settings
    findings = list(check_interfaces(settings, facts.links))
    findings += check_vips(settings, facts.addresses, facts.links)
    findings += check_advertised(settings)
    findings += check_routes(settings, facts.routes)
    findings += check_rp_filter(settings, facts.routes, facts.rp_filters)
    findings += check_firewall(settings, facts.firewall)
    findings += check_ports(settings, facts.ports)
    return findings


def check_interfaces(settings: Settings, links: Mapping[str, Link]) -> Iterator[Finding]:
    """Look at each interface that would get the programs, then at all of them together."""
    if not settings.attach_interfaces:
        yield fail(
            "interfaces",
            "none given, and no default route to choose one by",
            "the programs need an interface that clients' packets arrive on",
            "name one: turnout doctor --interface NAME",
        )
    for name in settings.attach_interfaces:
        check = f"interface {name}"
        link = links.get(name)
        if link is None:
            yield fail(check, "does not exist", "nothing can be attached to it", "ip -br link")
            continue
        yield from _check_link(check, link)
        yield _check_native(check, link, "generic" if name == "lo" else settings.xdp_mode)
        yield _check_foreign(check, link, settings.instance)
    for name in settings.attach_interfaces:
        carried = set(links[name].below) & set(settings.attach_interfaces) if name in links else ()
        for lower in sorted(carried):
            yield fail(
                f"interface {name}",
                f"runs on top of {lower}, which is given too",
                "each packet would be steered twice, and the second time it comes to a lane",
                f"leave out --interface {lower} or --interface {name}",
            )


def _check_link(check: str, link: Link) -> Iterator[Finding]:
    if not link.interface.ethernet:
        yield fail(
            check,
            f"is no Ethernet interface ({link.driver or 'unknown driver'})",
            "the programs read Ethernet frames",
            "name an interface with Ethernet frames: ip -br link",
        )
    if not link.interface.up:
        yield fail(check, "is down", "no packet arrives", f"ip link set {link.interface.name} up")
    if link.interface.mtu < _MINIMUM_MTU:
        yield warn(
            check,
            f"MTU {link.interface.mtu} is less than {_MINIMUM_MTU}",
            "DTLS flights and media packets of up to 1,200 bytes may not pass, IPv6 does not run",
            f"ip link set {link.interface.name} mtu {_MINIMUM_MTU}",
        )
    if link.interface.ethernet and link.interface.up:
        yield ok(check, f"up, MTU {link.interface.mtu}, driver {link.driver or 'without a name'}")


def _check_native(check: str, link: Link, mode: str) -> Finding:
    """Say which XDP modes there are, and how that is known."""
    if link.native is None:
        native = link.driver in NATIVE_DRIVERS
        source = "a guess by the driver's name, this kernel does not report it"
    else:
        native, source = link.native, "reported by the kernel for this driver"
    if native:
        rest = "; the attach itself may still refuse (queues, MTU, offloads)"
        return ok(check, f"XDP native and generic, native {source}{rest}")
    if mode == "native":
        return warn(
            check,
            f"no native XDP ({source})",
            "--xdp-mode native is asked for; generic is what it would get",
            "leave --xdp-mode at generic, or name an interface whose driver has the hook",
        )
    return ok(check, f"XDP generic only ({source})")


def _check_foreign(check: str, link: Link, instance: str) -> Finding:
    xdp = link.xdp
    if xdp is None:
        return ok(check, "no XDP program attached")
    name = f"{xdp.name!r}, id {xdp.id}, {xdp.mode}"
    if xdp.instance == instance:
        return ok(check, f"the program attached is this instance's ({name})")
    if xdp.instance:
        return fail(
            check,
            f"instance {xdp.instance} is attached ({name})",
            "an interface takes one XDP program",
            f"name another --interface, or turnout down --instance {xdp.instance}",
        )
    return fail(
        check,
        f"a foreign XDP program is attached ({name})",
        "turnout attaches only where there is none, so as not to remove somebody's program",
        f"name another --interface, or find out whose it is and end that: "
        f"bpftool prog show id {xdp.id}; bpftool net; bpftool link",
    )


def check_vips(
    settings: Settings, addresses: frozenset[str], links: Mapping[str, Link]
) -> Iterator[Finding]:
    """Look whether each VIP is an address of this host."""
    if not settings.vips:
        yield fail(
            "VIPs",
            "none given, and no address to choose by itself",
            "clients need an address to send to",
            "name one: turnout doctor --vip ADDRESS",
        )
    present = {ip_address(text) for text in addresses}
    for vip in settings.vips:
        if vip in present:
            yield ok(f"VIP {vip}", "is an address of this host")
            continue
        device = next((name for name in settings.interfaces if name in links), "lo")
        yield fail(
            f"VIP {vip}",
            "is no address of this host",
            "the shared port cannot be bound to it and its packets are not taken in",
            f"ip address add {vip}/{vip.max_prefixlen} dev {device}",
        )


def check_advertised(settings: Settings) -> Iterator[Finding]:
    """Look whether clients elsewhere can get to what they would be told."""
    hidden = settings.hidden_vips(settings.vips)
    for vip in settings.vips:
        check = f"address told for {vip}"
        public = settings.advertised_for(vip, settings.vips)
        if vip in hidden:
            yield warn(
                check,
                "itself, a private address",
                "clients on the Internet cannot send there; behind a cloud's 1:1 NAT they need "
                "the public address",
                f"turnout run --advertise PUBLIC={vip}",
            )
        else:
            yield ok(check, ", ".join(map(str, public)) or "itself")


def check_routes(settings: Settings, routes: Sequence[Route]) -> Iterator[Finding]:
    """Look whether replies leave through the egress program."""
    attached = settings.attach_interfaces
    for route in routes:
        check = f"way out from {route.vip}"
        if not route.interface:
            yield ok(check, "no route to the outside: clients on attached networks only")
        elif route.interface in attached:
            yield ok(check, f"by {route.interface}")
        elif not route.vip.is_loopback:
            yield fail(
                check,
                f"replies to clients leave by {route.interface}, where the egress program is not",
                "they would leave with the lane as source port, and clients drop them",
                f"add --interface {route.interface}, or route replies by {' or '.join(attached)}",
            )


def check_rp_filter(
    settings: Settings, routes: Sequence[Route], rp_filters: Mapping[str, int]
) -> Iterator[Finding]:
    """Look for strict reverse path filters on interfaces that replies do not leave by."""
    outs = {route.interface for route in routes if route.vip.version == 4 and route.interface}
    for name in settings.interfaces:
        if name not in rp_filters:
            continue
        strict = rp_filters[name] == _STRICT
        if strict and outs and name not in outs:
            yield warn(
                f"rp_filter {name}",
                f"strict, while replies leave by {' and '.join(sorted(outs))}",
                "IPv4 packets of clients that are not routed by the interface they came in on are "
                "dropped after XDP, without a counter of ours",
                f"sysctl -w net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{name}.rp_filter=2",
            )
        else:
            yield ok(f"rp_filter {name}", "strict, and routes are symmetric" if strict else "fine")


def check_ports(settings: Settings, ports: PortUse) -> Iterator[Finding]:
    """Look whether the ports are free or held by this very instance, and stay free."""
    shared = [
        held
        for held in ports.held
        if held.protocol == "udp"
        and any(held.clashes(v, settings.shared_port) for v in settings.vips)
    ]
    yield _port_finding(
        "shared port", f"{settings.shared_port}/udp", shared, ports.ours, "--shared-port"
    )
    lanes = [
        held
        for held in ports.held
        if held.protocol == "udp" and settings.lane_first <= held.port <= settings.lane_last
    ]
    text = f"{settings.lane_first}-{settings.lane_last}/udp"
    yield _port_finding("lanes", text, lanes, ports.ours, "--lanes")
    yield _check_ephemeral(settings, ports)
    for flag, endpoint in (("--http", settings.http), ("--metrics", settings.metrics)):
        held = [one for one in ports.held if one.protocol == "tcp" and _clashes(one, endpoint)]
        yield _port_finding(f"port of {flag}", f"{endpoint}/tcp", held, ports.ours, flag)


def _clashes(held: HeldPort, endpoint: Endpoint) -> bool:
    try:
        return held.clashes(ip_address(endpoint.host), endpoint.port)
    except ValueError:
        return held.port == endpoint.port  # a name: which addresses it has is not looked up


def _port_finding(
    check: str, text: str, held: Sequence[HeldPort], ours: frozenset[int], flag: str
) -> Finding:
    foreign = [one for one in held if one.pid not in ours]
    if not foreign:
        return ok(check, f"{text}: {'held by this instance' if held else 'free'}")
    who = "; ".join(str(one) for one in foreign[:3])
    more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
    return fail(
        check,
        f"{text} is taken: {who}{more}",
        "an edge binds it and cannot start while somebody else holds it",
        f"end that process, or choose another with {flag}",
    )


def _check_ephemeral(settings: Settings, ports: PortUse) -> Finding:
    first, last = settings.lane_first, settings.lane_last
    low, high = ports.ephemeral
    if last < low or high < first:
        return ok("ephemeral ports", f"{low}-{high}, outside the lanes")
    if is_reserved(max(first, low), min(last, high), ports.reserved):
        return ok("ephemeral ports", "the lanes are in net.ipv4.ip_local_reserved_ports")
    text = ",".join(part for part in (ports.reserved, f"{first}-{last}") if part)
    return warn(
        "ephemeral ports",
        f"lanes {first}-{last} overlap net.ipv4.ip_local_port_range {low}-{high}",
        "until they are reserved any socket of the host can be given a lane's port; `turnout run` "
        "reserves them when it starts",
        f"sysctl -w net.ipv4.ip_local_reserved_ports={text}",
    )
