"""Port ranges as ip_local_reserved_ports has them."""

import pytest

from turnout.portranges import build_port_ranges, parse_port_ranges


@pytest.mark.parametrize("text", ["", "80", "80,20000-20999", "1-2,4,6-8"])
def test_port_ranges_parsed_and_built_are_the_same_text(text: str) -> None:
    assert build_port_ranges(parse_port_ranges(text)) == text


def test_parse_port_ranges_with_newline_as_the_kernel_writes_it() -> None:
    assert parse_port_ranges("5-7,9\n") == {5, 6, 7, 9}


def test_build_port_ranges_after_taking_some_out_leaves_the_rest() -> None:
    left = parse_port_ranges("20000-21009") - parse_port_ranges("20500-20999")

    assert build_port_ranges(left) == "20000-20499,21000-21009"
