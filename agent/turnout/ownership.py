"""What an owner and a session are to the agent, and how both stand in the kernel's maps.

Steering is their one writer; signaling and the local API read them.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from turnout.wire.sdp import IceCredentials

# bpf/abi.h enum owner_state
STATES = {"down": 0, "active": 1, "draining": 2}
STATE_NAMES = {number: name for name, number in STATES.items()}
# How a drain is over: the owner was empty, its time was up, it was lifted, its owner has gone.
DRAIN_REASONS = ("empty", "deadline", "undrained", "owner_gone")
GENERATIONS = 255  # 8 bits, and 0 is nobody
NOBODY: Mapping[str, int] = MappingProxyType({"slot": 0, "generation": 0})


@dataclass(frozen=True, slots=True)
class Owner:
    """A transceiver's slot as it stands. A slot's generation only ever moves on."""

    slot: int
    generation: int
    lane: int
    state: str  # active, draining, down
    kind: str  # transceiver: one of ours; upstream: of the settings; registered: by the local API
    incarnation: int  # random, chosen by our transceiver at its start; 0 for a registered owner


@dataclass(frozen=True, slots=True)
class Session:
    """A session the kernel steers."""

    id: str  # 32 lowercase hex digits; the kernel keeps the first 16
    ufrag: str
    pwd: str
    slot: int
    kind: str  # upstream: made by our signaling; api: through the local API
    restart: IceCredentials | None = None  # of an ICE restart that the client has not used yet

    @property
    def credentials(self) -> tuple[IceCredentials, ...]:
        """All that the kernel steers and verifies by: during an ICE restart there are two."""
        first = IceCredentials(self.ufrag, self.pwd)
        return (first,) if self.restart is None else (first, self.restart)

    @property
    def ufrags(self) -> tuple[str, ...]:
        """The ufrags of these."""
        return tuple(credentials.ufrag for credentials in self.credentials)

    @property
    def newest_ufrag(self) -> str:
        """The one that the client was given last."""
        return self.ufrags[-1]


def kernel_session_id(session_id: str) -> int:
    """Return what the kernel knows a session by: the first 64 bits of its id, never 0."""
    return int(session_id[:16], 16)


def mint_session_id() -> str:
    """Return a new session id."""
    while True:
        session_id = secrets.token_hex(16)
        if kernel_session_id(session_id) != 0:
            return session_id


def owner_record(owner: Owner) -> dict[str, int]:
    """Return the owner as its record in `owners`."""
    return {
        "incarnation": owner.incarnation,
        "lane": owner.lane,
        "generation": owner.generation,
        "state": STATES[owner.state],
    }


def free_slot_record(generation: int) -> dict[str, int]:
    """Return the record of a slot without owner; it keeps the generation it last had."""
    return {"incarnation": 0, "lane": 0, "generation": generation, "state": 0}


def owner_id_record(owner: Owner) -> dict[str, int]:
    """Return the owner's id as it stands in `lanes` and `sessions`."""
    return {"slot": owner.slot, "generation": owner.generation}
