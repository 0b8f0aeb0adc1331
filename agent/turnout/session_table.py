"""The sessions of an edge, and the kernel's `sessions` map that says the same.

Steering owns the one table there is and decides; here a decision becomes map entries. A session
has one entry for each of its ufrags, all with the same session id, each with what the kernel needs
to verify requests under that ufrag. What an earlier agent left and nobody has confirmed stands
among the orphans: the kernel steers and verifies by it as before.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from turnout.adoption import Orphan
from turnout.errors import SteeringError
from turnout.ownership import Owner, Session, kernel_session_id, owner_id_record
from turnout.wire.hmac_midstate import sha1_midstates
from turnout.wire.sdp import IceCredentials
from turnout.wire.siphash import siphash24

if TYPE_CHECKING:
    from turnout.kernel.maps import KernelMap, Record

# Fields of `struct session` that the kernel writes, while the session lives.
_KERNELS_OWN = ("check_tick", "checks", "failures", "flows")


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

    def put(self, session: Session, owner: Owner) -> None:
        """Have the kernel steer the session's ufrags, and no other of it, to the owner.

        Raises SteeringError if the map takes no more; then everything is as it was.
        """
        before = self.by_id.get(session.id)
        had = set() if before is None else self._hashes(before)
        by_hash = {self._hash(one.ufrag): one for one in session.credentials}
        has = set(by_hash)
        written: list[int] = []
        try:
            for ufrag_hash, credentials in by_hash.items():
                record = self._build_record(ufrag_hash, credentials, session, owner)
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
        if before is not None and before.slot != owner.slot:
            del self._by_slot[before.slot][session.id]
        self.by_id[session.id] = session
        self._by_slot.setdefault(owner.slot, {})[session.id] = session

    def _build_record(
        self, ufrag_hash: int, credentials: IceCredentials, session: Session, owner: Owner
    ) -> dict[str, Any]:
        """Build an entry; what the kernel has written into it for the same session is kept.

        What it writes between our reading and writing is lost: a check uncounted, or a flow that
        is missing from the list of its session, and that the sweep and the table know all the same.
        """
        session_id = kernel_session_id(session.id)
        known = self._entries.lookup(ufrag_hash)
        kept = {}
        if known is not None and known["session_id"] == session_id:
            kept = {name: known[name] for name in _KERNELS_OWN}
        inner, outer = sha1_midstates(credentials.pwd.encode())
        return {
            **kept,
            "session_id": session_id,
            "owner": owner_id_record(owner),
            "hmac_inner": list(inner),
            "hmac_outer": list(outer),
        }

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

    def orphans_of(self, slot: int) -> list[str]:
        """Return the first half of the id of every unconfirmed session of one owner."""
        found = {orphan.kernel_id for orphan in self.orphans.values() if orphan.slot == slot}
        return [f"{kernel_id:016x}" for kernel_id in sorted(found)]

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

    def entries_of(self, session: Session) -> Iterable[tuple[int, "Record"]]:
        """Return the session's map entries, with their keys."""
        found = ((key, self._entries.lookup(key)) for key in self._hashes(session))
        return [(key, entry) for key, entry in found if entry is not None]

    def rivals(self, session: Session) -> Iterable[Session]:
        """Return what lives under the session's id or ufrags and is another session."""
        found = [self.by_id.get(session.id), *map(self.holder, session.ufrags)]
        identity = (session.id, session.slot)
        return [other for other in found if other and (other.id, other.slot) != identity]

    def _hashes(self, *sessions: Session) -> set[int]:
        return {self._hash(ufrag) for session in sessions for ufrag in session.ufrags}

    def _hash(self, ufrag: str) -> int:
        return siphash24(self._key, ufrag.encode("ascii"))
