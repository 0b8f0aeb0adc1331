/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What takes dead flows out of the table: flows of ended sessions, and flows silent too long. In
 * the kernel, because only there a place can be emptied without taking away what has just come to
 * stand in it. The agent runs it (BPF_PROG_TEST_RUN) on a frame that is its cursor, again and again.
 */
#ifndef TURNOUT_SWEEP_H
#define TURNOUT_SWEEP_H

#include "claims.h"
#include "clock.h"
#include "count.h"
#include "flows.h"
#include "learn.h"

/* Four times the 30 s after which consent expires; ages come round after 256 ticks. */
#define FLOW_IDLE_TICKS 112
#define SWEEP_BUCKETS 16

struct sweep_cursor {
	__u32 bucket; /* the next to look at */
	__u32 reserved[3];
};

static __always_inline void sweep_place(struct place *place, __u32 tick)
{
	__u32 index = place->index, slot;
	struct owner_flows *seen;
	struct flow *flow;

	if (is_claimed(place->entry))
		return;
	flow = flow_details.lookup(&index);
	if (!flow)
		return;
	if (is_ended(flow, place->entry)) {
		if (replace_entry(place, place->entry, 0))
			COUNT(swept__ended);
		return;
	}
	if (silent_ticks(tick, place->bucket->age[bounded(place->at)]) >= FLOW_IDLE_TICKS) {
		if (replace_entry(place, place->entry, 0))
			COUNT(swept__idle);
		return;
	}
	slot = entry_owner(place->entry).slot;
	seen = owner_flows.lookup(&slot);
	if (!seen)
		return;
	seen->flows++;
	if (!flow->session_id)
		seen->unclaimed++;
}

static __always_inline void sweep_buckets(struct sweep_cursor *cursor)
{
	__u32 tick = read_tick(), first = cursor->bucket * BUCKET_PLACES;
	struct place place;
	int i;

	for (i = 0; i < SWEEP_BUCKETS * BUCKET_PLACES; i++) {
		if (!place_of(first + i, &place))
			break;
		if (place.entry)
			sweep_place(&place, tick);
	}
	cursor->bucket += SWEEP_BUCKETS;
}

#endif
