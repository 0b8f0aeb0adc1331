"""The output of `iptables-save` as the objects that `nft -j list ruleset` would give.

Kernel tables of legacy iptables are invisible to nft, and what iptables-nft puts into nft's tables
is partly opaque there; both tools print this one text. Called by kernel/facts/firewall.py.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

_Object = dict[str, Any]
_HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
_VERDICTS = {
    "ACCEPT": "accept",
    "DROP": "drop",
    "REJECT": "reject",
    "RETURN": "return",
    "NFQUEUE": "queue",
    "DNAT": "dnat",
    "SNAT": "snat",
    "REDIRECT": "redirect",
    "MASQUERADE": "masquerade",
    "TPROXY": "tproxy",
}
_KEYS: dict[str, _Object] = {
    "--ctstate": {"ct": {"key": "state"}},
    "--state": {"ct": {"key": "state"}},
    "--dst-type": {"fib": {"result": "type", "flags": ["daddr"]}},
    "--mark": {"meta": {"key": "mark"}},
    "--uid-owner": {"meta": {"key": "skuid"}},
    "--gid-owner": {"meta": {"key": "skgid"}},
}
# Targets that only mark, count or log. Everything else is a chain.
_IDLE = ("LOG", "NFLOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TRACE", "SET", "DSCP", "CHECKSUM")


def parse_iptables_save(text: str, family: str) -> list[_Object]:
    """Return chains and rules as nft objects; `family` is "ip" or "ip6"."""
    objects: list[_Object] = []
    table = ""
    numbers: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table, numbers = line[1:].strip(), {}
        elif line.startswith(":"):
            objects.append({"chain": _chain(line, family, table)})
        elif line.startswith("-A "):
            words = shlex.split(line)
            chain = words[1]
            numbers[chain] = numbers.get(chain, 0) + 1
            rule = {"family": family, "table": table, "chain": chain, "handle": numbers[chain]}
            objects.append({"rule": rule | {"expr": _expressions(words[2:], family)}})
    return objects


def _chain(line: str, family: str, table: str) -> _Object:
    name, policy = line[1:].split()[:2]
    chain: _Object = {"family": family, "table": table, "name": name}
    if name in _HOOKS and policy != "-":
        kind = "nat" if table == "nat" else "filter"
        chain |= {"hook": _HOOKS[name], "policy": policy.lower(), "type": kind}
    return chain


def _expressions(words: list[str], family: str) -> list[_Object]:
    """Translate the options of one rule; what is not known becomes an opaque match."""
    expressions: list[_Object] = []
    verdict: list[_Object] = []
    for negated, option, values in _options(words):
        if option in ("-j", "-g"):
            verdict = _target(values[0], "goto" if option == "-g" else "jump")
            break  # what follows belongs to the target
        expressions += _match(option, values, "!=" if negated else "==", family)
    return expressions + verdict


def _options(words: list[str]) -> Iterator[tuple[bool, str, list[str]]]:
    index = 0
    while index < len(words):
        negated = words[index] == "!"
        start = index + negated
        end = start + 1
        while end < len(words) and not re.fullmatch(r"!|--?[a-z].*", words[end]):
            end += 1
        yield negated, words[start], words[start + 1 : end]
        index = end


def _target(name: str, call: str) -> list[_Object]:
    if name in _VERDICTS:
        return [{_VERDICTS[name]: None}]
    return [] if name in _IDLE else [{call: {"target": name}}]


def _match(option: str, values: list[str], op: str, family: str) -> list[_Object]:
    if option in ("-m", "--comment", "--limit-burst"):
        return []
    if option == "--limit":
        return [{"limit": values[0]}]
    if option == "-p":
        return [_compare({"meta": {"key": "l4proto"}}, op, values[0])]
    left, right = _sides(option, values[0] if values else "", family)
    return [_compare(left, op, right)] if left else [{"xt": {"type": "match", "name": option}}]


def _sides(option: str, value: str, family: str) -> tuple[_Object | None, Any]:
    if option in ("-i", "-o"):
        return {"meta": {"key": f"{option[1]}ifname"}}, re.sub(r"\+$", "*", value)
    if option in ("-s", "-d"):
        field = "saddr" if option == "-s" else "daddr"
        return {"payload": {"protocol": family, "field": field}}, _prefix(value)
    if option in ("--dport", "--sport", "--dports", "--sports"):
        ports = [_port(port) for port in value.split(",")]
        return {"payload": {"protocol": "th", "field": option[2:7]}}, {"set": ports}
    return _KEYS.get(option), {"set": value.lower().split(",")}


def _prefix(value: str) -> _Object:
    address, _, length = value.partition("/")
    return {"prefix": {"addr": address, "len": length or ("128" if ":" in address else "32")}}


def _port(text: str) -> int | _Object:
    first, colon, last = text.partition(":")
    return {"range": [int(first), int(last)]} if colon else int(first)


def _compare(left: _Object, op: str, right: Any) -> _Object:
    return {"match": {"left": left, "op": op, "right": right}}
