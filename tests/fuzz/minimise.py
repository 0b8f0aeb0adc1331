"""Makes a sequence of steps shorter while it still shows a difference (delta debugging)."""

import time
from collections.abc import Callable, Sequence

from fuzz.steps import SetSettings, Step

SECONDS = 60.0


def minimise(
    steps: Sequence[Step], still_differs: Callable[[list[Step]], bool], seconds: float = SECONDS
) -> list[Step]:
    """Leave out what is not needed, large pieces first; the first settings stay."""
    deadline = time.monotonic() + seconds
    first, rest = steps[0], list(steps[1:])
    assert isinstance(first, SetSettings)
    size = max(len(rest) // 2, 1)
    while size and time.monotonic() < deadline:
        at, left_out = len(rest), False
        # From the end: what comes last is what fails, and most of what is before it is not needed.
        while at > 0 and time.monotonic() < deadline:
            start = max(at - size, 0)
            shorter = rest[:start] + rest[at:]
            if still_differs([first, *shorter]):
                rest, left_out = shorter, True
            at = start
        if not left_out or size > 1:
            size //= 2
    return [first, *rest]
