"""What an agent takes over from the one before it: the owners and sessions in the kernel's maps.

The kernel steered by them all the while. Steering calls this once, at its start; what has no place
in the settings of today, or leads to nobody, is cleared on the way.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from turnout.ownership import NOBODY, STATE_NAMES, Owner, free_slot_record, owner_id_record

if TYPE_CHECKING:
    from turnout.kernel.maps import Maps
    from turnout.settings import Settings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Orphan:
    """A sessions entry that nobody has confirmed yet."""

    kernel_id: int
    slot: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was found and kept."""

    owners: dict[int, Owner]  # by slot
    generations: dict[int, int]  # the last one of every slot that ever had an owner
    orphans: dict[int, Orphan]  # by ufrag hash


def adopt(maps: "Maps", settings: "Settings") -> Adopted:
    """Read owners and sessions, and clear what leads to nobody."""
    owners, generations = read_owners(maps)
    for owner in [owner for owner in owners.values() if not _has_place(owner, settings)]:
        log.info("owner %d has no place on lane %d any more: removed", owner.slot, owner.lane)
        maps.lanes.update(owner.lane, dict(NOBODY))
        maps.owners.update(owner.slot, free_slot_record(owner.generation))
        del owners[owner.slot]
    for owner in owners.values():
        # The agent before may have died between the two writes.
        maps.lanes.update(owner.lane, owner_id_record(owner))
    orphans: dict[int, Orphan] = {}
    for ufrag_hash, record in list(maps.sessions.items()):
        holder = owners.get(record["owner"]["slot"])
        if holder is not None and holder.generation == record["owner"]["generation"]:
            orphans[ufrag_hash] = Orphan(record["session_id"], holder.slot)
        else:
            maps.sessions.delete(ufrag_hash)
    if owners:
        log.info("adopted %d owners and %d sessions, to be confirmed", len(owners), len(orphans))
    return Adopted(owners, generations, orphans)


def read_owners(maps: "Maps") -> tuple[dict[int, Owner], dict[int, int]]:
    """Return the owners in the map by slot, and the last generation of every slot ever used."""
    owners: dict[int, Owner] = {}
    generations: dict[int, int] = {}
    for slot, record in maps.owners.items():
        generation, lane, incarnation = record["generation"], record["lane"], record["incarnation"]
        if generation:
            generations[slot] = generation
        if generation and lane:
            # A registered owner has no incarnation, one of our transceivers always has.
            kind = "transceiver" if incarnation else "registered"
            state = STATE_NAMES[record["state"]]
            owners[slot] = Owner(slot, generation, lane, state, kind, incarnation)
    return owners, generations


def _has_place(owner: Owner, settings: "Settings") -> bool:
    """Tell whether the owner may stand where it is: other lanes or counts may be set by now."""
    ours = settings.transceivers
    if owner.kind == "transceiver":
        return owner.slot < ours and owner.lane == settings.lane(owner.slot)
    return owner.slot >= ours and settings.lane(ours) <= owner.lane <= settings.lane_last
