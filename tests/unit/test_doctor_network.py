"""What `turnout doctor` makes of the network's facts: addresses, routes, firewall, ports."""

from ipaddress import ip_address

import pytest

from turnout.doctor.finding import FAIL, OK, WARN
from turnout.kernel.facts.firewall import Firewall
from turnout.kernel.facts.links import Route
from turnout.kernel.facts.ruleset import Ruleset
from turnout.kernel.facts.sockets import HeldPort
from unit.doctor_facts import (
    FACTS,
    LINK,
    VIP,
    closed_firewall,
    findings,
    held,
    not_ok,
    ports,
)


def test_vip_that_is_not_local_fails() -> None:
    (finding,) = not_ok(addresses=frozenset({"192.0.2.3"}))
    assert finding.mend == "ip address add 192.0.2.2/32 dev eth0"


def test_no_vip_at_all_fails() -> None:
    (finding,) = not_ok(settings=FACTS.settings.replace(vips=()), routes=())
    assert (finding.level, finding.check) == (FAIL, "VIPs")


def test_way_out_by_an_interface_without_the_program_fails() -> None:
    (finding,) = not_ok(routes=(Route(VIP, "eth1"),), rp_filters={"eth0": 0})
    assert (finding.level, finding.check) == (FAIL, "way out from 192.0.2.2")
    assert "--interface eth1" in finding.mend


def test_way_out_without_a_default_route_is_fine() -> None:
    assert not_ok(routes=(Route(VIP, ""),)) == []


@pytest.mark.parametrize(("value", "level"), [(0, OK), (1, WARN), (2, OK)])
def test_rp_filter_strict_where_replies_leave_elsewhere_warns(value: int, level: str) -> None:
    settings = FACTS.settings.replace(interfaces=("eth0", "eth1"))
    changes = {
        "settings": settings,
        "links": {"eth0": LINK, "eth1": LINK},
        "rp_filters": {"eth0": 1, "eth1": value},
    }
    assert findings("rp_filter eth0", **changes)[0].level == OK
    assert findings("rp_filter eth1", **changes)[0].level == level


def test_firewall_that_closes_the_lanes_fails_once_for_all_packets() -> None:
    vips = (VIP, ip_address("fd00::2"))
    changed = FACTS.settings.replace(vips=vips, local=True)
    (finding,) = findings("firewall", settings=changed, firewall=closed_firewall())
    assert finding.level == FAIL
    assert "chain inet filter input" in finding.what
    assert "lanes 20000-20999 from eth0/lo to 192.0.2.2, fd00::2" in finding.what
    assert finding.mend == "nft insert rule inet filter input udp dport 20000-20999 accept"


def test_firewall_that_closes_some_lanes_names_those_and_mends_all() -> None:
    dport = {"payload": {"protocol": "udp", "field": "dport"}}
    some = {"match": {"op": "==", "left": dport, "right": {"range": [20000, 20099]}}}
    rule = {"chain": "input", "handle": 4, "expr": [some, {"accept": None}]}
    (finding,) = findings("firewall", firewall=closed_firewall(rule))
    assert "lanes 20100-20999 from" in finding.what
    assert "20000-20999" in finding.mend


def test_firewall_of_iptables_is_mended_with_its_tool() -> None:
    (finding,) = findings("firewall", firewall=closed_firewall(tool="iptables-legacy"))
    assert finding.mend == (
        "iptables-legacy -t filter -I input -p udp --dport 20000:20999 -j ACCEPT"
    )


def test_firewall_that_cannot_be_read_warns_and_claims_nothing() -> None:
    (finding,) = findings("firewall", firewall=Firewall(Ruleset(), ("nft is not installed",)))
    assert (finding.level, finding.what) == (WARN, "nft is not installed")


@pytest.mark.parametrize(
    ("socket", "check"),
    [
        (held("udp", "0.0.0.0", 3478), "shared port"),
        (held("udp", "192.0.2.2", 3478), "shared port"),
        (held("udp", "::", 3478), "shared port"),
        (held("udp", "127.0.0.1", 20500), "lanes"),
        (held("tcp", "::", 8080), "port of --http"),
        (held("tcp", "127.0.0.1", 9478), "port of --metrics"),
    ],
)
def test_port_of_somebody_else_fails_and_ours_is_fine(socket: HeldPort, check: str) -> None:
    (finding,) = not_ok(ports=ports(socket))
    assert (finding.level, finding.check) == (FAIL, check)
    assert "named (pid 77)" in finding.what
    assert not_ok(ports=ports(socket, ours=frozenset({77}))) == []


@pytest.mark.parametrize(
    "socket",
    [
        held("udp", "127.0.0.1", 3478),
        held("tcp", "192.0.2.2", 9478),
    ],
)
def test_port_held_on_another_address_is_free(socket: HeldPort) -> None:
    assert not_ok(ports=ports(socket)) == []


def test_lanes_in_the_ephemeral_range_warn_unless_reserved() -> None:
    (finding,) = not_ok(ports=ports(ephemeral=(20500, 60999), reserved="80"))
    assert finding.level == WARN
    assert finding.mend == "sysctl -w net.ipv4.ip_local_reserved_ports=80,20000-20999"
    assert not_ok(ports=ports(ephemeral=(20500, 60999), reserved="80,20500-21000")) == []
