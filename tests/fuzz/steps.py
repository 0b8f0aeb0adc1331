"""What can happen to an edge, one after the other: packets, time, and what the agent writes.

A sequence of steps is a test that runs again to the same end; it is kept as JSON. Applied to both
implementations by pair.py.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

OUTSIDE, LOOPBACK = 0, 1


@dataclass(frozen=True, slots=True)
class Receive:
    """A frame comes in, from OUTSIDE or LOOPBACK."""

    frame: bytes
    interface: int = OUTSIDE


@dataclass(frozen=True, slots=True)
class Send:
    """A frame leaves; `gso`: it is cut up after us."""

    frame: bytes
    gso: bool = False


@dataclass(frozen=True, slots=True)
class Sweep:
    """The agent has the table swept once."""


@dataclass(frozen=True, slots=True)
class Clock:
    """It is now so many ns."""

    ns: int


@dataclass(frozen=True, slots=True)
class SetSettings:
    """As abi.h has them; `vips` has 8 entries of 16 bytes, `vip_mask` says which are in use."""

    edge_key: bytes
    vips: tuple[bytes, ...]
    vip_mask: int
    shared_port: int
    lane_first: int
    lane_last: int
    flow_keys: tuple[int, ...]
    flow_buckets: int
    session_flows: int
    check_budget: int
    prefix_failures: int
    flow_packets: int


@dataclass(frozen=True, slots=True)
class SetOwner:
    """A transceiver's slot; generation 0 empties it."""

    slot: int
    generation: int
    lane: int
    state: int


@dataclass(frozen=True, slots=True)
class SetLane:
    """Who listens on a port; generation 0: nobody."""

    port: int
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class SetSession:
    """A new entry, or one in the place of another."""

    ufrag: str
    id: int
    slot: int
    generation: int
    password: str


@dataclass(frozen=True, slots=True)
class GiveSession:
    """A session's entry, if it is there, gets another owner and keeps all else."""

    ufrag: str
    slot: int
    generation: int


@dataclass(frozen=True, slots=True)
class EndSession:
    """A session's entry goes, if it is there."""

    ufrag: str


Step = (
    Receive
    | Send
    | Sweep
    | Clock
    | SetSettings
    | SetOwner
    | SetLane
    | SetSession
    | GiveSession
    | EndSession
)
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        *(Receive, Send, Sweep, Clock),
        *(SetSettings, SetOwner, SetLane, SetSession, GiveSession, EndSession),
    )
}
PACKETS = (Receive, Send)


def write_steps(path: Path, why: str, steps: Iterable[Step]) -> None:
    """Write a vector: {"why", "steps": [[kind, {field: value}], ...]}, bytes in hex."""
    lines = ",\n".join("  " + json.dumps(_to_json(step)) for step in steps)
    path.write_text(f'{{\n "why": {json.dumps(why)},\n "steps": [\n{lines}\n ]\n}}\n')


def read_steps(path: Path) -> list[Step]:
    """Read a vector."""
    return [_from_json(kind, values) for kind, values in json.loads(path.read_text())["steps"]]


def show_steps(steps: Sequence[Step]) -> str:
    """Return one line a step, for people."""
    return "\n".join(f"  {kind} {values}" for kind, values in map(_to_json, steps))


def _to_json(step: Step) -> list[Any]:
    values = {field.name: getattr(step, field.name) for field in fields(step)}
    return [type(step).__name__, {name: _plain(value) for name, value in values.items()}]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _from_json(name: str, values: dict[str, Any]) -> Step:
    kind = _KINDS[name]
    for field in fields(kind):
        value = values[field.name]
        if field.type is bytes:
            values[field.name] = bytes.fromhex(value)
        elif field.name == "vips":
            values[field.name] = tuple(bytes.fromhex(one) for one in value)
        elif isinstance(value, list):
            values[field.name] = tuple(value)
    step: Step = kind(**values)
    return step
