"""memory_maps with what only steering, metrics and status look at: counters, and little room."""

from collections.abc import Mapping
from typing import Any, cast

from turnout.kernel.maps import Maps
from unit.memory_maps import SESSION, MemoryMap, MemoryMaps


class SmallMap(MemoryMap):
    """A map that takes no more than `max_entries`."""

    def update(self, key: Any, value: Mapping[str, Any]) -> None:
        if key not in self.records and len(self.records) >= self.max_entries:
            raise OSError(7, "Argument list too long")
        super().update(key, value)


class CounterMap(MemoryMap):
    """A map with per-CPU counters."""

    def __init__(self, fields: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.fields = list(fields)

    def sum_per_cpu(self, key: Any) -> dict[str, Any]:
        return self.lookup(key) or dict.fromkeys(self.fields, 0)


class CountedMaps(MemoryMaps):
    """All maps of an edge."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions = SmallMap(SESSION)
        self.counters = CounterMap(("received", "steered__rtp", "drop__no_session"))
        self.owner_counters = CounterMap(("steered_packets", "steered_bytes", "returned_packets"))

    def as_maps(self) -> Maps:
        return cast("Maps", self)
