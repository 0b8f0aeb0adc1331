"""What a row must not have cost, as results; the table of all rows; what was counted, as text."""

from dataclasses import dataclass

from chaos.measured import Measured
from chaos.row import Row
from results import Result

_CALLS_HEAD = f"{'sent':>10}{'lost':>6}{'gap, ms':>10}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    name: str
    measured: Measured


def judge(row: Row, found: list[Result], measured: Measured, quiet: Measured) -> list[Result]:
    """Judge one row: losses and ownership always, gaps where the row says how long."""
    results = []

    def add(name: str, value: object, bound: str, *, met: bool) -> None:
        results.append(Result(f"{row.name}: {name}", value, bound, met))

    links = measured.full_links
    for name, lost, sent, full_sockets, unexplained in (
        ("packets", measured.lost, measured.sent, measured.full_sockets, measured.unexplained),
        (
            "call packets",
            measured.calls_lost,
            measured.calls_sent,
            measured.calls_full_sockets,
            measured.calls_unexplained,
        ),
    ):
        text = f"{lost} of {sent}"
        if lost > 0:
            text += f" (in full sockets {full_sockets}, on full links up to {links})"
        add(f"{name} lost", text, "0 unexplained", met=not unexplained)
    if measured.talked:
        add("longest gap of a talker, ms", round(measured.talkers_gap_ms, 1), "", met=True)
        add("packets that do not authenticate", measured.refused, "0", met=not measured.refused)
    add("calls that broke", measured.calls_down, "0", met=measured.calls_down == 0)
    strayed = measured.strayed
    add("flows that strayed", len(strayed), "0", met=not strayed)
    if row.gap_ms is not None:
        for name, gap_ms, quiet_ms in (
            ("longest gap, ms", measured.gap_ms, quiet.gap_ms),
            ("longest gap in a call, ms", measured.calls_gap_ms, quiet.calls_gap_ms),
        ):
            bound = f"quiet {quiet_ms:.1f} + {row.gap_ms:g}"
            add(name, round(gap_ms, 1), bound, met=gap_ms <= quiet_ms + row.gap_ms)
    add("verdicts add up", measured.adds_up, "True", met=measured.adds_up)
    return results + [
        Result(f"{row.name}: {one.name}", one.value, one.bound, one.met) for one in found
    ]


def table(lines: list[Line]) -> list[str]:
    """Return the table: event, sent, lost, longest gap; for numbered flows, then for calls."""
    text = [
        f"{'':<20}{'numbered flows':^36}{'calls':^30}",
        f"{'event':<20}{'sent':>10}{'lost':>6}{'in outage':>10}{'gap, ms':>10}" + _CALLS_HEAD,
    ]
    for line in lines:
        one = line.measured
        calls = f"{one.calls_sent:>10}{one.calls_lost:>6}{one.calls_gap_ms:>10.1f}"
        if not one.calls_sent:
            calls = f"{'-':>10}{'-':>6}{'-':>10}"
        text.append(
            f"{line.name:<20}{one.sent:>10}{one.lost:>6}{one.in_outage or '-':>10}"
            f"{one.gap_ms:>10.1f}{calls}"
        )
    return text


def describe(measured: Measured) -> list[str]:
    """Return what was counted, a line each."""
    by_family: dict[str, list[str]] = {}
    for name, count in measured.counters.items():
        family, _, reason = name.partition("__")
        by_family.setdefault(family, []).append(f"{reason.replace('_', ' ') or 'all'} {count:,}")
    lines = [f"{family}: {', '.join(counts)}" for family, counts in by_family.items()]
    if measured.lost:
        lines.append(f"lost on the way out {measured.lost_out}, there and back {measured.lost}")
    return lines + [f"strayed: {text}" for text in measured.strayed[:3]]
