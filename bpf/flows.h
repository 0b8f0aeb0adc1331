/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The flow table behind a small interface: (client address, client port, VIP) -> owner, session
 * and the last sign of life. Today the kernel's LRU hash.
 */
#ifndef TURNOUT_FLOWS_H
#define TURNOUT_FLOWS_H

#include "maps.h"
#include "packet.h"

/* A flow that has shown no sign of life for this long may be moved to another session. */
#define FLOW_SILENT_NS (5LL * 1000 * 1000 * 1000)
/* A sign of life is written down this often, so that media does not dirty a line per packet. */
#define FLOW_TOUCH_NS (250LL * 1000 * 1000)

static __always_inline struct flow *find_flow(struct flow_key *key)
{
	return flows.lookup(key);
}

/* Negative when another CPU has just written a later time than this one read. */
static __always_inline __s64 silent_ns(const struct flow *flow)
{
	return bpf_ktime_get_coarse_ns() - flow->alive_ns;
}

static __always_inline void touch_flow(struct flow *flow)
{
	if (silent_ns(flow) > FLOW_TOUCH_NS)
		flow->alive_ns = bpf_ktime_get_coarse_ns();
}

/* Inserts, or overwrites where `absent_only` is 0. 0 or a negative errno. */
static __always_inline int put_flow(const struct packet *p, int absent_only)
{
	struct flow_key key = p->flow_key;
	struct flow flow = {
		.session_id = p->session_id,
		.ufrag_hash = p->ufrag_hash,
		.alive_ns = bpf_ktime_get_coarse_ns(),
		.owner = p->owner,
	};

	if (absent_only)
		return flows.insert(&key, &flow);
	return flows.update(&key, &flow);
}

#endif
