"""What the attacker knows: more than a stranger could, so that each row is the worst case."""

from dataclasses import dataclass

from attack.frames import Wire
from traffic.sessions import Credentials, Tuple


@dataclass(frozen=True, slots=True)
class Live:
    """A live client: its tuple, its session's ufrag, and a check of its own seen on the wire."""

    tuple: Tuple
    ufrag: str
    check: bytes


@dataclass(frozen=True, slots=True)
class Targets:
    """Everything the frames are made of."""

    wire: Wire
    vips: dict[int, str]  # by IP version
    shared_port: int
    lanes: tuple[int, ...]
    live: tuple[Live, ...]
    clients: tuple[str, ...]  # their addresses
    insider: tuple[Credentials, ...]  # sessions that the attacker has himself
    own: tuple[tuple[Tuple, bytes], ...]  # flows that he has, and a check that keeps each

    def shared(self, source: str) -> Tuple:
        """Return the (VIP, shared port) that `source` would send to."""
        return self.vips[6 if ":" in source else 4], self.shared_port
