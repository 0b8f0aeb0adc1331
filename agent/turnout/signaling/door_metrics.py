"""The HTTP doors in /metrics: connections by what became of them, answers by status."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from turnout.signaling.http_door import HttpDoor

if TYPE_CHECKING:
    from prometheus_client import Metric

# Family of DoorCounters -> metric, its label besides the door, what it says.
_FAMILIES = {
    "accepted": ("turnout_http_connections_accepted", None, "Connections that a door took."),
    "closed": (
        "turnout_http_connections_closed",
        "reason",
        "Connections that a door ended, by reason.",
    ),
    "refused": (
        "turnout_http_connections_refused",
        "reason",
        "Connections that got no place at a door, by reason.",
    ),
    "answered": ("turnout_http_answers", "status", "Requests that a door answered, by status."),
}


class DoorCollector(Collector):
    """Reads the counters of the doors, by their names, when a scrape asks."""

    def __init__(self, doors: Mapping[str, HttpDoor]) -> None:
        """Take the doors; more may be put into the mapping later."""
        self._doors = doors

    def describe(self) -> "Iterable[Metric]":
        """Nothing: statuses come as they are answered."""
        return ()

    def collect(self) -> "Iterable[Metric]":
        """Yield every series there is."""
        open_now = GaugeMetricFamily(
            "turnout_http_connections", "Connections of a door.", labels=("door",)
        )
        for name, door in self._doors.items():
            open_now.add_metric((name,), len(door))
        yield open_now
        for family, (metric, label, text) in _FAMILIES.items():
            labels = ("door",) if label is None else ("door", label)
            counted = CounterMetricFamily(metric, text, labels=labels)
            for name, door in self._doors.items():
                for counter, value in door.counters.as_dict().items():
                    prefix, _, reason = counter.partition("__")
                    if prefix == family:
                        counted.add_metric((name, reason)[: len(labels)], value)
            yield counted
