"""Carries what the maps of one ABI hold into the maps of another, while the old programs steer.

`copy` may be called as often as one likes before the programs are swapped, each time it makes the
new maps what the old ones are. `merge` comes after the swap: what the old programs still learned in
the moments before it, where the new ones have not come first. Values are converted by the names of
their fields. The flow table stays as it is, place by place: a version whose table has another form
or hashes otherwise must give `struct flow_bucket` another name, and cannot be upgraded to in place.

Not carried: rates (`meters`, `prefix_meters`: they are of one second) and what the sweep counted.
Called by the loader.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from turnout.closing import Closing
from turnout.errors import LayoutError
from turnout.kernel import bpf
from turnout.kernel.btf import Array, Codec, Opaque, Scalar, Struct
from turnout.kernel.maps import KernelMap
from turnout.kernel.pins import Pins

_TAG_SHIFT = 25  # bpf/flows.h ENTRY_TAG_SHIFT
_GENERATION = 0xFF0000  # bpf/abi.h: an entry without one is a place that some CPU is filling
_ARRAYS = (2, 6)  # enum bpf_map_type: ARRAY, PERCPU_ARRAY
_ENTRY_MAPS = ("settings", "owners", "lanes", "sessions", "counters", "owner_counters")


def convert(value: Any, codec: Codec, name: str = "") -> Any:
    """Convert an unpacked value to another layout, by field names.

    Fields that are new are left out and so become zero, fields that are gone are left away. Raises
    LayoutError, with the field, when a value does not fit.
    """
    if isinstance(codec, Struct) and isinstance(value, dict):
        return {
            field: convert(value[field], inner, f"{name}.{field}".lstrip("."))
            for field, (_, inner) in codec.fields.items()
            if field in value
        }
    if isinstance(codec, Array) and isinstance(value, list):
        kept, rest = value[: codec.count], value[codec.count :]
        if any(rest):
            raise LayoutError(f"{name} has {len(value)} elements where {codec.count} have room")
        zero = codec.unpack(bytes(codec.size))
        return [convert(one, codec.element, name) for one in kept] + zero[len(kept) :]
    if isinstance(codec, Scalar) and isinstance(value, int):
        if value >> 8 * codec.size:
            raise LayoutError(f"{name} is {value}, which {codec.describe()} does not hold")
        return value
    if isinstance(codec, Opaque) and isinstance(value, bytes) and len(value) == codec.size:
        return value
    raise LayoutError(f"{name} is {value!r}, which {codec.describe()} cannot take over")


class Carry(Closing):
    """The maps of two versions, open."""

    def __init__(self, old: Pins, new: Pins) -> None:
        """Open both; LayoutError when the flow table is of another form."""
        with ExitStack() as opened:
            self._entries = {
                name: _Entries(*_open_both(old, new, name, opened)) for name in _ENTRY_MAPS
            }
            self._flows = Flows(
                *_open_both(old, new, "flows", opened),
                *_open_both(old, new, "flow_details", opened),
            )
            self._opened = opened.pop_all()

    def copy(self) -> None:
        """Make the new maps, which nobody reads yet, what the old ones are now.

        Raises LayoutError when something cannot be carried over.
        """
        self._entries["settings"].copy()
        self._entries["owners"].copy()
        owners = self._entries["owners"].known
        self._entries["lanes"].copy(owner["lane"] for owner in owners.values() if owner["lane"])
        self._entries["owner_counters"].copy(owners)
        self._entries["counters"].copy()
        self._entries["sessions"].copy()
        self._flows.copy()

    def merge(self) -> None:
        """Add what the old programs did since the last copy; the new ones steer already."""
        self._flows.merge()
        self._entries["sessions"].merge()

    @property
    def carried(self) -> dict[str, int]:
        """How many owners, sessions and flows the last copy found."""
        owners = self._entries["owners"].known.values()
        return {
            "owners": sum(1 for owner in owners if owner["lane"]),
            "sessions": len(self._entries["sessions"].known),
            "flows": self._flows.count,
        }

    def close(self) -> None:
        """Close all maps."""
        self._opened.close()


def _open_both(old: Pins, new: Pins, name: str, opened: ExitStack) -> tuple[KernelMap, KernelMap]:
    both = []
    for pins in (old, new):
        try:
            table = KernelMap(bpf.open_pin(pins.map(name)))
        except OSError as error:
            raise LayoutError(
                f"map {name} cannot be carried over: {error}; `turnout down` and start anew"
            ) from error
        opened.callback(table.close)
        both.append(table)
    return both[0], both[1]


class _Entries:
    """A map that is copied key by key; `known`: what the last copy found, empty values left out."""

    def __init__(self, old: KernelMap, new: KernelMap) -> None:
        self.known: dict[int, Any] = {}
        self._old = old
        self._new = new
        # What an array holds where nobody has written.
        self._nothing = old.layout.unpack(bytes(old.layout.size))
        self._is_array = old.info.type in _ARRAYS

    def copy(self, keys: Iterable[int] | None = None) -> None:
        """Copy what has changed since the last time, of these keys or of all."""
        looked_at = self._old.keys() if keys is None else keys
        read = ((key, self._old.lookup(key)) for key in looked_at)
        found = {key: one for key, one in read if one is not None and one != self._nothing}
        for key in self.known.keys() - found.keys():
            if self._is_array:
                self._put(key, self._nothing)
            else:
                self._new.delete(key)
        for key, value in found.items():
            if value != self.known.get(key):
                self._put(key, value)
        self.known = found

    def merge(self) -> None:
        """Copy what has changed since, where the new programs have left it as it was."""
        for key, copied in self.known.items():
            value, there = self._old.lookup(key), self._new.lookup(key)
            if value is None or value == copied or there is None:
                continue
            if self._packed(there) == self._packed(copied):
                self._put(key, value)

    def _put(self, key: int, value: Any) -> None:
        converted = self._converted(value)
        try:
            if self._new.per_cpu:
                self._new.put_sum(key, converted)
            else:
                self._new.update(key, converted)
        except OSError as error:
            # E2BIG: the new map is smaller.
            name, room = self._new.info.name, self._new.max_entries
            raise LayoutError(
                f"map {name} has room for {room} entries and does not take entry {key:#x}: "
                f"{error.strerror}; end some of what it holds and try again"
            ) from error

    def _packed(self, value: Any) -> bytes:
        return self._new.layout.pack(self._converted(value))

    def _converted(self, value: Any) -> Any:
        return convert(value, self._new.layout, self._new.info.name)


class Flows:
    """The flow table: `flows`, bucket by bucket as it is, and the details of each place."""

    def __init__(
        self, old: KernelMap, new: KernelMap, old_details: KernelMap, new_details: KernelMap
    ) -> None:
        for was, now in ((old, new), (old_details, new_details)):
            if was.max_entries != now.max_entries:
                raise LayoutError(
                    f"flows cannot be carried over: {was.info.name} has {was.max_entries} entries "
                    f"and would have {now.max_entries}; keep flow_table, or start anew"
                )
        if old.layout.describe() != new.layout.describe():
            raise LayoutError(
                f"flows cannot be carried over: a bucket is {old.layout.describe()} and would be "
                f"{new.layout.describe()}; `turnout down` and start anew"
            )
        self._places = old_details.max_entries // old.max_entries
        # bpf/abi.h struct flow_bucket: a byte each, behind the words.
        self._age_at = self._places * 8
        self._bucket_bytes = old.layout.size
        self._old, self._new = old, new
        self._old_details, self._new_details = old_details, new_details
        self._is_same = old_details.layout.describe() == new_details.layout.describe()
        self._entries = bytes(old.layout.size * old.max_entries)
        self._details = bytes(_rounded(old_details.layout.size) * old_details.max_entries)

    @property
    def count(self) -> int:
        """How many flows the last copy found."""
        places = range(self._places * self._old.max_entries)
        return sum(1 for place in places if self._word(self._entries, place))

    def copy(self) -> None:
        """Copy the whole table."""
        entries, details = self._read()
        with self._new_details.mapped(is_writable=True) as table:
            if self._is_same:
                table[:] = details
            else:
                for place in self._changed(entries, details):
                    if self._word(entries, place):
                        self._write_details(table, place, details)
        with self._new.mapped(is_writable=True) as table:
            table[:] = entries
        self._entries, self._details = entries, details

    def merge(self) -> None:
        """Copy the places that have changed since, but for those that the new programs changed."""
        entries, details = self._read()
        with (
            self._new.mapped(is_writable=True) as table,
            self._new_details.mapped(is_writable=True) as details_table,
            memoryview(table) as raw,
            raw.cast("Q") as words,
        ):
            changed = list(self._changed(entries, details))
            # A tag that stands twice in a bucket is found no more: what the new programs have
            # learned too stays as they have it, wherever that is.
            learned = self._tags_since(table[:])
            for place in changed:
                word, at = self._word(entries, place), self._at(place)
                if words[at // 8] != self._word(self._entries, place):
                    continue
                if word >> _TAG_SHIFT in learned:
                    continue
                self._write_details(details_table, place, details)
                bucket, number = divmod(place, self._places)
                age = bucket * self._bucket_bytes + self._age_at + number
                raw[age] = entries[age]
                # Last, and one word at once: who sees it sees all of it.
                words[at // 8] = word

    def _read(self) -> tuple[bytes, bytes]:
        """Read the old table; places that are being filled count as empty."""
        with self._old.mapped() as table:
            entries = bytearray(table[:])
        # After the entries: details are written before the entry that leads to them.
        with self._old_details.mapped() as table:
            details = table[:]
        for bucket in self._buckets_since(entries):
            for place in self._places_of(bucket):
                if not self._word(entries, place) & _GENERATION:
                    entries[self._at(place) : self._at(place) + 8] = bytes(8)
        return bytes(entries), details

    def _changed(self, entries: bytes, details: bytes) -> Iterator[int]:
        """Yield the places of the old table that have changed since the last copy."""
        entries_changed = set(self._buckets_since(entries))
        size = _rounded(self._old_details.layout.size) * self._places
        for bucket, at in enumerate(range(0, len(details), size)):
            if (
                bucket in entries_changed
                or self._details[at : at + size] != details[at : at + size]
            ):
                for place in self._places_of(bucket):
                    was, now = self._word(self._entries, place), self._word(entries, place)
                    if was != now or self._differs(place, details):
                        yield place

    def _tags_since(self, entries: bytes) -> set[int]:
        """Return the tags that stand where they did not at the last copy."""
        tags = set()
        for bucket in self._buckets_since(entries):
            for place in self._places_of(bucket):
                tag = self._word(entries, place) >> _TAG_SHIFT
                if tag != self._word(self._entries, place) >> _TAG_SHIFT:
                    tags.add(tag)
        return tags - {0}

    def _buckets_since(self, entries: bytes | bytearray) -> Iterator[int]:
        """Yield the buckets whose entries, not ages, are others than at the last copy."""
        was, size = self._entries, self._places * 8
        for bucket, at in enumerate(range(0, len(was), self._bucket_bytes)):
            if entries[at : at + size] != was[at : at + size]:
                yield bucket

    def _places_of(self, bucket: int) -> range:
        return range(bucket * self._places, (bucket + 1) * self._places)

    def _at(self, place: int) -> int:
        bucket, number = divmod(place, self._places)
        return bucket * self._bucket_bytes + number * 8

    def _word(self, entries: bytes | bytearray, place: int) -> int:
        at = self._at(place)
        return int.from_bytes(entries[at : at + 8], sys.byteorder)

    def _differs(self, place: int, details: bytes) -> bool:
        size = _rounded(self._old_details.layout.size)
        at = place * size
        return details[at : at + size] != self._details[at : at + size]

    def _write_details(self, table: Any, place: int, details: bytes) -> None:
        was, now = self._old_details.layout, self._new_details.layout
        at, to = place * _rounded(was.size), place * _rounded(now.size)
        converted = convert(was.unpack(details[at : at + was.size]), now, "flow_details")
        table[to : to + now.size] = now.pack(converted)


def _rounded(size: int) -> int:
    """Return the bytes from one value of an array to the next."""
    return -(-size // 8) * 8
