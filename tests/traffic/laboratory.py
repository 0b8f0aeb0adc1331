"""What a stage stands on, network and edge: put up, and taken away however it ends."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from system.edge_process import EdgeProcess
from system.lab import standing
from traffic.network import Network

_numbers = itertools.count()


class Laboratory:
    """What system.lab's `standing` puts up and takes down."""

    def __init__(self, kind: str, directory: Path) -> None:
        # Another letter than the system tests' laboratories and those of other kinds have.
        uid = f"{os.getpid():x}{next(_numbers)}{kind[0]}"
        self.directory = directory
        self.namespaces = Network(uid)
        self.edge = EdgeProcess(
            self.namespaces, f"{kind}{uid}", directory / "bpf", directory / "edge.log"
        )


@contextmanager
def open_laboratory(kind: str) -> Iterator[Laboratory]:
    """Put it up for what plays in it; the edge that was started there has to end well."""
    directory = Path(tempfile.mkdtemp(prefix=f"tn-{kind}-"))
    laboratory = Laboratory(kind, directory)
    with standing(laboratory, directory):
        edge = laboratory.edge
        yield laboratory
        code = edge.stop()
        if (code, edge.leftovers()) != (0, []):
            raise RuntimeError(f"the edge ended with {code}, left {edge.leftovers()}")
