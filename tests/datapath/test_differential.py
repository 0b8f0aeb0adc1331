"""The programs against the reference: a short run of the differential fuzzer, and what it found.

The long one is scripts/fuzz. A vector in tests/vectors/steering is a sequence of steps in which the
two once differed.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.differential import VECTORS, run_steps
from fuzz.generate import generate
from fuzz.pair import Pair
from fuzz.program import Program, compile_for_test, one_cpu
from fuzz.seeded import BUGS, Bug, seed_bug
from fuzz.steps import read_steps, write_steps
from turnout.kernel.compile import join_source

SEQUENCES = 6


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with one_cpu(), compile_for_test() as compiled:
        program = Program(compiled)
        yield Pair(program)
        program.close()


@pytest.mark.parametrize("number", range(SEQUENCES))
def test_programs_and_reference_do_the_same(pair: Pair, number: int) -> None:
    before = dict(pair.moved)

    _, differences = run_steps(pair, generate(f"test/{number}", packets=2000))

    assert differences == []
    assert pair.moved["flow__learned"] > before["flow__learned"]


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.json")), ids=lambda path: path.stem)
def test_what_once_differed_is_the_same_now(pair: Pair, path: Path) -> None:
    _, differences = run_steps(pair, read_steps(path), every=1)
    assert differences == []


def test_steps_are_the_same_after_they_were_written(tmp_path: Path) -> None:
    steps = list(generate("written", packets=200))
    write_steps(tmp_path / "steps.json", "why", steps)
    assert read_steps(tmp_path / "steps.json") == steps


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_seeded_bug_still_has_its_place_in_the_source(bug: Bug) -> None:
    assert seed_bug(join_source(), bug) != join_source()
