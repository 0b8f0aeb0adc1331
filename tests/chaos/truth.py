"""What the kernel steers, against what is true: the sessions that transceivers and owners have.

After each end of an agent the next one has to arrive at it, whatever the one before was doing.
"""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from system.edge_process import EdgeProcess
from traffic.table import read_flows
from turnout.kernel.maps import Maps
from turnout.kernel.pins import Pins
from turnout.kernel_settings import edge_key_bytes
from turnout.ownership import kernel_session_id
from turnout.wire.hmac_midstate import sha1_midstates
from turnout.wire.siphash import siphash24

_PATIENCE_SECONDS = 10.0
_EVENT_BYTES_MOST = 4 << 20


class Steered(NamedTuple):
    """An entry of `sessions`. `key`: what it is verified with, None where we do not know it."""

    session: int
    slot: int
    generation: int
    key: tuple[int, ...] | None


def find_lies(edge: EdgeProcess, registered: Mapping[str, int], owners: list[int]) -> list[str]:
    """Return what the kernel has wrong, a line each; nothing if all is as it should be.

    `registered`: sessions by ufrag that software has registered with `owners`.
    """
    hellos = {
        owner["slot"]: read_hello(edge.runtime / f"transceiver-{owner['slot']}.sock")
        for owner in edge.api("GET", "/owners")
        if owner["kind"] == "transceiver"
    }
    with Maps.open(Pins(bpffs=edge.bpffs, instance=edge.instance)) as maps:
        return [
            *_lies_of_sessions(maps, hellos, registered, owners),
            *_lies_of_lanes(maps),
            *_lies_of_flows(maps),
            *_lies_of_the_agent(edge, hellos),
        ]


def read_hello(path: Path) -> dict[str, Any]:
    """Return a transceiver's hello: its incarnation, lane and sessions."""
    with socket.socket(socket.AF_UNIX) as opened:
        opened.settimeout(_PATIENCE_SECONDS)
        opened.connect(str(path))
        opened.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reply = http.client.HTTPResponse(opened)
        reply.begin()
        hello: dict[str, Any] = json.loads(reply.readline(_EVENT_BYTES_MOST))
        return hello


def _lies_of_sessions(
    maps: Maps,
    hellos: Mapping[int, dict[str, Any]],
    registered: Mapping[str, int],
    owners: list[int],
) -> Iterator[str]:
    settings = maps.settings.lookup(0)
    assert settings is not None
    edge_key = edge_key_bytes(settings["edge_key"])
    generations = {slot: owner["generation"] for slot, owner in maps.owners.items()}
    true: dict[int, Steered] = {}
    for slot, hello in hellos.items():
        for one in hello["sessions"]:
            inner, outer = sha1_midstates(one["pwd"].encode())
            ufrag_hash = siphash24(edge_key, one["ufrag"].encode())
            session = kernel_session_id(one["id"])
            true[ufrag_hash] = Steered(session, slot, generations[slot], (*inner, *outer))
    theirs = {siphash24(edge_key, ufrag.encode()): one for ufrag, one in registered.items()}
    for ufrag_hash, entry in maps.sessions.items():
        owner = entry["owner"]
        key = (*entry["hmac_inner"], *entry["hmac_outer"])
        steered = Steered(entry["session_id"], owner["slot"], owner["generation"], key)
        if ufrag_hash in theirs:
            is_true = steered.session == theirs.pop(ufrag_hash)
            is_true &= owner["slot"] in owners
            is_true &= generations[owner["slot"]] == owner["generation"]
        else:
            is_true = steered == true.pop(ufrag_hash, None)
        if not is_true:
            yield f"steered, and nobody has it so: {steered[:3]}"
    for lost in true.values():
        yield f"not steered: {lost[:3]}"
    for session in theirs.values():
        yield f"not steered: session {session:016x} of a registered owner"


def _lies_of_lanes(maps: Maps) -> Iterator[str]:
    wanted = {
        owner["lane"]: (slot, owner["generation"])
        for slot, owner in maps.owners.items()
        if owner["lane"]
    }
    found = {
        port: (lane["slot"], lane["generation"])
        for port, lane in maps.lanes.items()
        if lane["generation"]
    }
    if wanted != found:
        yield f"lanes lead to {found}, owners are {wanted}"


def _lies_of_flows(maps: Maps) -> Iterator[str]:
    """Find flows of sessions or owners that are no more; the sweep takes them in a while."""
    generations = {slot: owner["generation"] for slot, owner in maps.owners.items()}
    sessions = {key: entry["session_id"] for key, entry in maps.sessions.items()}
    for details, flow in read_flows(maps):
        if generations[flow.slot] != flow.generation:
            yield f"flow of a dead owner: {flow}"
        elif flow.session and sessions.get(details["ufrag_hash"]) != flow.session:
            yield f"flow of a dead session: {flow.session:016x}"


def _lies_of_the_agent(edge: EdgeProcess, hellos: Mapping[int, dict[str, Any]]) -> Iterator[str]:
    known = {one["id"] for one in edge.api("GET", "/sessions") if one["kind"] == "upstream"}
    true = {one["id"] for hello in hellos.values() for one in hello["sessions"]}
    for session in known - true:
        yield f"the agent knows session {session}, and nobody has it"
    for session in true - known:
        yield f"the agent does not know session {session}"
