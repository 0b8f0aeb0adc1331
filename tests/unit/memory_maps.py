"""The kernel's maps as dictionaries, for tests of what stands above them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from turnout.kernel_settings import edge_key_bytes
from turnout.settings import Settings
from turnout.steering import Steering
from turnout.wire.siphash import siphash24

if TYPE_CHECKING:
    from turnout.kernel.maps import Maps

EDGE_KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)


class MemoryMap:
    """A map without a kernel; records are copied in and out, as there."""

    def __init__(self) -> None:
        self.records: dict[Any, dict[str, Any]] = {}
        self.max_entries = 1 << 20

    def lookup(self, key: Any) -> dict[str, Any] | None:
        record = self.records.get(key)
        return None if record is None else dict(record)

    def update(self, key: Any, value: dict[str, Any]) -> None:
        self.records[key] = dict(value)

    def delete(self, key: Any) -> bool:
        return self.records.pop(key, None) is not None

    def take(self, key: Any) -> dict[str, Any] | None:
        record = self.lookup(key)
        self.delete(key)
        return record

    def insert(self, key: Any, value: dict[str, Any]) -> bool:
        if self.lookup(key) is not None:
            return False
        self.update(key, value)
        return True

    def items(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        yield from list(self.records.items())


class MemoryMaps:
    """What Steering uses of Maps."""

    def __init__(self) -> None:
        self.settings = MemoryMap()
        self.lanes = MemoryMap()
        self.owners = MemoryMap()
        self.sessions = MemoryMap()
        self.flows = MemoryMap()
        self.settings.update(0, {"edge_key": list(EDGE_KEY)})

    def session_of(self, ufrag: str) -> dict[str, Any] | None:
        """Return what the kernel would find for a ufrag."""
        return self.sessions.lookup(siphash24(edge_key_bytes(EDGE_KEY), ufrag.encode()))


def build_steering(maps: MemoryMaps, transceivers: int = 2) -> Steering:
    return Steering(cast("Maps", maps), Settings(transceivers=transceivers))
