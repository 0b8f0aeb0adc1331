"""Who owns what: the one writer of the kernel's `sessions`, `owners`, `lanes`; it sweeps `flows`.

Signaling and the local API call it from the agent's event loop; every method is synchronous and
the kernel steers by the new state when it returns. What the maps hold from an earlier agent is
adopted: packets flow on. A transceiver's hello says which of its sessions live, the others go;
those of registered owners wait until the local API names or deletes them, or their owner goes.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from turnout.adoption import Orphan, adopt
from turnout.errors import SteeringError, UfragInUse, UnknownOwner, UnknownSession
from turnout.flows import FlowSweep, SweepReport
from turnout.kernel_settings import edge_key_bytes
from turnout.ownership import (
    GENERATIONS,
    NOBODY,
    STATES,
    Owner,
    Session,
    free_slot_record,
    kernel_session_id,
    mint_session_id,
    owner_id_record,
    owner_record,
)
from turnout.settings import OWNERS_MAX, Settings
from turnout.wire.siphash import siphash24

if TYPE_CHECKING:
    from turnout.kernel.maps import Maps

log = logging.getLogger(__name__)

__all__ = ["Owner", "Session", "Steering", "SweepReport", "mint_session_id"]


class Steering:
    """Sessions and owners of one edge, and the maps that say the same to the kernel."""

    def __init__(self, maps: "Maps", settings: Settings) -> None:
        """Adopt what the maps hold. The settings map must have been written before."""
        self._maps = maps
        self._settings = settings
        record = maps.settings.lookup(0)
        if record is None:
            raise SteeringError("the kernel's settings map is empty; the agent writes it first")
        self._key = edge_key_bytes(record["edge_key"])
        adopted = adopt(maps, settings)
        self._owners: dict[int, Owner] = adopted.owners
        self._generations: dict[int, int] = adopted.generations
        self._orphans: dict[int, Orphan] = adopted.orphans
        self._confirmed: set[int] = set()
        self._sessions: dict[str, Session] = {}
        self._by_slot: dict[int, dict[str, Session]] = {}
        self._by_hash: dict[int, str] = {}
        self._sweep = FlowSweep(maps.flows, self)

    @property
    def owners(self) -> Mapping[int, Owner]:
        """The owners by slot, in slot order."""
        return MappingProxyType(self._owners)

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The sessions by id. What an earlier agent left unconfirmed is not among them."""
        return MappingProxyType(self._sessions)

    @property
    def confirmed(self) -> frozenset[int]:
        """The slots whose owner spoke up since this agent started; the others are adopted."""
        return frozenset(self._confirmed)

    @property
    def unconfirmed(self) -> int:
        """How many sessions of an earlier agent the kernel still steers and nobody confirmed."""
        return len(self._orphans)

    @property
    def flows_seen(self) -> int:
        """How many flows the last complete sweep left in the table."""
        return self._sweep.flows

    def register_owner(
        self,
        lane: int,
        *,
        slot: int | None = None,
        incarnation: int = 0,
        kind: str = "registered",
    ) -> Owner:
        """Make an owner, or confirm the one that is there.

        The same incarnation on the same lane is the same process: it keeps its generation and
        its sessions, and if it was down it is active again. Another incarnation is a reborn one:
        the generation moves on, so that nothing of the dead one reaches it. Without `slot`, the
        lane's owner is meant, else the lowest free slot past our own transceivers' is taken.
        Raises SteeringError if the lane or slot is not to be had.
        """
        self._check_lane(lane, kind)
        slot = self._find_slot(lane, slot)
        self._confirmed.add(slot)
        known = self._owners.get(slot)
        if known is not None and (known.lane, known.incarnation) == (lane, incarnation):
            state = "active" if known.state == "down" else known.state
            owner = self._write_owner(replace(known, state=state, kind=kind))
            self._maps.lanes.update(lane, owner_id_record(owner))
            return owner
        if known is not None and known.lane != lane:
            self._maps.lanes.update(known.lane, dict(NOBODY))
        generation = self._generations.get(slot, 0) % GENERATIONS + 1
        # The owner first: from here on packets of the dead one's sessions drop as stale.
        owner = self._write_owner(Owner(slot, generation, lane, "active", kind, incarnation))
        self._maps.lanes.update(lane, owner_id_record(owner))
        ended = self._drop_sessions(slot)
        log.info(
            "owner %d: %s on lane %d, generation %d%s",
            slot,
            kind,
            lane,
            generation,
            f", {ended} sessions of the one before ended" if ended else "",
        )
        return owner

    def set_owner_state(self, slot: int, state: str) -> Owner:
        """Set an owner's state and nothing else. Raises UnknownOwner."""
        if state not in STATES:
            raise SteeringError(f"owner state {state!r}: must be one of {', '.join(STATES)}")
        owner = self._owner(slot)
        if owner.state == state:
            return owner
        log.info("owner %d: %s, was %s", slot, state, owner.state)
        return self._write_owner(replace(owner, state=state))

    def remove_owner(self, slot: int) -> None:
        """End an owner and its sessions; its lane is free again. Raises UnknownOwner."""
        owner = self._owner(slot)
        # The lane first: adoption finds lanes only by the owners that name them. The generation
        # stays behind in the map, so that the slot's next owner gets another.
        self._maps.lanes.update(owner.lane, dict(NOBODY))
        self._maps.owners.update(slot, free_slot_record(owner.generation))
        del self._owners[slot]
        self._confirmed.discard(slot)
        ended = self._drop_sessions(slot)
        log.info("owner %d: removed, %d sessions ended", slot, ended)

    def owner_sessions(self, slot: int) -> list[Session]:
        """Return the sessions of one owner."""
        return list(self._by_slot.get(slot, {}).values())

    def add_session(
        self,
        ufrag: str,
        pwd: str,
        slot: int,
        *,
        session_id: str | None = None,
        kind: str = "api",
    ) -> Session:
        """Make the kernel steer the ufrag to the slot's owner; it does when this returns.

        A session of an earlier agent that nobody confirmed is claimed by naming its ufrag and
        owner again; its flows go on. Adding a session that is there already, id and all, returns
        it. Raises UfragInUse, UnknownOwner.
        """
        owner = self._owner(slot)
        ufrag_hash = self._hash(ufrag)
        orphan = self._orphans.get(ufrag_hash)
        if ufrag_hash in self._by_hash:
            live = self._sessions[self._by_hash[ufrag_hash]]
            if (live.id, live.ufrag, live.slot) == (session_id, ufrag, slot):
                return live
            raise UfragInUse(f"ufrag {ufrag!r} belongs to living session {live.id}")
        if orphan is not None and orphan.slot != slot:
            raise UfragInUse(f"ufrag {ufrag!r} belongs to a session of owner {orphan.slot}")
        if session_id is None:
            session_id = mint_session_id()
            if orphan is not None:
                session_id = f"{orphan.kernel_id:016x}{session_id[16:]}"
        elif session_id in self._sessions:
            raise SteeringError(f"session {session_id} exists with another ufrag")
        session = Session(session_id, ufrag, pwd, slot, kind)
        self._write_session(ufrag_hash, session, owner)
        return session

    def remove_session(self, session_id: str) -> Session:
        """End a session: nobody joins it any more, its tuples are free. Raises UnknownSession.

        What still comes on its flows goes to its owner until the sweep takes them away, within
        seconds; the owner has ended the session as well and discards it. One of an earlier agent
        that nobody confirmed is ended too.
        """
        session = self._sessions.get(session_id)
        if session is None:
            session = self._remove_orphan(session_id)
            if session is not None:
                return session
            raise UnknownSession(f"session {session_id}: there is none, or it has ended")
        self._maps.sessions.delete(self._hash(session.ufrag))
        self._forget_session(session)
        return session

    def reconcile_owner(self, slot: int, sessions: Iterable[tuple[str, str, str]]) -> None:
        """Make the owner's sessions exactly these (id, ufrag, pwd). Raises UnknownOwner."""
        owner = self._owner(slot)
        wanted: dict[int, Session] = {}
        for session_id, ufrag, pwd in sessions:
            wanted[self._hash(ufrag)] = Session(session_id, ufrag, pwd, slot, "upstream")
        self._drop_sessions(slot, keep=wanted)
        for ufrag_hash, session in wanted.items():
            other = self._sessions.get(self._by_hash.get(ufrag_hash, session.id))
            if other is not None and (other.id, other.slot) != (session.id, slot):
                log.warning(
                    "owner %d: its session %s is not steered, its ufrag belongs to session %s",
                    slot,
                    session.id,
                    other.id,
                )
                continue
            orphan = self._orphans.get(ufrag_hash)
            if orphan is not None and orphan.slot != slot:
                log.warning(
                    "owner %d: takes session %s over from owner %d, which never confirmed it",
                    slot,
                    session.id,
                    orphan.slot,
                )
            self._write_session(ufrag_hash, session, owner)

    def sweep(self, now_ns: int) -> SweepReport:
        """Look at the next stretch of the flow table and remove what is over.

        One call costs some ten milliseconds at most; `complete` in the report says that the end
        of the table was reached. `now_ns` is CLOCK_MONOTONIC, as the kernel's `alive_ns`.
        """
        return self._sweep.step(now_ns)

    def live_session(self, ufrag_hash: int) -> int | None:
        """Return the kernel's session id behind a sessions key, or None."""
        session_id = self._by_hash.get(ufrag_hash)
        if session_id is not None:
            return kernel_session_id(session_id)
        orphan = self._orphans.get(ufrag_hash)
        return None if orphan is None else orphan.kernel_id

    def live_generation(self, slot: int) -> int | None:
        """Return the generation of the slot's owner, or None if the slot is free."""
        owner = self._owners.get(slot)
        return None if owner is None else owner.generation

    def _remove_orphan(self, session_id: str) -> Session | None:
        for ufrag_hash, orphan in self._orphans.items():
            if f"{orphan.kernel_id:016x}" == session_id[:16]:
                self._maps.sessions.delete(ufrag_hash)
                del self._orphans[ufrag_hash]
                return Session(session_id, "", "", orphan.slot, "api")
        return None

    def _owner(self, slot: int) -> Owner:
        owner = self._owners.get(slot)
        if owner is None:
            raise UnknownOwner(f"owner {slot}: no owner has that slot")
        return owner

    def _hash(self, ufrag: str) -> int:
        return siphash24(self._key, ufrag.encode("ascii"))

    def _check_lane(self, lane: int, kind: str) -> None:
        first, last = self._settings.lane_first, self._settings.lane_last
        if not first <= lane <= last:
            raise SteeringError(f"lane {lane}: must be within {first}-{last}")
        ours = self._settings.transceivers
        if kind == "registered" and lane < first + ours:
            raise SteeringError(
                f"lane {lane}: {first}-{first + ours - 1} belong to this edge's own transceivers"
            )

    def _find_slot(self, lane: int, slot: int | None) -> int:
        holder = next((owner.slot for owner in self._owners.values() if owner.lane == lane), None)
        if slot is None and holder is not None:
            return holder
        if slot is None:
            slots = range(self._settings.transceivers, OWNERS_MAX)
            slot = next((free for free in slots if free not in self._owners), None)
            if slot is None:
                raise SteeringError(f"lane {lane}: all {OWNERS_MAX} owner slots are taken")
        if not 0 <= slot < OWNERS_MAX:
            raise SteeringError(f"owner slot {slot}: must be 0 to {OWNERS_MAX - 1}")
        if holder is not None and holder != slot:
            raise SteeringError(f"lane {lane}: belongs to owner {holder}; remove that one first")
        return slot

    def _write_owner(self, owner: Owner) -> Owner:
        self._maps.owners.update(owner.slot, owner_record(owner))
        self._generations[owner.slot] = owner.generation
        self._owners[owner.slot] = owner
        return owner

    def _write_session(self, ufrag_hash: int, session: Session, owner: Owner) -> None:
        record = {"session_id": kernel_session_id(session.id), "owner": owner_id_record(owner)}
        try:
            self._maps.sessions.update(ufrag_hash, record)
        except OSError as error:
            # E2BIG: the kernel holds as many sessions as the map was made for.
            raise SteeringError(
                f"session {session.id}: the kernel's table does not take it: {error.strerror}"
            ) from error
        self._orphans.pop(ufrag_hash, None)
        self._sessions[session.id] = session
        self._by_slot.setdefault(owner.slot, {})[session.id] = session
        self._by_hash[ufrag_hash] = session.id

    def _forget_session(self, session: Session) -> None:
        del self._sessions[session.id]
        del self._by_slot[session.slot][session.id]
        del self._by_hash[self._hash(session.ufrag)]

    def _drop_sessions(self, slot: int, keep: Mapping[int, Session] | None = None) -> int:
        """End the slot's sessions, confirmed or not, except what `keep` has by hash."""
        keep = keep or {}
        ended = 0
        for session in self.owner_sessions(slot):
            ufrag_hash = self._hash(session.ufrag)
            wanted = keep.get(ufrag_hash)
            if wanted is not None and wanted.id == session.id:
                continue
            self._maps.sessions.delete(ufrag_hash)
            self._forget_session(session)
            ended += 1
        for ufrag_hash in [key for key, orphan in self._orphans.items() if orphan.slot == slot]:
            if ufrag_hash not in keep:
                self._maps.sessions.delete(ufrag_hash)
                del self._orphans[ufrag_hash]
                ended += 1
        return ended
