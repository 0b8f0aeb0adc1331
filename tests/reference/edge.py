"""What an edge does with a packet: `receive` is the way in, `send` the way back, `sweep` the rest.

Reads from top to bottom as bpf/steer.c does: parse, match, classify, find the owner, learn, hand
over.
"""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

from reference import icmp, stun
from reference.learn import learn
from reference.packet import (
    UDP,
    UDP_HEADER,
    EndError,
    NotOursError,
    Packet,
    parse_frame,
    replace_word,
    u16,
)
from reference.state import State
from reference.table import IDLE_TICKS, FlowKey, OwnerId
from turnout.wire.siphash import siphash24

LOOPBACK = 1
hash_ufrag = lru_cache(4096)(siphash24)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a frame; `counted` holds only the counters that moved."""

    verdict: str
    frame: bytes
    counted: dict[str, int]


class Reference(State):
    """The whole edge."""

    def receive(self, frame: bytes, interface: int, now_ns: int) -> Outcome:
        """Steer a frame that came in on an interface (by index; loopback is 1)."""
        self._start(now_ns)
        verdict = "pass"
        try:
            frame = self._steer(frame, outside=interface != LOOPBACK)
        except NotOursError:
            pass
        except EndError as end:
            self.counted[end.counter] += 1
            verdict = end.verdict
        return Outcome(verdict, frame, dict(self.counted))

    def send(self, frame: bytes, now_ns: int, *, gso: bool = False) -> Outcome:
        """Return a frame that leaves; one that is cut up later (`gso`) has no checksum yet."""
        self._start(now_ns)
        with suppress(NotOursError, EndError):
            frame = self._send_back(frame, gso=gso)
        return Outcome("pass", frame, dict(self.counted))

    def sweep(self, now_ns: int) -> dict[str, int]:
        """Remove dead flows and count the living by owner; return what was counted."""
        self._start(now_ns)
        for place, flow in list(self.table.flows.items()):
            if self.is_ended(flow):
                self.table.remove(place)
                self.counted["swept__ended"] += 1
            elif self.table.silence(place, self.tick) >= IDLE_TICKS:
                self.table.remove(place)
                self.counted["swept__idle"] += 1
            else:
                seen = self.owner_flows.setdefault(flow.owner.slot, Counter())
                seen.update(flows=1, unclaimed=int(not flow.session))
        return dict(self.counted)

    def _start(self, now_ns: int) -> None:
        self.counted = Counter()
        self.tick = now_ns >> 30 & 0xFFFFFFFF
        self.table.touched.clear()

    def _steer(self, frame: bytes, *, outside: bool) -> bytes:
        packet = parse_frame(frame)
        if packet.protocol != UDP:
            return icmp.translate(self, frame, packet)
        key = self._match_destination(frame, packet, outside=outside)
        self.counted["received"] += 1
        payload = _read_payload(frame, packet)
        kind, owner = self._find_owner(payload, key)
        self.counted[f"steered__{kind}"] += 1
        self._count_owner(owner, "steered", len(payload))
        lane = self.owners[owner.slot].lane
        return replace_word(frame, packet.at + 2, lane, packet.at + 6, udp=True)

    def _match_destination(self, frame: bytes, packet: Packet, *, outside: bool) -> FlowKey:
        vip = self.vip(packet.destination)
        if vip is None:
            raise NotOursError
        if packet.hidden:
            # The stack would walk on and might arrive at a lane.
            raise EndError("guard__hidden_port") if outside else NotOursError
        port = u16(frame, packet.at + 2)
        if port == self.settings.shared_port:
            return FlowKey(packet.source, u16(frame, packet.at), vip)
        if not outside or not self.lane_owner(port):
            raise NotOursError
        raise EndError("guard__lane_fragment" if packet.fragment else "guard__lane")

    def _find_owner(self, payload: bytes, key: FlowKey) -> tuple[str, OwnerId]:
        """Return what the packet is counted as, and whose it is (RFC 7983, RFC 9443)."""
        first = payload[0]
        if 20 <= first <= 63:
            return "dtls", self._find_by_flow(key, alive=_is_media(first))
        if 128 <= first <= 191:
            return "rtp", self._find_by_flow(key, alive=True)
        if first > 3:
            raise EndError("drop__unknown_class")
        message = stun.cut_message(payload)
        username = None
        if u16(message, 0) == stun.BINDING_REQUEST:
            username = stun.find_username(message)
        if username is None:
            return "stun", self._find_by_flow(key, alive=False)
        ufrag_hash = hash_ufrag(self.settings.edge_key, stun.server_ufrag(username))
        session = self.sessions.get(ufrag_hash)
        if session is None:
            raise EndError("drop__no_session")
        self.require_alive(session.owner)
        learn(self, key, ufrag_hash, session, message)
        return "stun_request", session.owner

    def _find_by_flow(self, key: FlowKey, *, alive: bool) -> OwnerId:
        found = self.find_flow(key)
        if found is None:
            raise EndError("drop__no_flow")
        _, flow = found
        self.require_alive(flow.owner)
        self.meter(key)
        if alive:
            flow.age = self.tick & 0xFF
        return flow.owner

    def _send_back(self, frame: bytes, *, gso: bool) -> bytes:
        packet = parse_frame(frame)
        if packet.protocol != UDP or packet.hidden:
            raise NotOursError
        vip, owner = self.vip(packet.source), self.lane_owner(u16(frame, packet.at))
        if vip is None or owner is None:
            raise NotOursError
        payload = packet.at + UDP_HEADER
        if not packet.fragment and len(frame) > payload and _is_media(frame[payload]):
            self._heal(FlowKey(packet.destination, u16(frame, packet.at + 2), vip), owner)
        self._count_owner(owner, "returned", (packet.end - payload) % 2**32)
        self.counted["returned__rewritten"] += 1
        port = self.settings.shared_port
        if gso:
            return frame[: packet.at] + port.to_bytes(2, "big") + frame[packet.at + 2 :]
        return replace_word(frame, packet.at, port, packet.at + 6, udp=True)

    def _heal(self, key: FlowKey, owner: OwnerId) -> None:
        """Media to a client proves that its flow leads there, and puts back one that was lost."""
        found = self.find_flow(key)
        if found:
            found[1].proven |= found[1].owner == owner
            return
        with suppress(EndError):
            self.require_alive(owner)
            put = self.insert_flow(key, owner)
            if put:
                put[1].proven = True
                self.counted["flow__healed"] += 1

    def _count_owner(self, owner: OwnerId, way: str, payload_bytes: int) -> None:
        counters = self.owner_counters.setdefault(owner.slot, Counter())
        counters[f"{way}_packets"] += 1
        counters[f"{way}_bytes"] += payload_bytes


def _read_payload(frame: bytes, packet: Packet) -> bytes:
    """Return the UDP payload; EndError if there is none, or not all of it is here."""
    if packet.fragment:
        raise EndError("pass__fragment")  # the rest has no ports to steer by
    length = u16(frame, packet.at + 4)
    if length < UDP_HEADER or packet.end > len(frame) or packet.at + length > packet.end:
        raise EndError("drop__bad_udp_length")
    if length == UDP_HEADER:
        raise EndError("drop__empty")
    return frame[packet.at + UDP_HEADER : packet.at + length]


def _is_media(first: int) -> bool:
    """RTP, RTCP or DTLS application data: what only a session in progress sends."""
    return 128 <= first <= 191 or first == 23
