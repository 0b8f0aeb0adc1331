"""What an edge knows: what the agent wrote, what was learned, and how much was counted of whom.

The base of edge.Reference. `counted` holds the counters that the packet at hand has moved.
"""

from collections import Counter
from dataclasses import dataclass, field

from reference.packet import EndError
from reference.table import Flow, FlowKey, FlowTable, Meters, OwnerId, hash_flow, tag_of

DOWN, ACTIVE, DRAINING = 0, 1, 2


@dataclass(slots=True)
class Settings:
    """Rates are by the tick; `vips` by index, None: not in use."""

    edge_key: bytes
    vips: list[bytes | None]
    shared_port: int
    lanes: range
    flow_keys: tuple[int, ...]
    flow_buckets: int
    session_flows: int = 8
    check_budget: int = 54
    prefix_failures: int = 108
    flow_packets: int = 2148


@dataclass(slots=True)
class Owner:
    """A transceiver's slot."""

    generation: int
    lane: int
    state: int = ACTIVE


@dataclass(slots=True)
class Session:
    """One ufrag of a session. `flows` are places, None where there is room; may be out of date."""

    id: int
    owner: OwnerId
    password: bytes
    check_tick: int = 0
    checks: int = 0
    failures: int = 0
    flows: list[int | None] = field(default_factory=lambda: [None] * 16)


class State:
    """An edge with one CPU, at one tick."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.owners: dict[int, Owner] = {}
        self.lanes: dict[int, OwnerId] = {}
        self.sessions: dict[int, Session] = {}  # by the hash of the ufrag
        self.table = FlowTable(settings.flow_buckets)
        self.meters = Meters()
        self.prefix_meters = Meters()
        self.owner_counters: dict[int, Counter[str]] = {}
        self.owner_flows: dict[int, Counter[str]] = {}
        self.counted: Counter[str] = Counter()
        self.tick = 0

    def vip(self, address: bytes) -> int | None:
        """Return the index of a VIP."""
        vips = self.settings.vips
        return vips.index(address) if address in vips else None

    def lane_owner(self, port: int) -> OwnerId | None:
        """Return who listens on a lane; ports outside their range are the host's own business."""
        return self.lanes.get(port) if port in self.settings.lanes else None

    def require_alive(self, owner: OwnerId) -> None:
        """EndError if the owner was reborn or is down."""
        found = self.owners.get(owner.slot)
        if found is None or found.generation != owner.generation:
            raise EndError("drop__stale_owner")
        if found.state == DOWN:
            raise EndError("drop__owner_down")

    def is_ended(self, flow: Flow) -> bool:
        """An owner that is down may come back, and its flows wait for it; one reborn has none."""
        owner = self.owners.get(flow.owner.slot)
        if owner is None or owner.generation != flow.owner.generation:
            return True
        session = self.sessions.get(flow.ufrag_hash)
        return flow.session != 0 and (session is None or session.id != flow.session)

    def find_flow(self, key: FlowKey) -> tuple[int, Flow] | None:
        """Return place and flow of whoever has the key's tag."""
        place = self.table.find(hash_flow(self.settings.flow_keys, key))
        return None if place is None else (place, self.table.flows[place])

    def insert_flow(self, key: FlowKey, owner: OwnerId) -> tuple[int, Flow] | None:
        """Make room for a flow that is not there, and put it."""
        flow_hash = hash_flow(self.settings.flow_keys, key)
        place = self.table.make_room(flow_hash, self.tick)
        if place is None:
            self.counted["flow__refused"] += 1
            return None
        if place in self.table.flows:
            self.counted["flow__evicted"] += 1
        flow = Flow(tag_of(flow_hash), key, owner, self.tick & 0xFF)
        self.table.put(place, flow)
        return place, flow

    def meter(self, key: FlowKey) -> None:
        """One packet more of a flow, unless it has sent enough."""
        if not self.settings.flow_packets:
            return
        flow_hash = hash_flow(self.settings.flow_keys, key)
        if self.meters.count(flow_hash, self.tick) >= self.settings.flow_packets:
            raise EndError("drop__flow_rate")
        self.meters.charge(flow_hash, self.tick)
