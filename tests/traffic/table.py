"""The edge's flow table, read straight from the kernel: whose each client's tuple is."""

from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import NamedTuple

from traffic.sessions import Tuple
from turnout.kernel.maps import Maps, Record
from turnout.kernel.pins import Pins


class Flow(NamedTuple):
    """Whose a tuple is. Session 0: healed on egress, not known."""

    session: int
    slot: int
    generation: int


Table = dict[Tuple, Flow]


def read_table(pins: Pins) -> Table:
    """Return every flow that the kernel has now."""
    with Maps.open(pins) as maps:
        return {_client_of(details["key"]): flow for details, flow in read_flows(maps)}


def read_flows(maps: Maps) -> Iterator[tuple[Record, Flow]]:
    """Yield `struct flow` and whose it is; of a large table, only what is in it is looked up."""
    for number, bucket in enumerate(maps.flows.whole()):
        for place, entry in enumerate(bucket["entry"]):
            slot, generation = entry & 0xFFFF, entry >> 16 & 0xFF
            if not generation:
                continue
            details = maps.flow_details.lookup(number * len(bucket["entry"]) + place)
            assert details is not None
            yield details, Flow(details["session_id"], slot, generation)


def _client_of(key: dict[str, bytes | int]) -> Tuple:
    address, port = key["client"], key["client_port"]
    assert isinstance(address, bytes)
    assert isinstance(port, int)
    client = IPv6Address(address)
    # The port stands in network order in a field that is read as a little-endian number.
    return str(client.ipv4_mapped or client), int.from_bytes(port.to_bytes(2, "little"))
