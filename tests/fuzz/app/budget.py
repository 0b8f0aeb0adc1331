"""How long a part fuzzes: so many seconds, or so many steps where a test has to be the same."""

import time


class Budget:
    """Counts steps; give one of both limits."""

    def __init__(self, *, seconds: float = float("inf"), steps: int = 1 << 62) -> None:
        self._end = time.monotonic() + seconds
        self._most = steps
        self.steps = 0

    def spend(self) -> bool:
        """Take one step; False when there is none left."""
        if self.steps >= self._most or time.monotonic() >= self._end:
            return False
        self.steps += 1
        return True


class Finding(AssertionError):
    """Something that must hold does not: what, and the input that shows it."""
