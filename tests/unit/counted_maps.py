"""memory_maps with what only steering, metrics and status look at: records as keys, counters."""

from collections.abc import Iterator
from typing import Any, cast

from turnout.kernel.maps import Maps
from unit.memory_maps import MemoryMap, MemoryMaps


class RecordMap(MemoryMap):
    """A map with a record as its key, or with per-CPU counters, or with little room."""

    def __init__(self, fields: tuple[str, ...] = (), most: int = 1 << 20) -> None:
        super().__init__()
        self.fields = list(fields)
        self.max_entries = most

    def lookup(self, key: Any) -> dict[str, Any] | None:
        return super().lookup(_frozen(key))

    def update(self, key: Any, value: dict[str, Any]) -> None:
        if _frozen(key) not in self.records and len(self.records) >= self.max_entries:
            raise OSError(7, "Argument list too long")
        super().update(_frozen(key), value)

    def delete(self, key: Any) -> bool:
        return super().delete(_frozen(key))

    def items(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        for key, value in super().items():
            yield (dict(key) if isinstance(key, tuple) else key), value

    def sum_per_cpu(self, key: Any) -> dict[str, Any]:
        return self.lookup(key) or dict.fromkeys(self.fields, 0)


class CountedMaps(MemoryMaps):
    """All maps of an edge."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions = RecordMap()
        self.flows = RecordMap()
        self.counters = RecordMap(("received", "steered__rtp", "drop__no_session"))
        self.owner_counters = RecordMap(("steered_packets", "steered_bytes", "returned_packets"))

    def as_maps(self) -> Maps:
        return cast("Maps", self)


def _frozen(key: Any) -> Any:
    return tuple(sorted(key.items())) if isinstance(key, dict) else key
