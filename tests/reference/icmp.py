"""ICMP errors (RFC 792, RFC 4443) about packets of ours, which left as (VIP, shared port).

With the lane put back as the quoted source port, the host's stack finds the socket that sent it.
Called by edge.py; the host gets the packet in any case.
"""

from reference.packet import (
    ICMP,
    UDP,
    EndError,
    NotOursError,
    Packet,
    map_ipv4,
    replace_word,
    u16,
)
from reference.state import State
from reference.table import FlowKey

IPV4_ERRORS, IPV6_ERRORS = {3, 11, 12}, {1, 2, 3, 4}


def translate(state: State, frame: bytes, packet: Packet) -> bytes:
    """Return the frame with the lane in it; NotOursError if it quotes nothing of ours."""
    ports, client, source = _read_quoted(frame, packet)
    vip = state.vip(source)
    if None in (state.vip(packet.destination), vip) or ports + 4 > len(frame):
        raise NotOursError
    if vip is None or u16(frame, ports) != state.settings.shared_port:
        raise NotOursError
    found = state.find_flow(FlowKey(client, u16(frame, ports + 2), vip))
    if found is None:
        raise EndError("icmp__no_flow")
    try:
        state.require_alive(found[1].owner)
    except EndError:
        raise EndError("icmp__no_flow") from None
    state.counted["icmp__translated"] += 1
    lane = state.owners[found[1].owner.slot].lane
    return replace_word(frame, ports, lane, packet.at + 2, udp=False)


def _read_quoted(frame: bytes, packet: Packet) -> tuple[int, bytes, bytes]:
    """Return offset of the quoted ports, destination and source of the quoted packet."""
    at, is_ipv4 = packet.at + 8, packet.protocol == ICMP
    head = frame[at : at + (20 if is_ipv4 else 40)]
    if len(head) < (20 if is_ipv4 else 40):
        raise NotOursError
    if frame[packet.at] not in (IPV4_ERRORS if is_ipv4 else IPV6_ERRORS):
        raise NotOursError
    if not is_ipv4:
        if head[0] >> 4 != 6 or head[6] != UDP:
            raise NotOursError
        return at + 40, head[24:40], head[8:24]
    later = u16(head, 6) & 0x1FFF
    if head[0] >> 4 != 4 or head[0] & 15 < 5 or head[9] != UDP or later:
        raise NotOursError
    return at + (head[0] & 15) * 4, map_ipv4(head[16:20]), map_ipv4(head[12:16])
