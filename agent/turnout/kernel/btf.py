"""Layouts of map keys and values, read from the map's own BTF.

C (bpf/abi.h) is the only declaration of every struct; this turns what the kernel keeps of it
into codecs between bytes and Python values. Format: Documentation/bpf/btf.rst. Called by maps.py
and by the loader, which compares layouts before it adopts a pinned map.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from turnout.errors import LayoutError

_MAGIC = 0xEB9F
_INT, _POINTER, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = 1, 2, 3, 4, 5, 6, 7, 8
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC = 9, 10, 11, 12, 13, 14, 15
_FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = 16, 17, 18, 19
_ALIASES = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)

_SCALAR_LETTERS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Codec(Protocol):
    """Bytes of a fixed size <-> a Python value."""

    @property
    def size(self) -> int:
        """Bytes."""

    def pack(self, value: Any) -> bytes:
        """Build the bytes."""

    def unpack(self, data: bytes) -> Any:
        """Read the value."""

    def describe(self) -> str:
        """Name the layout, so that two can be compared and shown."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """An unsigned integer in the machine's byte order (__be16 too: bytes are not swapped)."""

    size: int

    @property
    def letter(self) -> str:
        """Its letter in a format of the struct module."""
        return _SCALAR_LETTERS[self.size]

    def pack(self, value: int) -> bytes:
        """Build the bytes; struct.error when the value does not fit."""
        return struct.pack(f"<{self.letter}", value)

    def unpack(self, data: bytes) -> int:
        """Read the integer."""
        return int.from_bytes(data, "little")

    def describe(self) -> str:
        """Say u8 to u64."""
        return f"u{self.size * 8}"


@dataclass(frozen=True, slots=True)
class Array:
    """Elements of one kind: a list. A struct that is one array is unpacked as a struct."""

    element: Codec
    count: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.element.size * self.count

    def pack(self, value: list[Any]) -> bytes:
        """Build the bytes from exactly `count` elements."""
        if len(value) != self.count:
            msg = f"{len(value)} elements for an array of {self.count}"
            raise LayoutError(msg)
        return b"".join(self.element.pack(element) for element in value)

    def unpack(self, data: bytes) -> list[Any]:
        """Read the elements."""
        if isinstance(self.element, Scalar):
            return list(struct.unpack(f"<{self.count}{self.element.letter}", data))
        size = self.element.size
        return [self.element.unpack(data[i * size : (i + 1) * size]) for i in range(self.count)]

    def describe(self) -> str:
        """Say element and count."""
        return f"{self.element.describe()}[{self.count}]"


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bytes as they are: `struct address`, whose words are in network byte order."""

    size: int

    def pack(self, value: bytes) -> bytes:
        """Check the length."""
        if len(value) != self.size:
            msg = f"{len(value)} bytes where {self.size} are needed"
            raise LayoutError(msg)
        return bytes(value)

    def unpack(self, data: bytes) -> bytes:
        """Return the bytes."""
        return data

    def describe(self) -> str:
        """Say how many."""
        return f"bytes{self.size}"


@dataclass(frozen=True, slots=True)
class Struct:
    """Named fields at their offsets: a dict. Fields left out of a pack are zero."""

    name: str
    size: int
    fields: Mapping[str, tuple[int, Codec]]

    def pack(self, value: Mapping[str, Any]) -> bytes:
        """Build the bytes; LayoutError for a field that C does not have."""
        data = bytearray(self.size)
        for name, field_value in value.items():
            if name not in self.fields:
                msg = f"struct {self.name} has no field {name!r}, only {', '.join(self.fields)}"
                raise LayoutError(msg)
            offset, codec = self.fields[name]
            data[offset : offset + codec.size] = codec.pack(field_value)
        return bytes(data)

    def unpack(self, data: bytes) -> dict[str, Any]:
        """Read every field but the reserved ones."""
        return {
            name: codec.unpack(data[offset : offset + codec.size])
            for name, (offset, codec) in self.fields.items()
            if name != "reserved"
        }

    def describe(self) -> str:
        """Name, size and every field with its offset."""
        fields = ", ".join(f"{n}@{o}:{c.describe()}" for n, (o, c) in self.fields.items())
        return f"{self.name}/{self.size}{{{fields}}}"


@dataclass(frozen=True, slots=True)
class _Type:
    kind: int
    name: str
    size_or_type: int
    members: list[tuple[str, int, int]]  # name, type id, offset in bits
    array: tuple[int, int]  # element type id, count


class Btf:
    """One BTF blob, parsed."""

    def __init__(self, blob: bytes) -> None:
        magic, _, _, header, type_at, type_bytes, text_at, text_bytes = struct.unpack_from(
            "<HBBIIIII", blob
        )
        if magic != _MAGIC:
            msg = f"BTF starts with {magic:#x}, not {_MAGIC:#x}"
            raise LayoutError(msg)
        self._text = blob[header + text_at : header + text_at + text_bytes]
        self._types: list[_Type] = [_Type(0, "void", 0, [], (0, 0))]
        self._parse_types(blob[header + type_at : header + type_at + type_bytes])

    def codec(self, type_id: int) -> Codec:
        """Build the codec of a type; LayoutError for kinds that no map of ours holds."""
        found = self._types[type_id]
        while found.kind in _ALIASES:
            found = self._types[found.size_or_type]
        if found.kind in (_INT, _ENUM):
            return Scalar(found.size_or_type)
        if found.kind == _ARRAY:
            return Array(self.codec(found.array[0]), found.array[1])
        if found.kind == _STRUCT and found.name == "address":
            return Opaque(found.size_or_type)
        if found.kind == _STRUCT:
            return Struct(
                found.name,
                found.size_or_type,
                {name: (bits // 8, self.codec(at)) for name, at, bits in found.members},
            )
        msg = f"BTF type {type_id} ({found.name or 'unnamed'}) has kind {found.kind}"
        raise LayoutError(msg)

    def _string(self, offset: int) -> str:
        return self._text[offset : self._text.index(b"\0", offset)].decode()

    def _parse_types(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            name, info, size_or_type = struct.unpack_from("<III", data, at)
            at += 12
            kind, count, bitfields = info >> 24 & 0x1F, info & 0xFFFF, info >> 31
            members: list[tuple[str, int, int]] = []
            array = (0, 0)
            if kind in (_STRUCT, _UNION):
                for i in range(count):
                    label, type_id, bits = struct.unpack_from("<III", data, at + 12 * i)
                    members.append(
                        (self._string(label), type_id, bits & 0xFFFFFF if bitfields else bits)
                    )
            elif kind == _ARRAY:
                element, _, length = struct.unpack_from("<III", data, at)
                array = (element, length)
            at += _trailing_bytes(kind, count)
            self._types.append(_Type(kind, self._string(name), size_or_type, members, array))


def _trailing_bytes(kind: int, count: int) -> int:
    """Bytes that follow a type's 12-byte head."""
    each = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
    fixed = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
    return each.get(kind, 0) * count + fixed.get(kind, 0)
