"""The walk through a firewall's rules, held against rulesets as nft and iptables print them."""

import json
from ipaddress import ip_address
from typing import Any

import pytest

from turnout.kernel.facts.firewall import opaque_families
from turnout.kernel.facts.iptables import parse_iptables_save
from turnout.kernel.facts.rule_match import Packet
from turnout.kernel.facts.ruleset import Blocked, Ruleset
from turnout.kernel.facts.sockets import parse_sockets

ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}


def match(left: dict[str, Any], right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def payload(protocol: str, name: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


DPORT = payload("udp", "dport")
SPORT = payload("udp", "sport")
CT_STATE = {"ct": {"key": "state"}}


def chain(name: str = "input", hook: str = "input", **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"family": "inet", "table": "t", "name": name}
    if hook:
        body |= {"hook": hook, "type": "filter", "prio": 0, "policy": "drop"}
    return {"chain": body | more}


def rules(*lists: list[dict[str, Any]], chain: str = "input") -> list[dict[str, Any]]:
    head: dict[str, Any] = {"family": "inet", "table": "t", "chain": chain}
    return [
        {"rule": head | {"handle": number, "expr": expressions}}
        for number, expressions in enumerate(lists, 1)
    ]


def walk(
    objects: list[dict[str, Any]],
    *,
    direction: str = "in",
    interface: str = "eth0",
    vip: str = "192.0.2.2",
    lane: int = 20000,
) -> list[Blocked]:
    ruleset = Ruleset()
    ruleset.add("nft", objects)
    return ruleset.walk(Packet(direction, interface, ip_address(vip), lane))


LETS_THROUGH = {
    "port": [[match(DPORT, 20000), ACCEPT]],
    "range": [[match(DPORT, {"range": [20000, 20999]}), {"counter": {}}, ACCEPT]],
    "set": [[match(DPORT, {"set": [53, {"range": [19000, 20000]}]}), ACCEPT]],
    "transport header": [[match(payload("th", "dport"), 20000), ACCEPT]],
    "comparison": [[match(DPORT, 1024, ">="), ACCEPT]],
    "not the others": [[match(DPORT, {"range": [0, 19999]}, "!="), ACCEPT]],
    "protocol": [[match(meta("l4proto"), {"set": ["tcp", "udp"]}), ACCEPT]],
    "ip protocol": [[match(payload("ip", "protocol"), "udp"), ACCEPT]],
    "interface": [[match(meta("iifname"), "eth*"), ACCEPT]],
    "address": [
        [match(payload("ip", "daddr"), {"prefix": {"addr": "192.0.2.0", "len": 24}}), ACCEPT]
    ],
    "address range": [
        [match(payload("ip", "daddr"), {"range": ["192.0.2.1", "192.0.2.9"]}), ACCEPT]
    ],
    "local destination": [
        [match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), ACCEPT]
    ],
    "new connections": [[match(CT_STATE, ["new", "established"], "in"), ACCEPT]],
    "verdict map": [[{"vmap": {"key": DPORT, "data": {"set": [[22, DROP], [20000, ACCEPT]]}}}]],
    "concatenation": [
        [
            match(
                {"concat": [meta("iifname"), DPORT]},
                {"set": [{"concat": ["eth0", {"range": [20000, 20999]}]}]},
            ),
            ACCEPT,
        ]
    ],
    "element with a comment": [
        [match(DPORT, {"set": [{"elem": {"val": 20000, "comment": "lane"}}]}), ACCEPT]
    ],
    "drops of others before it": [
        [match(CT_STATE, "invalid", "in"), DROP],
        [match(meta("nfproto"), "ipv6"), DROP],
        [match(payload("tcp", "dport"), 20000), DROP],
        [match(meta("pkttype"), {"set": ["broadcast", "multicast"]}), DROP],
        [match(payload("ip", "saddr"), "203.0.113.9"), DROP],
        [match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False), DROP],
        [ACCEPT],
    ],
}

STOPS = {
    "no rule": [],
    "only the shared port": [[match(DPORT, 3478), ACCEPT]],
    "only what is known": [[match(CT_STATE, ["established", "related"], "in"), ACCEPT]],
    "another interface": [[match(meta("iifname"), {"set": ["lo", "eth1"]}), ACCEPT]],
    "another address": [[match(payload("ip", "daddr"), "192.0.2.3"), ACCEPT]],
    "other family": [[match(payload("ip6", "daddr"), "fd00::2"), ACCEPT]],
    "some sources of any kind": [
        [match(payload("ip", "saddr"), {"prefix": {"addr": "10.0.0.0", "len": 8}}), ACCEPT]
    ],
    "drop before accept": [[match(meta("l4proto"), "udp"), DROP], [ACCEPT]],
    "reject": [[{"log": {"prefix": "no"}}, {"reject": {}}], [ACCEPT]],
    "verdict map": [[{"vmap": {"key": DPORT, "data": {"set": [[20000, DROP]]}}}], [ACCEPT]],
}


