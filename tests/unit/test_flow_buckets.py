"""How many buckets a flow table has."""

import pytest

from turnout.kernel.compile import compiler_flags, flow_buckets

# struct flow_bucket, and struct flow for each of its seven places.
BUCKET_BYTES = 64 + 7 * 40


@pytest.mark.parametrize("flows", [1024, 4096, 1 << 17, 1 << 20, 1 << 24])
def test_flow_buckets_are_even_have_room_and_cost_64_bytes_a_flow_at_most(flows: int) -> None:
    buckets = flow_buckets(flows)

    assert buckets % 2 == 0
    assert buckets * 7 * 0.8 > flows
    assert buckets * BUCKET_BYTES <= flows * 64


def test_compiler_flags_size_the_maps_and_carry_further_macros() -> None:
    flags = compiler_flags(4096, 100, ["TURNOUT_TEST_CLOCK"])

    assert flags[:4] == [
        f"-DFLOW_BUCKETS={flow_buckets(4096)}",
        "-DSESSIONS_MAX=100",
        "-DMETERS=8192",
        "-DTURNOUT_TEST_CLOCK",
    ]
