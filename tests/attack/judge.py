"""What a row must not have done, as results; and all that was counted, as text for people."""

from typing import TYPE_CHECKING

from attack.rows import Row
from attack.stage import Measured
from results import Result

if TYPE_CHECKING:
    from array import array

PACKETS_A_SECOND = 50_000
NEWCOMERS_SHARE = 0.99
# Attacker, edge, lanes and clients share two cores here: what the attack takes from them is not
# what it takes from an edge of its own. More than a packet's length of voice would be heard.
ROUND_TRIP_MORE_MS = 20.0
# What is delivered takes its owner's time too: here one Python process that answers all of it.
ROUND_TRIP_MORE_DELIVERED_MS = 40.0
SESSION_FLOWS = 8  # the default of limits.flows_per_session


def p99_ms(round_trips: "array[int]") -> float:
    """Return the 99th percentile in milliseconds."""
    if not round_trips:
        return float("inf")
    return sorted(round_trips)[len(round_trips) * 99 // 100] / 1e6


def excuse(row: Row, measured: Measured) -> dict[str, int]:
    """Return the counters that may say what took a live packet: a full link, or a shared rate."""
    counters = {"links": measured.link_drops}
    if row.delivered:
        # What is delivered fills its owner's socket with the owner's own packets.
        counters["sockets"] = measured.socket_drops
    if row.shares_rate:
        counters["drop__flow_rate"] = measured.counters.get("drop__flow_rate", 0)
    return counters


def judge(
    row: Row, measured: Measured, *, quiet_ms: float, rate: float, live_sessions: int, his: int
) -> list[Result]:
    """Judge one row. `quiet_ms` is the quiet row's p99, `rate` what was asked for."""
    foreign = measured.foreign
    sent, lost, down = measured.calls
    excuses = excuse(row, measured)
    explained = sum(excuses.values())
    results = []

    def add(name: str, value: object, bound: str, *, met: bool) -> None:
        results.append(Result(f"{row.name}: {name}", value, bound, met))

    if measured.sent.frames:
        enough = min(rate, PACKETS_A_SECOND)
        pps = measured.sent.rate
        add("packets a second", round(pps), f"at least {enough:,.0f}", met=pps >= enough)
    if measured.offered is not None:
        results.append(Result(f"{row.name}: offers a second", round(measured.offered.rate)))
    add(
        "foreign flows created or moved",
        len(foreign.created) + len(foreign.changed),
        "0",
        met=not foreign.created and not foreign.changed,
    )
    if foreign.replayed:
        most = SESSION_FLOWS * live_sessions
        value = foreign.replayed
        add("flows of the replayed sessions", value, f"at most {most}", met=value <= most)
    if foreign.his_own:
        most = SESSION_FLOWS * his
        value = foreign.his_own
        add("flows of his own sessions", value, f"at most {most}", met=value <= most)
    aliens = sum(measured.arrivals.alien.values())
    if not row.delivered:
        add("packets that reached a lane", aliens, "0", met=aliens == 0)
    why = ", ".join(f"{name} {count}" for name, count in excuses.items() if count)
    text = f"{measured.lost} of {measured.packets}" + (f" ({why})" if measured.lost and why else "")
    bound = "0, or as many as " + ", ".join(excuses) if row.delivered or explained else "0"
    add("numbered packets lost", text, bound, met=measured.lost <= explained)
    text = f"{lost} of {sent}" + (f" ({why})" if lost and why else "")
    if row.one_victim:
        others = measured.lost - measured.lost_of_one
        add("numbered packets lost by all others", others, "0", met=others == 0)
    add("call packets lost", text, bound, met=lost + measured.lost <= explained or not lost)
    add("calls that broke", down, "0", met=down == 0)
    results += judge_newcomers(row, measured)
    p99 = p99_ms(measured.round_trips)
    if row.name == "quiet":
        results.append(Result("quiet: p99 round trip, ms", round(p99, 2)))
    else:
        more = ROUND_TRIP_MORE_DELIVERED_MS if row.delivered else ROUND_TRIP_MORE_MS
        bound = f"quiet {quiet_ms:.2f} + {more:.0f}"
        add("p99 round trip, ms", round(p99, 2), bound, met=p99 <= quiet_ms + more)
    add("verdicts add up", measured.adds_up, "True", met=measured.adds_up)
    return results


def judge_newcomers(row: Row, measured: Measured) -> list[Result]:
    """Judge how new calls got through."""
    came = measured.newcomers
    total, failed = came.light + came.real, came.light_failed + came.real_failed
    share = (total - failed) / total if total else 0.0
    value = f"{share:.1%}: {came.light - came.light_failed} of {came.light} light, "
    value += f"{came.real - came.real_failed} of {came.real} real"
    bound = f"at least {NEWCOMERS_SHARE:.0%}"
    return [Result(f"{row.name}: new calls", value, bound, share >= NEWCOMERS_SHARE)]


def describe(measured: Measured) -> list[str]:
    """Return what was counted, a line each."""
    lines = []
    if measured.offered is not None:
        answers = ", ".join(f"{n} x {what}" for what, n in measured.offered.answers.most_common())
        lines.append(f"offers: {answers}")
    by_family: dict[str, list[str]] = {}
    for name, count in measured.counters.items():
        family, _, reason = name.partition("__")
        by_family.setdefault(family, []).append(f"{reason.replace('_', ' ') or 'all'} {count:,}")
    lines += [f"{family}: {', '.join(counts)}" for family, counts in by_family.items()]
    arrivals = measured.arrivals
    aliens = ", ".join(f"{kind} {count:,}" for kind, count in arrivals.alien.items()) or "none"
    lines.append(
        f"at the lanes: ours {arrivals.ours:,}, repeated {arrivals.repeated:,}, "
        f"not answered {arrivals.unanswered:,}, alien: {aliens}"
    )
    lines.append(
        f"lost on the way out {measured.lost_out}, there and back {measured.lost}; "
        f"full links {measured.link_drops}, full sockets {measured.socket_drops}"
    )
    lines += [f"new call: {error}" for error in measured.newcomers.errors[:3]]
    lines += [f"changed: {text}" for text in measured.foreign.changed[:3]]
    lines += [f"created: {text}" for text in measured.foreign.created[:3]]
    return lines