@pytest.mark.parametrize("expressions", LETS_THROUGH.values(), ids=LETS_THROUGH)
def test_walk_rule_that_accepts_the_lane_lets_it_through(expressions: list[Any]) -> None:
    assert walk([chain(), *rules(*expressions)]) == []


@pytest.mark.parametrize("expressions", STOPS.values(), ids=STOPS)
def test_walk_lane_that_no_rule_accepts_is_stopped_for_certain(expressions: list[Any]) -> None:
    (blocked,) = walk([chain(), *rules(*expressions)])
    assert blocked.certain
    assert str(blocked.chain) == "nft inet t input"


def test_walk_policy_accept_and_no_rule_lets_it_through() -> None:
    assert walk([chain(policy="accept")]) == []


def test_walk_drop_names_the_rule() -> None:
    (blocked,) = walk([chain(), *rules([match(DPORT, 53), ACCEPT], [DROP])])
    assert blocked.cause == "rule input handle 2 (drop) stops them"


def test_walk_one_of_two_base_chains_drops_is_stopped() -> None:
    objects = [chain(), *rules([ACCEPT]), chain("late", prio=10)]
    assert [blocked.chain.name for blocked in walk(objects)] == ["late"]


@pytest.mark.parametrize(
    ("hook", "direction", "stopped"),
    [
        ("ingress", "in", True),
        ("prerouting", "in", True),
        ("input", "in", True),
        ("forward", "in", False),
        ("output", "in", False),
        ("input", "out", False),
        ("output", "out", True),
        ("postrouting", "out", True),
        ("egress", "out", True),
    ],
)
def test_walk_hook_is_on_the_way_of_one_direction(hook: str, direction: str, stopped: bool) -> None:
    assert bool(walk([chain(hook=hook)], direction=direction)) is stopped


def test_walk_outgoing_packet_is_established_and_has_the_lane_as_source() -> None:
    by_state = rules([match(CT_STATE, "established", "in"), ACCEPT], chain="output")
    by_port = rules([match(SPORT, {"range": [20000, 20999]}), ACCEPT], chain="output")
    output = [chain("output", "output")]
    assert walk([*output, *by_state], direction="out") == []
    assert walk([*output, *by_port], direction="out") == []
    assert walk([*output, *rules([match(DPORT, 20000), ACCEPT], chain="output")], direction="out")


def test_walk_chain_of_the_other_family_is_not_met() -> None:
    objects = [chain(family="ip6")]
    assert walk(objects) == []
    assert walk(objects, vip="fd00::2")


def test_walk_ingress_chain_of_another_device_is_not_met() -> None:
    assert walk([chain("i", "ingress", family="netdev", dev="eth1")]) == []
    assert walk([chain("i", "ingress", family="netdev", dev=["eth1", "eth0"])])


def test_walk_ingress_chain_of_a_device_that_is_not_told_leaves_a_doubt() -> None:
    (blocked,) = walk([chain("i", "ingress", family="netdev")])
    assert not blocked.certain
    assert "another device" in blocked.cause


def test_walk_jump_returns_and_goto_does_not() -> None:
    side = [chain("side", ""), *rules([match(DPORT, 53), ACCEPT], chain="side")]
    jump = rules([{"jump": {"target": "side"}}], [ACCEPT])
    goto = rules([{"goto": {"target": "side"}}], [ACCEPT])
    assert walk([chain(), *side, *jump]) == []
    assert walk([chain(), *side, *goto])[0].certain


def test_walk_return_in_a_jumped_chain_goes_on_after_the_jump() -> None:
    side = [
        chain("side", ""),
        *rules([match(DPORT, 20000), {"return": None}], [DROP], chain="side"),
    ]
    jump = rules([{"jump": {"target": "side"}}], [ACCEPT])
    assert walk([chain(), *side, *jump]) == []
    assert walk([chain(), *side, *jump], lane=20001)[0].certain


def test_walk_named_sets_and_maps_are_looked_up() -> None:
    objects: list[dict[str, Any]] = [
        {
            "set": {
                "family": "inet",
                "table": "t",
                "name": "lanes",
                "elem": [{"range": [20000, 20000]}],
            }
        },
        {"map": {"family": "inet", "table": "t", "name": "m", "elem": [[20001, ACCEPT]]}},
        chain(),
        *rules([match(DPORT, "@lanes"), ACCEPT], [{"vmap": {"key": DPORT, "data": "@m"}}]),
    ]
    assert walk(objects) == []
    assert walk(objects, lane=20001) == []
    assert walk(objects, lane=20002)


@pytest.mark.parametrize(
    "condition",
    [
        {"xt": {"type": "match", "name": "multiport"}},
        match({"socket": {"key": "mark"}}, 1),
        match(payload("ip", "saddr"), "203.0.113.9"),
        {"limit": {"rate": 10, "per": "second"}},
    ],
    ids=["opaque", "unknown", "some sources", "some of the time"],
)
def test_walk_accept_of_the_lane_on_a_condition_leaves_a_doubt(condition: dict[str, Any]) -> None:
    (blocked,) = walk([chain(), *rules([match(DPORT, 20000), condition, ACCEPT])])
    assert not blocked.certain
    assert "handle 1" in blocked.cause


