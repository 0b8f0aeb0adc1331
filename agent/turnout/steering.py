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

from turnout.adoption import adopt
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
    mint_session_id,
    owner_id_record,
    owner_record,
)
from turnout.session_table import SessionTable
from turnout.settings import OWNERS_MAX, Settings
from turnout.wire.sdp import IceCredentials

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
        adopted = adopt(maps, settings)
        self._owners: dict[int, Owner] = adopted.owners
        self._generations: dict[int, int] = adopted.generations
        key = edge_key_bytes(record["edge_key"])
        self._table = SessionTable(maps.sessions, key, adopted.orphans)
        self._confirmed: set[int] = set()
        self._sweep = FlowSweep(maps.flows, self)

    def follow_settings(self, settings: Settings) -> None:
        """Take settings with the same lanes and as many transceivers or more."""
        self._settings = settings

    @property
    def owners(self) -> Mapping[int, Owner]:
        """The owners by slot, in slot order."""
        return MappingProxyType(self._owners)

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The sessions by id. What an earlier agent left unconfirmed is not among them."""
        return MappingProxyType(self._table.by_id)

    @property
    def confirmed(self) -> frozenset[int]:
        """The slots whose owner spoke up since this agent started; the others are adopted."""
        return frozenset(self._confirmed)

    @property
    def unconfirmed(self) -> int:
        """How many sessions of an earlier agent the kernel still steers and nobody confirmed."""
        return len(self._table.orphans)

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
        if known is not None and known.kind == "upstream" != kind:
            raise SteeringError(f"lane {lane}: belongs to an [[upstream]] of the settings")
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
        ended = self._table.drop_slot(slot)
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
        ended = self._table.drop_slot(slot)
        log.info("owner %d: removed, %d sessions ended", slot, ended)

    def owner_sessions(self, slot: int) -> list[Session]:
        """Return the sessions of one owner."""
        return self._table.of_slot(slot)

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
        live = self._table.holder(ufrag)
        if live is not None and (live.id, live.slot) == (session_id, slot):
            return live
        self._check_free(ufrag, slot)
        if session_id is None:
            session_id = mint_session_id()
            orphan = self._table.orphan(ufrag)
            if orphan is not None:
                session_id = f"{orphan.kernel_id:016x}{session_id[16:]}"
        elif session_id in self._table.by_id:
            raise SteeringError(f"session {session_id} exists with another ufrag")
        session = Session(session_id, ufrag, pwd, slot, kind)
        self._table.put(session, owner)
        return session

    def add_restart(self, session_id: str, ufrag: str, pwd: str) -> Session:
        """Begin an ICE restart: the kernel steers the session by a second ufrag as well.

        A restart begun before that came to nothing ends. Raises UnknownSession, UfragInUse; then
        the session goes on as it was.
        """
        session = self._session(session_id)
        if session.restart is not None and session.restart.ufrag == ufrag:
            return session
        self._check_free(ufrag, session.slot)
        session = replace(session, restart=IceCredentials(ufrag, pwd))
        self._table.put(session, self._owner(session.slot))
        return session

    def finish_restart(self, session_id: str, ufrag: str) -> Session:
        """Retire the old ufrag: the client uses that of the restart. Raises UnknownSession.

        Flows that were made under the old one alone are over, like those of an ended session.
        """
        session = self._session(session_id)
        restart = session.restart
        if restart is not None and restart.ufrag == ufrag:
            session = replace(session, ufrag=restart.ufrag, pwd=restart.pwd, restart=None)
            self._table.put(session, self._owner(session.slot))
        return session

    def remove_session(self, session_id: str) -> Session:
        """End a session: nobody joins it any more, its tuples are free. Raises UnknownSession.

        What still comes on its flows goes to its owner until the sweep takes them away, within
        seconds; the owner has ended the session as well and discards it. One of an earlier agent
        that nobody confirmed is ended too.
        """
        session = self._table.by_id.get(session_id)
        if session is not None:
            self._table.drop(session)
            return session
        session = self._table.drop_orphan(session_id)
        if session is None:
            raise UnknownSession(f"session {session_id}: there is none, or it has ended")
        return session

    def reconcile_owner(self, slot: int, sessions: Iterable[tuple[str, str, str]]) -> None:
        """Make the owner's sessions exactly these (id, ufrag, pwd). Raises UnknownOwner.

        A session that stands twice is in an ICE restart, to the credentials named last.
        """
        owner = self._owner(slot)
        wanted: dict[str, Session] = {}
        for session_id, ufrag, pwd in sessions:
            known = wanted.get(session_id)
            if known is None:
                wanted[session_id] = Session(session_id, ufrag, pwd, slot, "upstream")
            else:
                wanted[session_id] = replace(known, restart=IceCredentials(ufrag, pwd))
        self._table.drop_slot(slot, keep=wanted)
        for session in wanted.values():
            for rival in self._table.rivals(session):
                log.warning(
                    "owner %d: its session %s is not steered, its ufrag belongs to session %s",
                    slot,
                    session.id,
                    rival.id,
                )
                break
            else:
                self._take_over(session)
                self._table.put(session, owner)

    def _take_over(self, session: Session) -> None:
        for orphan in map(self._table.orphan, session.ufrags):
            if orphan is not None and orphan.slot != session.slot:
                log.warning(
                    "owner %d: takes session %s over from owner %d, which never confirmed it",
                    session.slot,
                    session.id,
                    orphan.slot,
                )

    def watch_flows(self, slot: int) -> None:
        """Have the sweep find out which sessions of the owner have flows."""
        self._sweep.watch(slot)

    def sessions_with_flows(self, slot: int) -> set[int]:
        """Return the kernel's ids of a watched owner's sessions that had a flow in the last pass.

        A 0 among them is a flow that egress healed: its session is not known yet.
        """
        return {session_id for owner, session_id in self._sweep.found if owner == slot}

    def sweep(self, now_ns: int) -> SweepReport:
        """Look at the next stretch of the flow table and remove what is over.

        One call costs some ten milliseconds at most; `complete` in the report says that the end
        of the table was reached. `now_ns` is CLOCK_MONOTONIC, as the kernel's `alive_ns`.
        """
        return self._sweep.step(now_ns)

    def live_session(self, ufrag_hash: int) -> int | None:
        """Return the kernel's session id behind a sessions key, or None."""
        return self._table.kernel_id(ufrag_hash)

    def live_generation(self, slot: int) -> int | None:
        """Return the generation of the slot's owner, or None if the slot is free."""
        owner = self._owners.get(slot)
        return None if owner is None else owner.generation

    def _owner(self, slot: int) -> Owner:
        owner = self._owners.get(slot)
        if owner is None:
            raise UnknownOwner(f"owner {slot}: no owner has that slot")
        return owner

    def _session(self, session_id: str) -> Session:
        session = self._table.by_id.get(session_id)
        if session is None:
            raise UnknownSession(f"session {session_id}: there is none, or it has ended")
        return session

    def _check_free(self, ufrag: str, slot: int) -> None:
        """Raise UfragInUse unless a session of the slot's owner may take the ufrag."""
        live = self._table.holder(ufrag)
        if live is not None:
            raise UfragInUse(f"ufrag {ufrag!r} belongs to living session {live.id}")
        orphan = self._table.orphan(ufrag)
        if orphan is not None and orphan.slot != slot:
            raise UfragInUse(f"ufrag {ufrag!r} belongs to a session of owner {orphan.slot}")

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
