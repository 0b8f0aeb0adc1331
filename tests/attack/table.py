"""The edge's flow table, read straight from the kernel, and what an attack has done to it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import NamedTuple

from attack.frames import Tuple
from turnout.kernel.maps import Maps
from turnout.kernel.pins import Pins


class Flow(NamedTuple):
    """Whose a tuple is. Session 0: healed on egress, not known."""

    session: int
    slot: int
    generation: int


Table = dict[Tuple, Flow]


@dataclass(frozen=True, slots=True)
class Foreign:
    """What is not as it should be."""

    changed: tuple[str, ...]  # live tuples that are gone or another's
    created: tuple[
        str, ...
    ]  # tuples that are nobody's, led to a session that is not the attacker's
    replayed: int  # such tuples, led to the session whose own check was replayed
    his_own: int  # tuples that are nobody's, led to the attacker's own sessions


def read_table(pins: Pins) -> Table:
    """Return every flow that the kernel has now."""
    table: Table = {}
    with Maps.open(pins) as maps:
        for number, bucket in enumerate(maps.flows.whole()):
            for place, entry in enumerate(bucket["entry"]):
                slot, generation = entry & 0xFFFF, entry >> 16 & 0xFF
                if not generation:
                    continue
                index = number * len(bucket["entry"]) + place
                flow = maps.flow_details.lookup(index)
                assert flow is not None
                owner = Flow(flow["session_id"], slot, generation)
                table[_client_of(flow["key"])] = owner
    return table


def compare(
    before: Table,
    after: Table,
    *,
    live: Mapping[Tuple, int],
    ours: Collection[Tuple],
    his: Collection[int],
    may_replay: bool,
) -> Foreign:
    """Judge the table after an attack.

    `live` is the session of each live tuple, `ours` all tuples that our clients have used, `his`
    the attacker's sessions.
    """
    changed = [
        f"{host}:{port} {before.get((host, port))} -> {after.get((host, port))}"
        for (host, port), session in live.items()
        if after.get((host, port)) != before.get((host, port))
        or after[host, port].session != session
    ]
    created: list[str] = []
    replayed = his_own = 0
    sessions = set(live.values())
    for source, flow in after.items():
        if source in live or source in ours:
            continue
        if flow.session in his:
            his_own += 1
        elif may_replay and flow.session in sessions:
            replayed += 1
        elif before.get(source) != flow:
            created.append(f"{source[0]}:{source[1]} {flow}")
    return Foreign(tuple(changed), tuple(created), replayed, his_own)


def _client_of(key: dict[str, bytes | int]) -> Tuple:
    address, port = key["client"], key["client_port"]
    assert isinstance(address, bytes)
    assert isinstance(port, int)
    client = IPv6Address(address)
    # The port stands in network order in a field that is read as a little-endian number.
    return str(client.ipv4_mapped or client), int.from_bytes(port.to_bytes(2, "little"))
