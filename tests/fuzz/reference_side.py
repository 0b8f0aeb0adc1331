"""A reference that steps are applied to: one side of pair.py; test_reference.py needs no more."""

from fuzz.steps import (
    Clock,
    EndSession,
    GiveSession,
    Receive,
    Send,
    SetLane,
    SetOwner,
    SetSession,
    SetSettings,
    Step,
    Sweep,
)
from reference import Outcome, Owner, OwnerId, Reference, Session, Settings
from reference.edge import hash_ufrag


class ReferenceSide:
    """The reference, another one after settings with other keys or another table, and its time."""

    def __init__(self) -> None:
        self.edge = Reference(Settings(bytes(16), [], 0, range(0), (), 0))
        self.now = 0  # ns
        self.outcome: Outcome | None = None  # of the last packet
        self.swept: dict[str, int] = {}  # what the last sweep counted

    def apply(self, step: Step) -> None:
        """Let it happen."""
        edge = self.edge
        match step:
            case Receive():
                self.outcome = edge.receive(step.frame, step.interface, self.now)
            case Send():
                self.outcome = edge.send(step.frame, self.now, gso=step.gso)
            case Sweep():
                self.swept = edge.sweep(self.now)
            case Clock():
                self.now = step.ns
            case SetSettings():
                self._set(step)
            case SetOwner():
                edge.owners[step.slot] = Owner(step.generation, step.lane, step.state)
            case SetLane():
                self._set_lane(step)
            case SetSession():
                owner = OwnerId(step.slot, step.generation)
                session = Session(step.id, owner, step.password.encode())
                edge.sessions[self.key(step.ufrag)] = session
            case GiveSession():
                given = edge.sessions.get(self.key(step.ufrag))
                if given is not None:
                    given.owner = OwnerId(step.slot, step.generation)
            case EndSession():
                edge.sessions.pop(self.key(step.ufrag), None)

    def key(self, ufrag: str) -> int:
        """Return what a ufrag's session stands under."""
        return hash_ufrag(self.edge.settings.edge_key, ufrag.encode())

    def _set_lane(self, step: SetLane) -> None:
        self.edge.lanes.pop(step.port, None)
        if step.generation:
            self.edge.lanes[step.port] = OwnerId(step.slot, step.generation)

    def _set(self, step: SetSettings) -> None:
        settings = Settings(
            edge_key=step.edge_key,
            vips=[vip if step.vip_mask >> i & 1 else None for i, vip in enumerate(step.vips)],
            shared_port=step.shared_port,
            lanes=range(step.lane_first, step.lane_last + 1),
            flow_keys=step.flow_keys,
            flow_buckets=step.flow_buckets,
            session_flows=step.session_flows,
            check_budget=step.check_budget,
            prefix_failures=step.prefix_failures,
            flow_packets=step.flow_packets,
        )
        old = self.edge.settings
        if (settings.flow_keys, settings.flow_buckets) == (old.flow_keys, old.flow_buckets):
            self.edge.settings = settings
        else:
            self.edge = Reference(settings)
