"""Fixtures of the tests with other people's clients: the system tests' laboratory."""

import os
from collections.abc import Iterator

import pytest

from system.lab import Lab, open_running_lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Return a laboratory with a running edge and two transceivers."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces and BPF")
    with open_running_lab() as running:
        yield running
