"""Addresses as the kernel's maps hold them."""

import pytest

from turnout.wire.mapped_address import build_mapped, parse_mapped


@pytest.mark.parametrize("address", ["192.0.2.2", "2001:db8::2"])
def test_build_mapped_and_back_gives_the_same_address(address: str) -> None:
    assert str(parse_mapped(build_mapped(address))) == address


def test_build_mapped_ipv4_is_v4_mapped() -> None:
    assert build_mapped("192.0.2.2").hex() == "00000000000000000000ffffc0000202"
