"""What the benchmarks make of their samples."""

import os

import pytest

from bench.timing import Samples, Spread, Timed, ratio, run_rounds


def test_spread_is_median_and_quartiles() -> None:
    assert Spread.over([5.0, 1.0, 4.0, 2.0, 3.0]) == Spread(median=3.0, low=2.0, high=4.0)
    assert Spread.over([7.0]) == Spread(7.0, 7.0, 7.0)
    assert f"{Spread(3.0, 2.04, 4.0):.1f}" == "3.0 (2.0 to 4.0)"


def test_ratio_is_formed_within_each_round() -> None:
    # Both rows drift by a factor of ten; the ratio stands.
    assert ratio([20.0, 200.0, 40.0], [10.0, 100.0, 20.0]).median == 2.0


def test_samples_less_another_row_lose_what_that_adds_to_its_base() -> None:
    samples = Samples([{"row": 30.0, "alone": 12.0, "nothing": 8.0}])
    assert samples.of("row") == [30.0]
    assert samples.of("row", ("alone", "nothing")) == [26.0]


def test_rounds_run_every_row_once_a_round_and_verify_all_that_was_sent() -> None:
    sent: list[tuple[str, int]] = []
    verified: list[int] = []

    def timed(name: str) -> Timed:
        total = [0]

        def prepare() -> None:
            total[0] = 0

        def run(packets: int) -> None:
            total[0] += packets
            sent.append((name, packets))

        def verify(packets: int) -> None:
            assert packets == total[0]
            verified.append(packets)

        return Timed(100, prepare, run, verify)

    samples = run_rounds({"a": timed("a"), "b": timed("b")}, 2)

    assert [list(one) for one in samples.rounds] == [["a", "b"], ["a", "b"]]
    assert len(verified) == 4
    assert [name for name, packets in sent if packets > 100] == ["a", "b", "a", "b"]


def test_run_that_raises_gives_the_other_cpus_back() -> None:
    before = os.sched_getaffinity(0)

    def refuse(_packets: int) -> None:
        raise RuntimeError("refused")

    with pytest.raises(RuntimeError, match="refused"):
        run_rounds({"a": Timed(1, lambda: None, refuse, refuse)}, 1)
    assert os.sched_getaffinity(0) == before
