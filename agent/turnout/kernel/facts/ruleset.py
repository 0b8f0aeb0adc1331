"""What a host firewall does with the packets of a lane: a walk through its rules, changing nothing.

The model is that of `nft -j list ruleset` (libnftables-json(5)): base chains on hooks, rules as
lists of expressions. `walk` asks it for one packet, and answers with what the rules say and with
what cannot be read from them. Rules are read by firewall.py; the findings are doctor's.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from turnout.kernel.facts.rule_match import (
    Certainty,
    Expression,
    Packet,
    compare,
    element_of,
    equals,
    left_value,
    negate_if,
)

# XDP runs before all of these and TC egress after all of these: each of them sees the lane.
HOOKS = {
    "in": ("ingress", "prerouting", "input"),
    "out": ("output", "postrouting", "egress"),
}
# Targets that end a base chain without dropping: address translation implies accept.
_ACCEPTS = ("accept", "dnat", "snat", "redirect", "masquerade", "tproxy")
_DROPS = ("drop", "reject")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `place` is "handle N" as nft tells rules apart, or "number N" as iptables does."""

    place: str
    expressions: tuple[Expression, ...]


@dataclass(slots=True, eq=False)
class Chain:
    """One chain; a base chain has a hook. `tool` is what lists and changes it."""

    tool: str
    family: str
    table: str
    name: str
    hook: str = ""
    policy: str = "accept"
    kind: str = ""
    devices: tuple[str, ...] = ()
    rules: list[Rule] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.tool} {self.family} {self.table} {self.name}"

    def is_of_unnamed_device(self) -> bool:
        """Whether the chain belongs to devices that were not told: nft 1.0.6 leaves them out."""
        return self.hook in ("ingress", "egress") and not self.devices

    def sees(self, packet: Packet) -> bool:
        """Whether a packet of this direction and family meets this base chain."""
        if self.hook not in HOOKS[packet.direction]:
            return False
        if self.kind == "nat" and packet.ct_state != "new":
            return False
        if self.devices and packet.interface not in self.devices:
            return False
        return self.family in ("inet", "netdev", packet.family)


@dataclass(frozen=True, slots=True)
class Blocked:
    """A base chain that stops the packet. Not certain: `cause` is what cannot be decided here."""

    chain: Chain
    cause: str
    certain: bool


class _Fate(Enum):
    ACCEPTED = "accepted"
    DROPPED = "dropped"
    RETURNED = "returned"


class Ruleset:
    """The chains and named sets of one network namespace."""

    def __init__(self) -> None:
        self.chains: dict[tuple[str, str, str, str], Chain] = {}
        self.sets: dict[tuple[str, str, str, str], list[Any]] = {}

    def add(self, tool: str, objects: Iterable[Mapping[str, Any]]) -> None:
        """Take the objects of `nft -j list ruleset`, or what iptables.py made like them."""
        for entry in objects:
            for kind, body in entry.items():
                match kind:
                    case "chain":
                        self._add_chain(tool, body)
                    case "rule":
                        chain = self.chains[tool, body["family"], body["table"], body["chain"]]
                        place = "handle" if tool == "nft" else "number"
                        rule = Rule(f"{place} {body['handle']}", tuple(body["expr"]))
                        chain.rules.append(rule)
                    case "set" | "map":
                        key = (tool, body["family"], body["table"], body["name"])
                        self.sets[key] = list(body.get("elem", ()))

    def _add_chain(self, tool: str, body: Mapping[str, Any]) -> None:
        device = body.get("dev", ())
        self.chains[tool, body["family"], body["table"], body["name"]] = Chain(
            tool=tool,
            family=body["family"],
            table=body["table"],
            name=body["name"],
            hook=body.get("hook", ""),
            policy=body.get("policy", "accept"),
            kind=body.get("type", ""),
            devices=(device,) if isinstance(device, str) else tuple(device),
        )

    def remove_table(self, tool: str, family: str, table: str) -> None:
        """Forget a table that another tool describes better."""
        for key in [key for key in self.chains if key[:3] == (tool, family, table)]:
            del self.chains[key]

    def lane_segments(self, first: int, last: int) -> list[tuple[int, int]]:
        """Split the lanes where a rule names a port, so that one packet speaks for each segment."""
        edges = {first}
        for values in (*_all_expressions(self.chains.values()), *self.sets.values()):
            for number in _numbers(values):
                edges.update(edge for edge in (number, number + 1) if first < edge <= last)
        starts = sorted(edges)
        return list(zip(starts, [*(start - 1 for start in starts[1:]), last], strict=True))

    def walk(self, packet: Packet) -> list[Blocked]:
        """Return each base chain that stops the packet; empty if all of them let it through.

        An accept ends one base chain only, so every base chain on the way has to let it through.
        """
        blocked = []
        for chain in self.chains.values():
            if chain.hook and chain.sees(packet):
                walk = _Walk(self, chain, packet)
                verdict = walk.verdict()
                if verdict is not None:
                    blocked.append(verdict)
        return blocked


def _all_expressions(chains: Iterable[Chain]) -> Iterator[tuple[Expression, ...]]:
    return (rule.expressions for chain in chains for rule in chain.rules)


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _numbers(inner)


