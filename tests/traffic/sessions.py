"""What a client is known by: on the wire its tuple, to the edge its session's credentials."""

from dataclasses import dataclass

Tuple = tuple[str, int]  # address and port


@dataclass(frozen=True, slots=True)
class Credentials:
    """Server ufrag and ICE password of a session."""

    ufrag: str
    pwd: str
