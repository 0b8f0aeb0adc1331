"""Interleaved runs: every row once a round, so that what drifts meanwhile drifts for all alike.

A row's figure is the median over the rounds; a ratio is the median of the ratios within a round.
Time is the CPU time of this thread, so that a neighbour on the machine costs caches, not time.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

# A row is run this part of its packets before it is timed: its own lines are then in the caches.
WARM_UP = 0.25
# The call itself takes 0.4 ms, most of it to make the program known to the XDP dispatcher, which it
# does for more than one packet: what a call for two takes is subtracted.
SHORTEST = 2


@dataclass(frozen=True, slots=True)
class Timed:
    """One row: `prepare` makes ready for a run, `run` sends that many, `verify` is told of all."""

    packets: int
    prepare: Callable[[], None]
    run: Callable[[int], None]
    verify: Callable[[int], None]


@dataclass(slots=True)
class Samples:
    """ns a packet of each row, by round."""

    rounds: list[dict[str, float]] = field(default_factory=list)

    def of(self, name: str, less: tuple[str, str] | None = None) -> list[float]:
        """Return a row's samples; `less`: minus what the first of two other rows costs more."""
        if less is None:
            return [one[name] for one in self.rounds]
        more, base = less
        return [one[name] - (one[more] - one[base]) for one in self.rounds]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> "Spread":
        """Return median and quartiles of the values; of one value, that value."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), low, high)

    def __format__(self, spec: str) -> str:
        median, low, high = (format(one, spec) for one in (self.median, self.low, self.high))
        return f"{median} ({low} to {high})"


def ratio(values: Sequence[float], base: Sequence[float]) -> Spread:
    """Return the ratio of two rows, round by round."""
    return Spread.over([one / other for one, other in zip(values, base, strict=True)])


def run_rounds(
    rows: Mapping[str, Timed], rounds: int, tell: Callable[[int], None] | None = None
) -> Samples:
    """Run all rows once a round, on one CPU."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    samples = Samples()
    try:
        for number in range(rounds):
            samples.rounds.append({name: run_once(row) for name, row in rows.items()})
            if tell is not None:
                tell(number + 1)
    finally:
        os.sched_setaffinity(0, allowed)
    return samples


def run_once(row: Timed) -> float:
    """Return ns a packet of one run."""
    row.prepare()
    warm_up = max(SHORTEST, int(row.packets * WARM_UP))
    row.run(warm_up)
    call = spent_in(row, SHORTEST)
    spent = spent_in(row, SHORTEST + row.packets) - call
    row.verify(warm_up + SHORTEST + SHORTEST + row.packets)
    return spent / row.packets


def spent_in(row: Timed, packets: int) -> int:
    """Return the CPU time of this thread for one call, in ns."""
    begun = time.thread_time_ns()
    row.run(packets)
    return time.thread_time_ns() - begun
