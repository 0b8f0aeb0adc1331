"""Which packets of one source came, so that none counts twice. Used by media.py.

libsrtp knows it as well and says it to nobody: when a call is handed to another process its
knowledge stays behind. What is noted here goes along.
"""

# Packets that may come late and still count, at 50 a second 20 s.
REPLAY_WINDOW = 1024
_SEQUENCES = 1 << 16
_HALF = _SEQUENCES >> 1
_MASK = (1 << REPLAY_WINDOW) - 1


def extend_sequence(highest: int, sequence: int) -> int:
    """Return the index (RFC 3711 section 3.3.1) that libsrtp takes a sequence number for.

    Below 2**15 it takes the number as it is, since there was no roll-over yet.
    """
    if highest <= _HALF:
        return sequence
    rolled_over, latest = divmod(highest, _SEQUENCES)
    if latest < _HALF:
        rolled_over -= sequence - latest > _HALF
    else:
        rolled_over += latest - _HALF > sequence
    return rolled_over * _SEQUENCES + sequence


class SeenIndices:
    """The highest packet index of one source, and which of those below it came."""

    __slots__ = ("highest", "window")

    def __init__(self, highest: int = -1, window: int = 0) -> None:
        self.highest = highest  # -1: none came
        self.window = window  # bit n: the one n below the highest came

    def take(self, index: int) -> bool:
        """Note an authentic packet; False if it came before, or is too old to tell."""
        step = index - self.highest
        if step > 0:
            # A jump is no wider than the window: a number of 2**31 bits would be no small one.
            self.window = (self.window << min(step, REPLAY_WINDOW) | 1) & _MASK
            self.highest = index
            return True
        bit = 1 << -step if -step < REPLAY_WINDOW else 0
        if not bit or self.window & bit:
            return False
        self.window |= bit
        return True
