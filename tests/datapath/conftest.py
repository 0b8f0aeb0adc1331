import os
from collections.abc import Iterator

import pytest

from datapath import Datapath
from turnout.kernel.compile import compile_programs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        item.add_marker(pytest.mark.skip(reason="BPF_PROG_TEST_RUN needs root"))


@pytest.fixture(scope="session")
def _loaded() -> Iterator[Datapath]:
    with compile_programs(
        flows_max=256, sessions_max=4096, defines=["TURNOUT_TEST_CLOCK"]
    ) as compiled:
        datapath = Datapath(compiled)
        yield datapath
        datapath.close()


@pytest.fixture
def datapath(_loaded: Datapath) -> Datapath:
    _loaded.reset()
    return _loaded
