"""Several CPUs write to the flow table at once: it is right whenever they pause.

And the same is seen to fail for a table that is not made for that.
"""

import os
from collections.abc import Iterator

import crowd
import pytest

from turnout.kernel.compile import join_source

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs to have them meet"
)

STEPS = 80
ENTRIES_SWAPPED = "__sync_val_compare_and_swap(entry, old, new)"
BROKEN = {
    "an entry is replaced whatever it is by then": (
        ENTRIES_SWAPPED,
        "__sync_lock_test_and_set(entry, new) * 0 + old",
    ),
    "nobody looks for a rival": (
        "if (has_rival(one, tag, 0, order) | has_rival(two, tag, BUCKET_PLACES, order)) {",
        "if (0) {",
    ),
    "of two rivals the one in front stays": (
        "rivals |= same & (is_zero(order + i ^ ours) ^ 1);",
        "rivals |= same & ((is_zero(entry >> 16 & 0xff) ^ 1) | hide(order + i - ours) >> 63);",
    ),
}


@pytest.fixture(scope="module", params=["as-it-is", "slowed"])
def edge(request: pytest.FixtureRequest) -> Iterator[crowd.Edge]:
    source = join_source()
    with crowd.open_edge(crowd.slowed(source) if request.param == "slowed" else source) as opened:
        yield opened


def work(edge: crowd.Edge, workers: int, rounds: int) -> list[str]:
    """Let them work; returns the first faults that are found between two rounds."""
    before = crowd.reset(edge)
    with crowd.workers(edge, workers) as do_round:
        for number in range(rounds):
            do_round(number, STEPS)
            if found := crowd.faults(edge, before):
                return found
    return []


@pytest.mark.parametrize(("workers", "rounds"), [(2, 500), (6, 100)])
def test_table_is_right_whenever_all_pause(edge: crowd.Edge, workers: int, rounds: int) -> None:
    before = edge.datapath.maps.counters.sum_per_cpu(0)

    assert work(edge, workers, rounds) == []

    after = edge.datapath.maps.counters.sum_per_cpu(0)
    moved = {name for name in after if after[name] > before[name]}
    done = ("learned", "moved", "contested", "healed", "reclaimed", "evicted", "capped", "over_cap")
    assert moved >= {f"flow__{what}" for what in done} | {"swept__ended", "swept__idle"}


def test_no_place_is_lost_for_good(edge: crowd.Edge) -> None:
    assert work(edge, 4, 50) == []
    datapath = edge.datapath
    for number in range(crowd.SESSIONS):
        datapath.maps.sessions.delete(datapath.session_key(crowd.ufrag(number)))
    crowd.pass_ticks(datapath, 112)

    datapath.sweep()

    assert datapath.flows() == 0


@pytest.mark.parametrize(("there", "instead"), BROKEN.values(), ids=BROKEN)
def test_broken_table_is_seen_to_be_wrong(there: str, instead: str) -> None:
    source = crowd.replaced(crowd.slowed(join_source()), there, instead)
    with crowd.open_edge(source) as edge:
        assert work(edge, 2, 500)
