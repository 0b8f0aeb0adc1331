"""Rows one after the other on one stage, the quiet one first, with progress and results.

Called by __main__.py and by the system tests, which run a short form.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from attack.judge import describe, judge, p99_ms
from attack.rows import Row
from attack.stage import INSIDER_SESSIONS, OFFERS_A_MINUTE, Stage
from results import Result, print_results
from traffic.laboratory import open_laboratory

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Campaign:
    """How hard, how long, against whom."""

    rate: float
    seconds: float
    flows: int = 50
    calls: int = 2
    transceivers: int = 2


@contextmanager
def open_stage(campaign: Campaign, say: Say) -> Iterator[Stage]:
    """Put everything up, and take it away however it ends."""
    with open_laboratory("attack") as laboratory:
        edge = laboratory.edge
        say("== starting an edge in a namespace of its own")
        edge.start(*("--offers-a-minute", str(OFFERS_A_MINUTE)), transceivers=campaign.transceivers)
        stage = Stage(laboratory.namespaces, edge, flows=campaign.flows, calls=campaign.calls)
        try:
            stage.set_up(say)
            yield stage
        finally:
            stage.end()


def run_rows(rows: Sequence[Row], campaign: Campaign, results: list[Result], say: Say) -> None:
    """Run the rows; results are added as they come. The first row is the quiet one."""
    quiet_ms = 0.0
    with open_stage(campaign, say) as stage:
        for row in rows:
            say(f"== {row.name}: {row.title}")
            measured = stage.run(row, campaign.rate, campaign.seconds)
            if row.name == "quiet":
                quiet_ms = p99_ms(measured.round_trips)
            found = judge(
                row,
                measured,
                quiet_ms=quiet_ms,
                rate=campaign.rate,
                live_sessions=campaign.flows + campaign.calls,
                his=INSIDER_SESSIONS + 1,
            )
            print_results(found)
            for line in describe(measured):
                say(f"        {line}")
            results += found
