/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Steering one packet is not owning a tuple. A request creates the flow where there is none; a
 * flow that is another living session's is left alone, or any client with a session of its own
 * could take over a call by forging its address. Called by the ingress program for requests that
 * found their owner, and by the egress program to heal.
 */
#ifndef TURNOUT_LEARN_H
#define TURNOUT_LEARN_H

#include "count.h"
#include "flows.h"
#include "maps.h"

/*
 * A session ends when its ufrag leaves `sessions`, or when its owner is reborn. An owner that is
 * down may come back with all its sessions: its flows wait for it.
 */
static __always_inline int is_ended(const struct flow *flow)
{
	__u64 ufrag_hash = flow->ufrag_hash;
	__u32 slot = flow->owner.slot;
	struct session *session;
	struct owner *owner;

	owner = owners.lookup(&slot);
	if (!owner || owner->generation != flow->owner.generation)
		return 1;
	if (!flow->session_id)
		return 0; /* healed: whose it is shows only in its silence */
	session = sessions.lookup(&ufrag_hash);
	return !session || session->session_id != flow->session_id;
}

/* Counts what became of a put_flow. Another CPU's flow that was there first (EEXIST) stands. */
static __always_inline void count_put(int error, __u32 counter)
{
	if (!error)
		count(counter);
	else if (error != -EEXIST)
		COUNT(flow__refused);
}

static __always_inline void learn(const struct packet *p)
{
	struct flow_key key = p->flow_key;
	struct flow *flow = find_flow(&key);

	if (flow) {
		if (flow->session_id == p->session_id) {
			touch_flow(flow);
			/* An ICE restart or a hand-off: same session, other ufrag or owner. */
			if (flow->ufrag_hash != p->ufrag_hash)
				flow->ufrag_hash = p->ufrag_hash;
			if (!same_owner(&flow->owner, &p->owner))
				flow->owner = p->owner;
			return;
		}
		if (!is_ended(flow) && silent_ns(flow) < FLOW_SILENT_NS) {
			/*
			 * A healed flow stays nobody's session while it lives: claiming it would
			 * let a neighbour on the same owner name it his own and end it with his.
			 */
			if (flow->session_id || !same_owner(&flow->owner, &p->owner))
				COUNT(flow__contested);
			return;
		}
	}
	/* Here stands the check of MESSAGE-INTEGRITY: before anything is created or moved. */
	count_put(put_flow(p, !flow), flow ? COUNTER(flow__moved) : COUNTER(flow__learned));
}

#endif
