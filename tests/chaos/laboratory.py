"""Puts up what a stage stands on, network and edge, and takes it away however it ends."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from chaos.chromium import open_chromium
from chaos.stage import Conditions, Stage
from traffic.laboratory import open_laboratory

Say = Callable[[str], None]


@contextmanager
def open_stage(conditions: Conditions, say: Say) -> Iterator[Stage]:
    """Put everything up, and take it away however it ends."""
    with open_laboratory("chaos") as laboratory:
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
