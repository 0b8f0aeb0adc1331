"""What moves from one transceiver to another: a call's state as plain JSON values.

Each part of a session says in `leave` what it takes along, and letting go of it is the same step:
there is never a second owner of it. `blob` and its reverse are all of it, sockets apart.
"""

import json
from base64 import b64decode, b64encode
from typing import Any, TypeVar

from turnout.errors import WireError

# Raised whenever what is in a blob changes: both ends have to mean the same by it.
FORMAT = 1

State = dict[str, Any]
T = TypeVar("T")


class NotMovable(Exception):
    """The session stays where it is; says why."""


def pack(data: bytes) -> str:
    """Make text of bytes."""
    return b64encode(data).decode()


def unpack(text: str) -> bytes:
    """Make bytes of it again."""
    return b64decode(text, validate=True)


def take_slots(instance: object) -> State:
    """Return all that an object of plain values holds."""
    slots: tuple[str, ...] = type(instance).__slots__  # type: ignore[attr-defined]
    return {name: getattr(instance, name) for name in slots}


def put_slots(kind: type[T], state: State) -> T:
    """Make the object again. Raises WireError unless these are its values, all of them."""
    slots: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]
    if set(state) != set(slots):
        raise WireError(f"{kind.__name__} has {', '.join(slots)}, not {', '.join(state)}")
    made = kind.__new__(kind)
    for name, value in state.items():
        setattr(made, name, value)
    return made


def build_blob(state: State) -> bytes:
    """Write it all down."""
    return json.dumps(state, separators=(",", ":")).encode()


def parse_blob(blob: bytes) -> State:
    """Read it; raises WireError."""
    try:
        state = json.loads(blob)
    except (ValueError, RecursionError) as error:
        raise WireError(f"a blob of {len(blob)} bytes is no JSON: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise WireError(f"a blob of {len(blob)} bytes is not of format {FORMAT}")
    return state
