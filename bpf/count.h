/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counting: one per-CPU struct for the host, one for each owner. */
#ifndef TURNOUT_COUNT_H
#define TURNOUT_COUNT_H

#include "maps.h"
#include "packet.h"

static __always_inline void count_in(struct counters *all, __u32 counter)
{
	if (counter < COUNTERS_MAX)
		((__u64 *)all)[counter]++;
}

static __always_inline void count(__u32 counter)
{
	int zero = 0;
	struct counters *all = counters.lookup(&zero);

	if (all)
		count_in(all, counter);
}

#define COUNT(name) count(COUNTER(name))

static __always_inline void count_steered(const struct packet *p)
{
	__u32 slot = p->owner.slot;
	struct owner_counters *owner = owner_counters.lookup(&slot);

	if (owner) {
		owner->steered_packets++;
		owner->steered_bytes += p->payload_len;
	}
}

static __always_inline void count_returned(const struct packet *p, __u32 payload_bytes)
{
	__u32 slot = p->owner.slot;
	struct owner_counters *owner = owner_counters.lookup(&slot);

	if (owner) {
		owner->returned_packets++;
		owner->returned_bytes += payload_bytes;
	}
}

#endif
