"""The sessions of an edge, and the kernel's `sessions` map that says the same.

Steering owns the one table there is and decides; here a decision becomes map entries. A session
has one entry for each of its ufrags, all with the same session id. What an earlier agent left and
nobody has confirmed stands among the orphans.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from turnout.adoption import Orphan
from turnout.errors import SteeringError
from turnout.ownership import Owner, Session, kernel_session_id, owner_id_record
from turnout.wire.siphash import siphash24

if TYPE_CHECKING:
    from turnout.kernel.maps import KernelMap


class SessionTable:
    """Sessions by id, by owner's slot and by ufrag."""

    def __init__(self, entries: "KernelMap", key: bytes, orphans: dict[int, Orphan]) -> None:
        """`key` is the SipHash key of the map; `orphans` are adopted, keyed like the map."""
        self.by_id: dict[str, Session] = {}
        self.orphans = orphans
        self._entries = entries
        self._key = key
        self._by_slot: dict[int, dict[str, Session]] = {}
        self._by_hash: dict[int, str] = {}

    def of_slot(self, slot: int) -> list[Session]:
        """Return the sessions of one owner."""
        return list(self._by_slot.get(slot, {}).values())

    def holder(self, ufrag: str) -> Session | None:
        """Return the session that has the ufrag."""
        session_id = self._by_hash.get(self._hash(ufrag))
        return None if session_id is None else self.by_id[session_id]

    def orphan(self, ufrag: str) -> Orphan | None:
        """Return the unconfirmed entry under the ufrag."""
        return self.orphans.get(self._hash(ufrag))

    def kernel_id(self, ufrag_hash: int) -> int | None:
        """Return the kernel's session id behind one of the map's keys, or None."""
        session_id = self._by_hash.get(ufrag_hash)
        if session_id is not None:
            return kernel_session_id(session_id)
        orphan = self.orphans.get(ufrag_hash)
        return None if orphan is None else orphan.kernel_id

    def put(self, session: Session, owner: Owner) -> None:
        """Have the kernel steer the session's ufrags, and no other of it, to the owner.

        Raises SteeringError if the map takes no more; then everything is as it was.
        """
        before = self.by_id.get(session.id)
        had = set() if before is None else self._hashes(before)
        has = self._hashes(session)
        record = {"session_id": kernel_session_id(session.id), "owner": owner_id_record(owner)}
        written: list[int] = []
        try:
            for ufrag_hash in has:
                self._entries.update(ufrag_hash, record)
                written.append(ufrag_hash)
        except OSError as error:
            for ufrag_hash in written:
                if ufrag_hash not in had and ufrag_hash not in self.orphans:
                    self._entries.delete(ufrag_hash)
            # E2BIG: the kernel holds as many sessions as the map was made for.
            raise SteeringError(
                f"session {session.id}: the kernel's table does not take it: {error.strerror}"
            ) from error
        for ufrag_hash in had - has:
            self._entries.delete(ufrag_hash)
            del self._by_hash[ufrag_hash]
        for ufrag_hash in has:
            self.orphans.pop(ufrag_hash, None)
            self._by_hash[ufrag_hash] = session.id
        self.by_id[session.id] = session
        self._by_slot.setdefault(owner.slot, {})[session.id] = session

    def drop(self, session: Session) -> None:
        """End a session: its map entries go first."""
        for ufrag_hash in self._hashes(session):
            self._entries.delete(ufrag_hash)
            del self._by_hash[ufrag_hash]
        del self.by_id[session.id]
        del self._by_slot[session.slot][session.id]

    def drop_slot(self, slot: int, keep: Mapping[str, Session] | None = None) -> int:
        """End the slot's sessions, confirmed or not, except those in `keep`; returns how many."""
        keep = keep or {}
        ending = [session for session in self.of_slot(slot) if session.id not in keep]
        for session in ending:
            self.drop(session)
        claimed = self._hashes(*keep.values())
        lost = [
            ufrag_hash
            for ufrag_hash, orphan in self.orphans.items()
            if orphan.slot == slot and ufrag_hash not in claimed
        ]
        for ufrag_hash in lost:
            self._entries.delete(ufrag_hash)
            del self.orphans[ufrag_hash]
        return len(ending) + len(lost)

    def drop_orphan(self, session_id: str) -> Session | None:
        """End what an earlier agent left under that id; None if there is nothing."""
        found = [
            (ufrag_hash, orphan)
            for ufrag_hash, orphan in self.orphans.items()
            if f"{orphan.kernel_id:016x}" == session_id[:16]
        ]
        for ufrag_hash, _ in found:
            self._entries.delete(ufrag_hash)
            del self.orphans[ufrag_hash]
        return Session(session_id, "", "", found[0][1].slot, "api") if found else None

    def rivals(self, session: Session) -> Iterable[Session]:
        """Return what lives under the session's id or ufrags and is another session."""
        found = [self.by_id.get(session.id), *map(self.holder, session.ufrags)]
        identity = (session.id, session.slot)
        return [other for other in found if other and (other.id, other.slot) != identity]

    def _hashes(self, *sessions: Session) -> set[int]:
        return {self._hash(ufrag) for session in sessions for ufrag in session.ufrags}

    def _hash(self, ufrag: str) -> int:
        return siphash24(self._key, ufrag.encode("ascii"))
