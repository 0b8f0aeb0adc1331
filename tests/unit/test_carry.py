"""Values of one ABI in the layout of another, by the names of their fields."""

import pytest

from turnout.errors import LayoutError
from turnout.kernel.btf import Array, Opaque, Scalar, Struct
from turnout.kernel.carry import convert

U8, U16, U32, U64 = Scalar(1), Scalar(2), Scalar(4), Scalar(8)
OWNER_ID = Struct("owner_id", 4, {"slot": (0, U16), "generation": (2, U8), "reserved": (3, U8)})
WIDER_ID = Struct("owner_id", 8, {"generation": (0, U32), "slot": (4, U32)})
OLD = Struct("session", 16, {"id": (0, U64), "owner": (8, OWNER_ID), "gone": (12, U32)})
NEW = Struct("session", 24, {"added": (0, U64), "owner": (8, WIDER_ID), "id": (16, U64)})


def carried(value: object, old: Struct, new: Struct) -> dict[str, object]:
    return new.unpack(new.pack(convert(old.unpack(old.pack(value)), new)))  # type: ignore[arg-type]


def test_convert_fields_go_by_name_wherever_they_stand_and_however_wide() -> None:
    value = {"id": 7, "owner": {"slot": 3, "generation": 200}, "gone": 5}
    assert carried(value, OLD, NEW) == {
        "added": 0,
        "owner": {"generation": 200, "slot": 3},
        "id": 7,
    }


def test_convert_there_and_back_is_the_same() -> None:
    value = {"id": 2**63, "owner": {"slot": 65535, "generation": 255}}
    assert OLD.unpack(OLD.pack(convert(convert(value, NEW), OLD))) == value | {"gone": 0}


def test_convert_number_that_does_not_fit_is_refused_by_field() -> None:
    with pytest.raises(LayoutError, match=r"owner\.generation is 256, which u8"):
        convert({"owner": {"slot": 1, "generation": 256}}, OLD)


def test_convert_array_grows_with_zeros_and_shrinks_only_where_nothing_is_lost() -> None:
    assert convert([1, 2], Array(U32, 4)) == [1, 2, 0, 0]
    assert convert([1, 2, 0, 0], Array(U32, 2)) == [1, 2]
    with pytest.raises(LayoutError, match="flows has 3 elements where 2 have room"):
        convert([1, 2, 3], Array(U32, 2), "flows")


def test_convert_address_of_another_length_is_refused() -> None:
    assert convert(bytes(16), Opaque(16)) == bytes(16)
    with pytest.raises(LayoutError, match="client is"):
        convert(bytes(4), Opaque(16), "client")
