"""Fixtures of the system tests. One running edge serves a whole module where it can."""

import os
from collections.abc import Generator, Iterator

import pytest

from system.lab import Lab, open_lab, open_running_lab


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("privileged"):
            item.add_marker(pytest.mark.skip(reason="needs root: namespaces and BPF"))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return a laboratory with a running edge and two transceivers."""
    with open_running_lab() as running:
        yield running


@pytest.fixture
def bare_lab() -> Iterator[Lab]:
    """Return a laboratory of the test's own; the test starts the edge itself."""
    with open_lab() as built:
        yield built


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    laboratory = item.funcargs.get("lab") or item.funcargs.get("bare_lab")
    if report.failed and isinstance(laboratory, Lab):
        report.sections.append(("the edge's log", laboratory.edge.tail()))
    return report
