"""What a row is: one event, done by a function to a stage on which everybody talks.

rows/ has one file a subject; rows/__init__.py lists them.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from chaos.stage import Stage
from results import Result


@dataclass(frozen=True, slots=True)
class Row:
    """One event.

    `happen` makes it happen and returns when it is over, with what it found on the way beside the
    losses, which are counted for every row. `gap_ms`: how much longer than in the quiet row a
    client may wait for its next packet; None where only the losses count. `among`: who talks beside
    all others; then nothing happens among them first, which is the row's own quiet one.
    """

    name: str
    title: str
    happen: Callable[[Stage], list[Result]]
    gap_ms: float | None = None
    among: Callable[[Stage], AbstractContextManager[None]] | None = None
