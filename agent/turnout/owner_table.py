"""The owners of an edge, and the kernel's `owners` and `lanes` maps that say the same.

Steering owns the one table there is; here a decision becomes map entries. What an owner is to the
kernel has two parts: the state it has of itself, and whether it is drained, which shows over an
active one and is remembered by draining.py, not by the map.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from turnout.errors import SteeringError, UnknownOwner
from turnout.ownership import (
    GENERATIONS,
    NOBODY,
    STATES,
    Owner,
    free_slot_record,
    owner_id_record,
    owner_record,
)
from turnout.settings import OWNERS_MAX, Settings

if TYPE_CHECKING:
    from turnout.kernel.maps import Maps

log = logging.getLogger(__name__)


class OwnerTable:
    """Owners by slot."""

    def __init__(
        self,
        maps: "Maps",
        settings: Settings,
        owners: dict[int, Owner],
        generations: Mapping[int, int],
    ) -> None:
        """`owners` and the `generations` of all slots are adopted; nobody is drained yet."""
        self.by_slot = owners
        self.settings = settings
        self.confirmed: set[int] = set()  # those that spoke up since the agent started
        self.drained: set[int] = set()
        self._owners = maps.owners
        self._lanes = maps.lanes
        self._generations = dict(generations)
        # By slot: active, draining or down, whoever drains it.
        self._own_states = {
            slot: "active" if owner.state == "draining" else owner.state
            for slot, owner in owners.items()
        }

    def get(self, slot: int) -> Owner:
        """Return the slot's owner. Raises UnknownOwner."""
        owner = self.by_slot.get(slot)
        if owner is None:
            raise UnknownOwner(f"owner {slot}: no owner has that slot")
        return owner

    def register(
        self, lane: int, slot: int | None, incarnation: int, kind: str
    ) -> tuple[Owner, bool]:
        """Make an owner or confirm the one that is there: `Steering.register_owner`.

        The second says whether it is a new one: then the sessions of the one before are over.
        """
        self._check_lane(lane, kind)
        slot = self._find_slot(lane, slot)
        self.confirmed.add(slot)
        known = self.by_slot.get(slot)
        if known is not None and known.kind == "upstream" != kind:
            raise SteeringError(f"lane {lane}: belongs to an [[upstream]] of the settings")
        if known is not None and (known.lane, known.incarnation) == (lane, incarnation):
            if known.state == "down":
                self._own_states[slot] = "active"
            owner = self._write(replace(known, state=self._state_of(slot), kind=kind))
            self._lanes.update(lane, owner_id_record(owner))
            return owner, False
        if known is not None and known.lane != lane:
            self._lanes.update(known.lane, dict(NOBODY))
        generation = self._generations.get(slot, 0) % GENERATIONS + 1
        self._own_states[slot] = "active"
        self.drained.discard(slot)
        # The owner first: from here on packets of the dead one's sessions drop as stale.
        owner = self._write(Owner(slot, generation, lane, "active", kind, incarnation))
        self._lanes.update(lane, owner_id_record(owner))
        return owner, True

    def set_state(self, slot: int, state: str) -> Owner:
        """Set the state an owner has of itself. Raises UnknownOwner."""
        if state not in STATES:
            raise SteeringError(f"owner state {state!r}: must be one of {', '.join(STATES)}")
        self.get(slot)
        self._own_states[slot] = state
        return self._show_state(slot)

    def set_drained(self, slot: int, *, is_drained: bool) -> Owner:
        """Drain an owner, or no more. Raises UnknownOwner."""
        self.get(slot)
        (self.drained.add if is_drained else self.drained.discard)(slot)
        return self._show_state(slot)

    def remove(self, slot: int) -> None:
        """End an owner; its lane is free again. Raises UnknownOwner."""
        owner = self.get(slot)
        # The lane first: adoption finds lanes only by the owners that name them. The generation
        # stays behind in the map, so that the slot's next owner gets another.
        self._lanes.update(owner.lane, dict(NOBODY))
        self._owners.update(slot, free_slot_record(owner.generation))
        del self.by_slot[slot]
        self.confirmed.discard(slot)
        self.drained.discard(slot)

    def _state_of(self, slot: int) -> str:
        state = self._own_states[slot]
        return "draining" if state == "active" and slot in self.drained else state

    def _show_state(self, slot: int) -> Owner:
        owner, state = self.get(slot), self._state_of(slot)
        if owner.state == state:
            return owner
        log.info("owner %d: %s, was %s", slot, state, owner.state)
        return self._write(replace(owner, state=state))

    def _write(self, owner: Owner) -> Owner:
        self._owners.update(owner.slot, owner_record(owner))
        self._generations[owner.slot] = owner.generation
        self.by_slot[owner.slot] = owner
        return owner

    def _check_lane(self, lane: int, kind: str) -> None:
        first, last = self.settings.lane_first, self.settings.lane_last
        if not first <= lane <= last:
            raise SteeringError(f"lane {lane}: must be within {first}-{last}")
        ours = self.settings.transceivers
        if kind == "registered" and lane < first + ours:
            raise SteeringError(
                f"lane {lane}: {first}-{first + ours - 1} belong to this edge's own transceivers"
            )

    def _find_slot(self, lane: int, slot: int | None) -> int:
        holder = next((owner.slot for owner in self.by_slot.values() if owner.lane == lane), None)
        if slot is None and holder is not None:
            return holder
        if slot is None:
            slots = range(self.settings.transceivers, OWNERS_MAX)
            slot = next((free for free in slots if free not in self.by_slot), None)
            if slot is None:
                raise SteeringError(f"lane {lane}: all {OWNERS_MAX} owner slots are taken")
        if not 0 <= slot < OWNERS_MAX:
            raise SteeringError(f"owner slot {slot}: must be 0 to {OWNERS_MAX - 1}")
        if holder is not None and holder != slot:
            raise SteeringError(f"lane {lane}: belongs to owner {holder}; remove that one first")
        return slot
