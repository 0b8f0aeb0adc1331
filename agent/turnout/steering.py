"""Who owns what: the one writer of the kernel's `sessions`, `owners` and `lanes`.

It decides; session_table.py and owner_table.py, which only it has, write what it decided.
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
from turnout.errors import (
    OwnerDraining,
    SteeringError,
    UfragInUse,
    UnknownSession,
)
from turnout.flows import FlowTable, Follow, OwnerFlows, Sweep, Way
from turnout.kernel_settings import edge_key_bytes
from turnout.owner_table import OwnerTable
from turnout.ownership import Owner, Session, kernel_session_id, mint_session_id
from turnout.session_table import SessionTable
from turnout.settings import Settings
from turnout.wire.sdp import IceCredentials

if TYPE_CHECKING:
    from turnout.kernel.maps import Maps

log = logging.getLogger(__name__)

__all__ = ["Owner", "Session", "Steering", "mint_session_id"]


class Steering:
    """Sessions and owners of one edge, and the maps that say the same to the kernel."""

    def __init__(self, maps: "Maps", settings: Settings) -> None:
        """Adopt what the maps hold. The settings map must have been written before."""
        self._settings = settings
        record = maps.settings.lookup(0)
        if record is None:
            raise SteeringError("the kernel's settings map is empty; the agent writes it first")
        adopted = adopt(maps, settings)
        self._owners = OwnerTable(maps, settings, adopted.owners, adopted.generations)
        key = edge_key_bytes(record["edge_key"])
        self._sessions = SessionTable(maps.sessions, key, adopted.orphans)
        self._flows = FlowTable(maps)
        self._refused = 0

    def follow_settings(self, settings: Settings) -> None:
        """Take settings with the same lanes and as many transceivers or more."""
        self._settings = settings
        self._owners.settings = settings

    @property
    def owners(self) -> Mapping[int, Owner]:
        """The owners by slot, in slot order."""
        return MappingProxyType(self._owners.by_slot)

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The sessions by id. What an earlier agent left unconfirmed is not among them."""
        return MappingProxyType(self._sessions.by_id)

    @property
    def confirmed(self) -> frozenset[int]:
        """The slots whose owner spoke up since this agent started; the others are adopted."""
        return frozenset(self._owners.confirmed)

    @property
    def drained(self) -> frozenset[int]:
        """The slots whose owner is drained: it takes no new sessions."""
        return frozenset(self._owners.drained)

    @property
    def unconfirmed(self) -> int:
        """How many sessions of an earlier agent the kernel still steers and nobody confirmed."""
        return len(self._sessions.orphans)

    @property
    def flows_seen(self) -> int:
        """How many flows the last whole pass of the sweep left in the table."""
        return self._flows.flows

    @property
    def sessions_refused(self) -> int:
        """How many sessions were refused because the host has as many as it may have."""
        return self._refused

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
        the generation moves on, so that nothing of the dead one reaches it, and it is not drained.
        Without `slot`, the lane's owner is meant, else the lowest free slot past our own
        transceivers' is taken. Raises SteeringError if the lane or slot is not to be had.
        """
        owner, is_new = self._owners.register(lane, slot, incarnation, kind)
        if is_new:
            ended = self._sessions.drop_slot(owner.slot)
            log.info(
                "owner %d: %s on lane %d, generation %d%s",
                owner.slot,
                kind,
                lane,
                owner.generation,
                f", {ended} sessions of the one before ended" if ended else "",
            )
        return owner

    def set_owner_state(self, slot: int, state: str) -> Owner:
        """Set an owner's state and nothing else. Raises UnknownOwner.

        One that is drained is not active for it, but draining, until it is drained no more.
        """
        return self._owners.set_state(slot, state)

    def set_drained(self, slot: int, *, is_drained: bool) -> Owner:
        """Have an owner keep its sessions and take no new ones, or again. Raises UnknownOwner."""
        return self._owners.set_drained(slot, is_drained=is_drained)

    def remove_owner(self, slot: int) -> None:
        """End an owner and its sessions; its lane is free again. Raises UnknownOwner."""
        self._owners.remove(slot)
        ended = self._sessions.drop_slot(slot)
        log.info("owner %d: removed, %d sessions ended", slot, ended)

    def owner_sessions(self, slot: int) -> list[Session]:
        """Return the sessions of one owner."""
        return self._sessions.of_slot(slot)

    def unconfirmed_of(self, slot: int) -> list[str]:
        """Return what an earlier agent left of one owner: ids that `remove_session` takes."""
        return self._sessions.orphans_of(slot)

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

        It verifies the requests of new addresses with the password.

        A session of an earlier agent that nobody confirmed is claimed by naming its ufrag and
        owner again; its flows go on. Adding a session that is there already, id and all, returns
        it. Raises UfragInUse, UnknownOwner, OwnerDraining; SteeringError where there is no room.
        """
        owner = self._owners.get(slot)
        live = self._sessions.holder(ufrag)
        if live is not None and (live.id, live.slot) == (session_id, slot):
            return live
        self._check_free(ufrag, slot)
        orphan = self._sessions.orphan(ufrag)
        if orphan is None:
            if slot in self._owners.drained:
                raise OwnerDraining(f"owner {slot}: it is drained and takes no new sessions")
            self.check_room()
        if session_id is None:
            session_id = mint_session_id()
            if orphan is not None:
                session_id = f"{orphan.kernel_id:016x}{session_id[16:]}"
        elif session_id in self._sessions.by_id:
            raise SteeringError(f"session {session_id} exists with another ufrag")
        session = Session(session_id, ufrag, pwd, slot, kind)
        self._sessions.put(session, owner)
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
        self._sessions.put(session, self._owners.get(session.slot))
        return session

    def finish_restart(self, session_id: str, ufrag: str) -> Session:
        """Retire the old ufrag: the client uses that of the restart. Raises UnknownSession.

        Flows that were made under the old one alone are over, like those of an ended session.
        """
        session = self._session(session_id)
        restart = session.restart
        if restart is not None and restart.ufrag == ufrag:
            session = replace(session, ufrag=restart.ufrag, pwd=restart.pwd, restart=None)
            self._sessions.put(session, self._owners.get(session.slot))
        return session

    def hand_over(self, session_id: str, slot: int, ways: Iterable[Way], follow: Follow) -> int:
        """Give a living session and its flows another owner, which has it already.

        `ways` are the client's. Returns how many flows went; others go with the client's next
        check. Raises UnknownSession, UnknownOwner.
        """
        session, owner = self._session(session_id), self._owners.get(slot)
        if session.restart is not None:
            # Over, even if we have not heard of it yet: else it would have stayed where it was.
            session = self.finish_restart(session_id, session.restart.ufrag)
        before = self._owners.get(session.slot)
        self._sessions.put(replace(session, slot=slot), owner)
        ufrag_hashes = [ufrag_hash for ufrag_hash, _ in self._sessions.entries_of(session)]
        return self._flows.move(follow, ufrag_hashes, ways, before)

    def remove_session(self, session_id: str) -> Session:
        """End a session: nobody joins it any more, its tuples are free. Raises UnknownSession.

        What still comes on its flows goes to its owner until the sweep takes them away, within
        seconds; the owner has ended the session as well and discards it. One of an earlier agent
        that nobody confirmed is ended too.
        """
        session = self._sessions.by_id.get(session_id)
        if session is not None:
            self._sessions.drop(session)
            return session
        session = self._sessions.drop_orphan(session_id)
        if session is None:
            raise UnknownSession(f"session {session_id}: there is none, or it has ended")
        return session

    def reconcile_owner(self, slot: int, sessions: Iterable[tuple[str, str, str]]) -> None:
        """Make the owner's sessions exactly these (id, ufrag, pwd). Raises UnknownOwner.

        A session that stands twice is in an ICE restart, to the credentials named last.
        """
        owner = self._owners.get(slot)
        wanted: dict[str, Session] = {}
        for session_id, ufrag, pwd in sessions:
            known = wanted.get(session_id)
            if known is None:
                wanted[session_id] = Session(session_id, ufrag, pwd, slot, "upstream")
            else:
                wanted[session_id] = replace(known, restart=IceCredentials(ufrag, pwd))
        self._sessions.drop_slot(slot, keep=wanted)
        for session in wanted.values():
            for rival in self._sessions.rivals(session):
                log.warning(
                    "owner %d: its session %s is not steered, its ufrag belongs to session %s",
                    slot,
                    session.id,
                    rival.id,
                )
                break
            else:
                self._take_over(session)
                self._sessions.put(session, owner)

    def _take_over(self, session: Session) -> None:
        for orphan in map(self._sessions.orphan, session.ufrags):
            if orphan is not None and orphan.slot != session.slot:
                log.warning(
                    "owner %d: takes session %s over from owner %d, which never confirmed it",
                    session.slot,
                    session.id,
                    orphan.slot,
                )

    def check_room(self) -> None:
        """Raise SteeringError, and count it, if the host has as many sessions as it may have."""
        most = self._settings.limits.max_sessions
        if len(self._sessions.by_id) + len(self._sessions.orphans) >= most:
            self._refused += 1
            raise SteeringError(
                f"this edge has {most} sessions, which is all it may have: end some, or raise "
                "max_sessions in [limits]"
            )

    def has_flow(self, session_id: str) -> bool:
        """Tell whether a session has a flow: its client was heard, lately or 120 s ago at most."""
        session = self._session(session_id)
        kernel_id = kernel_session_id(session_id)
        return any(
            self._flows.is_held(reference, ufrag_hash, kernel_id)
            for ufrag_hash, entry in self._sessions.entries_of(session)
            for reference in entry["flows"]
        )

    def flows_of(self, slot: int) -> OwnerFlows:
        """Return how many flows an owner had when the sweep last came to the table's end."""
        return self._flows.of_owner(slot)

    def sweep(self, run: Sweep) -> bool:
        """Have the kernel sweep the next slice of its flow table; True if that was the last.

        One call takes some milliseconds at most.
        """
        return self._flows.sweep(run, self._owners.by_slot)

    def _session(self, session_id: str) -> Session:
        session = self._sessions.by_id.get(session_id)
        if session is None:
            raise UnknownSession(f"session {session_id}: there is none, or it has ended")
        return session

    def _check_free(self, ufrag: str, slot: int) -> None:
        """Raise UfragInUse unless a session of the slot's owner may take the ufrag."""
        live = self._sessions.holder(ufrag)
        if live is not None:
            raise UfragInUse(f"ufrag {ufrag!r} belongs to living session {live.id}")
        orphan = self._sessions.orphan(ufrag)
        if orphan is not None and orphan.slot != slot:
            raise UfragInUse(f"ufrag {ufrag!r} belongs to a session of owner {orphan.slot}")
