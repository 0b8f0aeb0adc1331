"""Typed views of the pinned maps; names, offsets and sizes come from the maps' BTF.

A value is a dict by field name; a scalar key or value is an int, an address 16 bytes. Per-CPU
values are summed. Called by kernel_settings.py (the one writer of settings), by steering.py and its
tables (of lanes, owners and sessions), metrics.py and status.py.
"""

import mmap
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Self

from turnout.closing import Closing
from turnout.errors import KernelError, LayoutError
from turnout.kernel import bpf
from turnout.kernel.btf import Btf, Codec, Struct
from turnout.kernel.pins import MAPS, Pins

Record = dict[str, Any]
Key = int | Record
Value = int | Record

_PER_CPU = (5, 6, 10, 21)  # enum bpf_map_type: PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, ...


@cache
def possible_cpus() -> int:
    """How many values a per-CPU map holds for a key."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.replace(",", "-").rsplit("-", 1)[-1]) + 1


def codecs(info: bpf.MapInfo) -> tuple[Codec, Codec]:
    """Key and value codec of a map; LayoutError when it carries no BTF."""
    if not info.btf_id or not info.btf_value_type_id:
        msg = f"map {info.name} carries no BTF: it was not made by this version of turnout"
        raise LayoutError(msg)
    btf = Btf(bpf.btf_bytes(info.btf_id))
    return btf.codec(info.btf_key_type_id), btf.codec(info.btf_value_type_id)


class KernelMap(Closing):
    """One open map."""

    def __init__(self, fd: int) -> None:
        self._fd = bpf.Fd(fd)
        self.info = bpf.map_info(fd)
        self._key, self._value = codecs(self.info)
        self.per_cpu = self.info.type in _PER_CPU
        # Per-CPU values are padded to 8 bytes each (Documentation/bpf/map_hash.rst).
        self._stride = -(-self.info.value_size // 8) * 8
        self._value_bytes = self._stride * possible_cpus() if self.per_cpu else self.info.value_size

    @property
    def fields(self) -> list[str]:
        """Names of the value's fields, in C's order; empty for a scalar."""
        return list(self._value.fields) if isinstance(self._value, Struct) else []

    @property
    def layout(self) -> Codec:
        """How a value is made up."""
        return self._value

    @property
    def max_entries(self) -> int:
        """How many entries the map was made for."""
        return self.info.max_entries

    def lookup(self, key: Key) -> Record | None:
        """Read one value; None when the key is absent."""
        data = bpf.lookup(self._fd, self._key.pack(key), self._value_bytes)
        return None if data is None else self._read(data)

    def update(self, key: Key, value: Value) -> None:
        """Write one value; fields that are left out become zero. OSError E2BIG: the map is full.

        Every CPU of a per-CPU map gets it.
        """
        data = self._value.pack(value)
        if self.per_cpu:
            data = data.ljust(self._stride, b"\0") * possible_cpus()
        bpf.update(self._fd, self._key.pack(key), data)

    def put_sum(self, key: Key, total: Value) -> None:
        """Write a value of a per-CPU map of which nobody counts yet: one CPU gets all of it."""
        data = self._value.pack(total).ljust(self._stride, b"\0")
        bpf.update(self._fd, self._key.pack(key), data.ljust(self._value_bytes, b"\0"))

    def delete(self, key: Key) -> bool:
        """Delete one entry; False when it was absent."""
        return bpf.delete(self._fd, self._key.pack(key))

    def keys(self) -> Iterator[Any]:
        """Walk the keys; entries that come or go meanwhile may be missed or seen twice."""
        key = bpf.next_key(self._fd, None, self.info.key_size)
        while key is not None:
            yield self._key.unpack(key)
            key = bpf.next_key(self._fd, key, self.info.key_size)

    def items(self) -> Iterator[tuple[Any, Record]]:
        """Walk keys and values."""
        key = bpf.next_key(self._fd, None, self.info.key_size)
        while key is not None:
            # First the next key: the caller may delete this one, and a walk from a deleted
            # key starts over.
            following = bpf.next_key(self._fd, key, self.info.key_size)
            data = bpf.lookup(self._fd, key, self._value_bytes)
            if data is not None:
                yield self._key.unpack(key), self._read(data)
            key = following

    def whole(self) -> Iterator[Record]:
        """Walk all values of an array made with BPF_F_MMAPABLE, in order, without a call each.

        A value that the kernel writes meanwhile may be read half; an aligned word never is.
        """
        with self.mapped() as table:
            for at in range(0, len(table), self._stride):
                yield self._value.unpack(table[at : at + self.info.value_size])

    def mapped(self, *, is_writable: bool = False) -> mmap.mmap:
        """Map an array made with BPF_F_MMAPABLE into memory, a value each 8-byte-rounded size."""
        length_bytes = self._stride * self.max_entries
        return bpf.mapped(self._fd, length_bytes, is_writable=is_writable)

    def sum_per_cpu(self, key: Key) -> Record:
        """Sum the CPUs' values field by field."""
        record = self.lookup(key)
        if record is None:
            msg = f"map {self.info.name} has no key {key!r}"
            raise KernelError(msg)
        return record

    def close(self) -> None:
        """Close the descriptor; the map stays while it is pinned or used."""
        self._fd.close()

    def _read(self, data: bytes) -> Record:
        if not self.per_cpu:
            return self._value.unpack(data)  # type: ignore[no-any-return]
        values = [
            self._value.unpack(data[at : at + self.info.value_size])
            for at in range(0, len(data), self._stride)
        ]
        if not isinstance(self._value, Struct):
            return sum(values)  # type: ignore[no-any-return]
        total: Record = {}
        for one in values:
            for name, count in one.items():
                total[name] = total.get(name, 0) + count
        return total


class Maps(Closing):
    """All maps of one instance."""

    def __init__(self, opened: dict[str, KernelMap]) -> None:
        self._opened = opened
        self.settings = opened["settings"]
        self.lanes = opened["lanes"]
        self.owners = opened["owners"]
        self.sessions = opened["sessions"]
        self.flows = opened["flows"]
        self.flow_details = opened["flow_details"]
        self.owner_flows = opened["owner_flows"]
        self.meters = opened["meters"]
        self.prefix_meters = opened["prefix_meters"]
        self.counters = opened["counters"]
        self.owner_counters = opened["owner_counters"]

    @classmethod
    def open(cls, pins: Pins) -> Self:
        """Open the pinned maps; KernelError when the loader has not run."""
        opened: dict[str, KernelMap] = {}
        for name in MAPS:
            try:
                opened[name] = KernelMap(bpf.open_pin(pins.map(name)))
            except OSError as error:
                other = ", ".join(one.directory.name for one in pins.versions())
                todo = f"{other} is pinned: `turnout upgrade`" if other else "`turnout run` first"
                msg = f"map {name} of instance {pins.instance}: {error}; {todo}"
                raise KernelError(msg) from error
        return cls(opened)

    @classmethod
    def of_descriptors(cls, descriptors: dict[str, int]) -> Self:
        """Take maps that are open but not pinned (tests); descriptors are duplicated."""
        return cls({name: KernelMap(os.dup(fd)) for name, fd in descriptors.items()})

    def close(self) -> None:
        """Close all descriptors."""
        for opened in self._opened.values():
            opened.close()
