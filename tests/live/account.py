"""What became of each kind of packet: the kernel's counters before and after, as a table."""

Counters = dict[str, int]

# Kinds that every call has; the rest is shown when there is any.
ALWAYS = {
    "steered__stun_request": "STUN requests, to their owner by ufrag",
    "steered__stun": "other STUN, by flow",
    "steered__dtls": "DTLS, by flow",
    "steered__rtp": "RTP and RTCP, by flow",
    "flow__learned": "flows learned",
    "returned__rewritten": "sent back through the shared port",
}

FAMILIES = {
    "steered": "steered",
    "drop": "dropped",
    "pass": "passed to the shared port's socket",
    "guard": "kept from a lane",
    "flow": "flows",
    "returned": "on the way out",
}


def difference(before: Counters, after: Counters) -> Counters:
    """Return by how much each counter rose."""
    return {name: after[name] - before.get(name, 0) for name in after}


def describe(rose: Counters) -> list[str]:
    """Return the table, a line each: kinds that every call has, then what else there was."""
    lines = [f"{rose.get(name, 0):>8}  {text}" for name, text in ALWAYS.items()]
    for name, count in rose.items():
        family, _, reason = name.partition("__")
        if count and name not in ALWAYS and reason:
            lines.append(f"{count:>8}  {FAMILIES.get(family, family)}: {reason.replace('_', ' ')}")
    sums = {family: sum_of(rose, family) for family in ("steered", "dropped", "passed")}
    parts = " + ".join(f"{count} {family}" for family, count in sums.items())
    lines.append(f"{rose.get('received', 0):>8}  received on the shared port = {parts}")
    return lines


def sum_of(rose: Counters, verdict: str) -> int:
    """Return how many packets ended in a verdict: "steered", "dropped" or "passed"."""
    family = {"steered": "steered", "dropped": "drop", "passed": "pass"}[verdict]
    return sum(count for name, count in rose.items() if name.startswith(f"{family}__"))
