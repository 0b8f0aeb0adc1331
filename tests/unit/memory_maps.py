"""The kernel's maps as dictionaries, for tests of what stands above them."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from turnout.kernel_settings import edge_key_bytes
from turnout.settings import Settings
from turnout.steering import Steering
from turnout.wire.siphash import siphash24

if TYPE_CHECKING:
    from turnout.kernel.maps import Maps

EDGE_KEY = (0x0706050403020100, 0x0F0E0D0C0B0A0908)


# Fields of bpf/abi.h that the kernel writes: they are there when the agent left them out.
SESSION = {
    **dict.fromkeys(("session_id", "check_tick", "checks", "failures"), 0),
    "hmac_inner": [0] * 5,
    "hmac_outer": [0] * 5,
    "flows": [0] * 16,
}
PLACES = 7
BUCKETS = 64


class MemoryMap:
    """A map without a kernel; records are copied in and out, as there.

    `blank` is what fields that are left out become; an array has a value under every key.
    """

    def __init__(
        self,
        blank: Mapping[str, Any] | None = None,
        *,
        entries: int = 1 << 20,
        is_array: bool = False,
    ) -> None:
        self.records: dict[Any, dict[str, Any]] = {}
        self.max_entries = entries
        self._blank = dict(blank or {})
        self._is_array = is_array

    def lookup(self, key: Any) -> dict[str, Any] | None:
        record = self.records.get(key, self._blank if self._is_array else None)
        return None if record is None else dict(record)

    def update(self, key: Any, value: Mapping[str, Any]) -> None:
        self.records[key] = {**self._blank, **value}

    def delete(self, key: Any) -> bool:
        return self.records.pop(key, None) is not None

    def whole(self) -> Iterator[dict[str, Any]]:
        for index in range(self.max_entries):
            yield dict(self.records.get(index, self._blank))

    def items(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        yield from list(self.records.items())


class MemoryMaps:
    """What Steering uses of Maps."""

    def __init__(self) -> None:
        self.settings = MemoryMap()
        self.lanes = MemoryMap()
        self.owners = MemoryMap()
        self.sessions = MemoryMap(SESSION)
        self.flows = MemoryMap({"entry": [0] * PLACES}, entries=BUCKETS, is_array=True)
        self.flow_details = MemoryMap(
            dict.fromkeys(("session_id", "ufrag_hash"), 0), entries=BUCKETS * PLACES, is_array=True
        )
        self.owner_flows = MemoryMap(dict.fromkeys(("flows", "unclaimed"), 0), is_array=True)
        self.settings.update(0, {"edge_key": list(EDGE_KEY)})

    def add_flow(self, place: int, ufrag: str, session_id: int) -> None:
        """Have a flow stand in a place of the table, noted by its session, as the kernel does."""
        ufrag_hash = siphash24(edge_key_bytes(EDGE_KEY), ufrag.encode())
        self.flow_details.update(place, {"session_id": session_id, "ufrag_hash": ufrag_hash})
        self.fill(place)
        entry = self.sessions.lookup(ufrag_hash)
        assert entry is not None
        free = entry["flows"].index(0)
        noted = [*entry["flows"][:free], place + 1, *entry["flows"][free + 1 :]]
        self.sessions.update(ufrag_hash, {**entry, "flows": noted})

    def fill(self, place: int, entry: int = 1 << 24 | 1 << 16) -> None:
        """Write an entry: tag, generation and slot; 0 empties the place."""
        bucket, at = divmod(place, PLACES)
        record = self.flows.lookup(bucket)
        assert record is not None
        record["entry"] = [*record["entry"][:at], entry, *record["entry"][at + 1 :]]
        self.flows.update(bucket, record)

    def session_of(self, ufrag: str) -> dict[str, Any] | None:
        """Return what the kernel would find for a ufrag."""
        return self.sessions.lookup(siphash24(edge_key_bytes(EDGE_KEY), ufrag.encode()))


def build_steering(maps: MemoryMaps, transceivers: int = 2) -> Steering:
    return Steering(cast("Maps", maps), Settings(transceivers=transceivers))