class _Walk:
    """One packet through one base chain."""

    def __init__(self, ruleset: Ruleset, base: Chain, packet: Packet) -> None:
        self.ruleset = ruleset
        self.base = base
        self.packet = packet
        self.cause = ""
        self.maybe_accepted = ""
        self.maybe_dropped = ""

    def verdict(self) -> Blocked | None:
        fate = self._run(self.base, Certainty.YES)
        if fate is _Fate.RETURNED and self.base.policy == "drop":
            fate, self.cause = _Fate.DROPPED, "its policy is drop and no rule accepts them"
        if fate is _Fate.DROPPED:
            doubt = self.maybe_accepted
            if self.base.is_of_unnamed_device():
                doubt = "it is for another device (this version of nft does not say which)"
            cause = f"{self.cause}, unless {doubt}" if doubt else self.cause
            return Blocked(self.base, cause, certain=not doubt)
        if self.maybe_dropped:
            return Blocked(self.base, self.maybe_dropped, certain=False)
        return None

    def _run(self, chain: Chain, reached: Certainty) -> _Fate:
        """Go through a chain that the packet reaches with that certainty."""
        for rule in chain.rules:
            held = reached
            for expression in rule.expressions:
                held = min(held, self._holds(expression, chain))
                if held is Certainty.NO:
                    break
                fate = self._verdict_of(expression, chain, rule, held)
                if fate is not None:
                    if fate is _Fate.RETURNED and held >= reached:
                        return fate
                    if fate is not _Fate.RETURNED and held is Certainty.YES:
                        return fate
                    break
        return _Fate.RETURNED

    def _holds(self, expression: Expression, chain: Chain) -> Certainty:
        if "match" in expression:
            body = expression["match"]
            return self._match(body["left"], body["op"], body["right"], chain)
        if "limit" in expression:
            return Certainty.SOME
        xt = expression.get("xt")
        if xt is not None and xt.get("type") == "match":
            return Certainty.YES if xt.get("name") == "comment" else Certainty.UNKNOWN
        return Certainty.YES

    def _verdict_of(
        self, expression: Expression, chain: Chain, rule: Rule, held: Certainty
    ) -> _Fate | None:
        """Return where the packet ends, RETURNED for out of this chain, None for the next one."""
        if "vmap" in expression:
            return self._vmap(expression["vmap"], chain, rule, held)
        for name in ("jump", "goto"):
            if name in expression:
                key = (chain.tool, chain.family, chain.table, expression[name]["target"])
                fate = self._run(self.ruleset.chains[key], held)
                # goto leaves no way back: its end is the end of this chain.
                return fate if fate is not _Fate.RETURNED or name == "goto" else None
        end = _terminal(expression)
        if end == "return":
            return _Fate.RETURNED
        if end in _DROPS:
            self._note_drop(chain, rule, end, held)
            return _Fate.DROPPED
        if end == "queue":
            self._note_drop(chain, rule, "a program on a queue decides", Certainty.UNKNOWN)
        elif end:
            self._note_accept(chain, rule, held)
        return _Fate.ACCEPTED if end else None

    def _vmap(
        self, body: Mapping[str, Any], chain: Chain, rule: Rule, held: Certainty
    ) -> _Fate | None:
        for key, verdict in self._elements(body["data"], chain):
            match = min(held, self._match(body["key"], "==", key, chain))
            if match is Certainty.NO:
                continue
            fate = self._verdict_of(verdict, chain, rule, match)
            if fate is not None and match is Certainty.YES:
                return fate
        return None

    def _note_drop(self, chain: Chain, rule: Rule, what: str, held: Certainty) -> None:
        where = f"{chain.name} {rule.place} ({what})"
        if held is Certainty.YES:
            self.cause = f"rule {where} stops them"
        elif held is Certainty.UNKNOWN:
            self.maybe_dropped = f"rule {where} stops them on conditions that cannot be read here"

    def _note_accept(self, chain: Chain, rule: Rule, held: Certainty) -> None:
        where = f"rule {chain.name} {rule.place}"
        if held is Certainty.UNKNOWN:
            self.maybe_accepted = f"{where} accepts them on conditions that cannot be read here"
        elif held is Certainty.SOME and any(_names_port(one) for one in rule.expressions):
            self.maybe_accepted = f"{where} accepts them (it does for some clients only)"

    def _elements(self, right: Any, chain: Chain) -> list[Any]:
        """Return the values that a right-hand side stands for."""
        if isinstance(right, str) and right.startswith("@"):
            key = (chain.tool, chain.family, chain.table, right[1:])
            return self.ruleset.sets.get(key, [])
        if isinstance(right, Mapping) and "set" in right:
            inner = right["set"]
            return inner if isinstance(inner, list) else self._elements(inner, chain)
        return right if isinstance(right, list) else [right]

    def _match(self, left: Any, op: str, right: Any, chain: Chain) -> Certainty:
        if "concat" in left:
            return negate_if(op, self._match_concat(left["concat"], right, chain))
        value = left_value(left, self.packet)
        if isinstance(value, Certainty):
            return value
        if op in ("<", ">", "<=", ">="):
            return compare(value, op, right)
        held = max(
            (equals(value, element_of(one)) for one in self._elements(right, chain)),
            default=Certainty.NO,
        )
        return negate_if(op, held)

    def _match_concat(self, parts: list[Any], right: Any, chain: Chain) -> Certainty:
        best = Certainty.NO
        for element in self._elements(right, chain):
            values = element_of(element)
            if not isinstance(values, Mapping) or "concat" not in values:
                return Certainty.UNKNOWN
            held = min(
                self._match(part, "==", value, chain)
                for part, value in zip(parts, values["concat"], strict=True)
            )
            best = max(best, held)
        return best


def _terminal(expression: Expression) -> str:
    """Return the verdict that an expression ends with, empty if the rule goes on."""
    xt = expression.get("xt") or {}
    if xt.get("type") == "target":
        return {"REJECT": "reject", "NFQUEUE": "queue"}.get(xt.get("name", ""), "")
    return next(
        (name for name in (*_DROPS, *_ACCEPTS, "queue", "return") if name in expression), ""
    )


def _names_port(expression: Expression) -> bool:
    payload = expression.get("match", {}).get("left", {}).get("payload", {})
    return payload.get("field") in ("dport", "sport")