def test_walk_drop_on_an_unknown_condition_leaves_a_doubt() -> None:
    opaque = {"xt": {"type": "match", "name": "addrtype"}}
    (blocked,) = walk([chain(), *rules([opaque, DROP], [ACCEPT])])
    assert not blocked.certain
    assert "handle 1 (drop)" in blocked.cause


def test_walk_queue_leaves_a_doubt() -> None:
    (blocked,) = walk([chain(), *rules([{"queue": {"num": 1}}])])
    assert not blocked.certain


def test_walk_opaque_reject_target_of_iptables_stops() -> None:
    (blocked,) = walk([chain(), *rules([{"xt": {"type": "target", "name": "REJECT"}}], [ACCEPT])])
    assert blocked.certain


def test_lane_segments_split_where_rules_name_ports() -> None:
    ruleset = Ruleset()
    ruleset.add("nft", [chain(), *rules([match(DPORT, {"range": [20005, 20010]}), ACCEPT])])
    segments = ruleset.lane_segments(20000, 20999)
    assert segments[0] == (20000, 20004)
    assert segments[-1] == (20011, 20999)
    assert [last + 1 for _, last in segments[:-1]] == [first for first, _ in segments[1:]]


IPTABLES = """\
# Generated by iptables-save
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:SUB - [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m state --state INVALID -j DROP
-A INPUT -p udp -m udp --dport 3478 -j ACCEPT
-A INPUT -p udp -m multiport --dports 53,5000:6000 -m comment --comment "two words" -j ACCEPT
-A INPUT ! -i eth+ -p udp -m udp ! --dport 20000:20999 -j DROP
-A INPUT -s 10.0.0.0/8 -j ACCEPT
-A INPUT -m limit --limit 3/min -j LOG --log-prefix "dropped: "
-A INPUT -m addrtype --dst-type BROADCAST -j DROP
{lanes}-A INPUT -d 192.0.2.2/32 -p udp -g SUB
-A SUB -p tcp -j ACCEPT
-A SUB -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""


@pytest.mark.parametrize(
    "rule",
    [
        "-A INPUT -p udp -m udp --dport 20000:20999 -j ACCEPT\n",
        "-A INPUT -p udp -m multiport --dports 53,20000:20999 -j ACCEPT\n",
        "-A INPUT -p udp -i eth+ -m conntrack --ctstate NEW -j ACCEPT\n",
    ],
)
def test_iptables_rule_that_accepts_lanes_lets_them_through(rule: str) -> None:
    assert walk(parse_iptables_save(IPTABLES.format(lanes=rule), "ip")) == []


def test_iptables_without_a_rule_for_lanes_names_chain_and_rule_number() -> None:
    ruleset = Ruleset()
    ruleset.add("iptables-legacy", parse_iptables_save(IPTABLES.format(lanes=""), "ip"))
    (blocked,) = ruleset.walk(Packet("in", "eth0", ip_address("192.0.2.2"), 20000))
    assert blocked.certain
    assert blocked.cause == "rule SUB number 2 (reject) stops them"
    assert (blocked.chain.table, blocked.chain.name) == ("filter", "INPUT")


def test_iptables_option_that_is_not_known_leaves_a_doubt() -> None:
    rule = "-A INPUT -p udp --dport 20000:20999 -m geoip --source-country DE -j ACCEPT\n"
    (blocked,) = walk(parse_iptables_save(IPTABLES.format(lanes=rule), "ip"))
    assert not blocked.certain


def test_opaque_families_are_those_that_iptables_wrote() -> None:
    plain = rules([match(DPORT, 53), ACCEPT])
    opaque = json.loads(json.dumps(rules([{"xt": {"type": "match", "name": "conntrack"}}, ACCEPT])))
    opaque[0]["rule"]["family"] = "ip"
    assert opaque_families(plain) == set()
    assert opaque_families([*plain, *opaque]) == {"ip"}


# proc(5): header, then local address, remote address, state, queues, timers, uid, timeout, inode.
PROC_NET = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
  1: 020200C0:0D96 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2
  2: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 2
  3: 0000000000000000FFFF0000020200C0:0016 00000000:0000 0A 0:0 00:0 0 0 0 4713 2
  4: 000000FD000000000000000002000000:0016 00000000:0000 0A 0:0 00:0 0 0 0 4714 2
"""


def test_parse_sockets_reads_hexadecimal_addresses_of_both_families() -> None:
    sockets = parse_sockets(PROC_NET, "udp")
    assert [(str(one.address), one.port, one.inode) for one in sockets] == [
        ("192.0.2.2", 3478, 4711),
        ("127.0.0.1", 53, 4712),
        ("192.0.2.2", 22, 4713),
        ("fd00::2", 22, 4714),
    ]


def test_parse_sockets_of_tcp_takes_listening_ones_only() -> None:
    assert [one.inode for one in parse_sockets(PROC_NET, "tcp")] == [4712, 4713, 4714]
