"""A short form of scripts/chaos: what is lost, and whose things are whose, when things happen.

How long anything took is not asserted: other tests run on the same machine.
"""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from chaos.judge import judge
from chaos.laboratory import open_stage
from chaos.rows import ROWS
from chaos.stage import Conditions, Stage

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(180)]

CONDITIONS = Conditions(
    seconds=1.0, flows=20, calls=2, transceivers=2, kills=3, talkers=8, lead=0.5
)
# What shows less than another row does, and what test_upgrade.py, test_drain.py and
# test_addresses.py show.
LEFT_OUT = {
    *("quiet", "agent-kill", "agent-restart", "transceiver-hang"),
    *("upgrade-x10", "abi-change", "refused-program", "drain", "address"),
}
_TIMES = (", s", ", ms")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage(CONDITIONS, print) as built:
        yield built


@pytest.mark.parametrize("name", [name for name in ROWS if name not in LEFT_OUT])
def test_event_loses_nothing_and_strays_nothing(stage: Stage, name: str) -> None:
    row = ROWS[name]
    with nullcontext() if row.among is None else row.among(stage):
        found, measured = stage.run(row.happen)
    assert measured.sent > CONDITIONS.flows * 50
    # A row is its own baseline here: gaps are times.
    results = judge(row, found, measured, quiet=measured)
    wrong = [one for one in results if not one.met and not one.name.endswith(_TIMES)]
    assert not wrong, measured
