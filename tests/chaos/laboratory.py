"""Puts up what a stage stands on, network and edge, and takes it away however it ends."""

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chaos.chromium import open_chromium
from chaos.stage import Conditions, Stage
from system.edge_process import EdgeProcess
from system.lab import standing
from traffic.network import Network

Say = Callable[[str], None]
_numbers = itertools.count()


class _Laboratory:
    """What system.lab's `standing` puts up and takes down."""

    def __init__(self, directory: Path) -> None:
        uid = f"{os.getpid():x}{next(_numbers)}c"
        self.directory = directory
        self.namespaces = Network(uid)
        self.edge = EdgeProcess(
            self.namespaces, f"chaos{uid}", directory / "bpf", directory / "edge.log"
        )


@contextmanager
def open_stage(conditions: Conditions, say: Say) -> Iterator[Stage]:
    """Put everything up, and take it away however it ends."""
    directory = Path(tempfile.mkdtemp(prefix="tn-chaos-"))
    laboratory = _Laboratory(directory)
    with standing(laboratory, directory):
        edge = laboratory.edge
        say(f"== an edge in a namespace, {conditions.flows} flows, {conditions.calls} calls")
        with ExitStack() as browser:
            chromium = None
            if conditions.chromium:
                chromium = browser.enter_context(open_chromium(laboratory))
                say(f"== Chromium: {'is not installed' if chromium is None else 'one more call'}")
            stage = Stage(laboratory.namespaces, edge, conditions, chromium)
            try:
                stage.set_up()
                yield stage
            except BaseException:
                say(edge.tail(40))
                raise
            finally:
                stage.end()
        code = edge.stop()
        if (code, edge.leftovers()) != (0, []):
            raise RuntimeError(f"the edge ended with {code}, left {edge.leftovers()}")
