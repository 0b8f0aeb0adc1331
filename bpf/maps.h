/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps, by their names in the ABI. The loader pins each under its name and leaves out those
 * whose name starts with `scratch`: they hold nothing between two packets.
 */
#ifndef TURNOUT_MAPS_H
#define TURNOUT_MAPS_H

#include "abi.h"

/* Written by the agent. */
BPF_ARRAY(settings, struct settings, 1);
BPF_ARRAY(lanes, struct owner_id, 65536); /* by port; a zero owner_id: no lane */
BPF_ARRAY(owners, struct owner, OWNERS_MAX);
BPF_TABLE("hash", __u64, struct session, sessions, SESSIONS_MAX);

/* Learned by the kernel, swept by the agent. */
BPF_TABLE("lru_hash", struct flow_key, struct flow, flows, FLOWS_MAX);

/* Written by the kernel, read at scrape. */
BPF_PERCPU_ARRAY(counters, struct counters, 1);
BPF_PERCPU_ARRAY(owner_counters, struct owner_counters, OWNERS_MAX);

/* A ufrag, in words for SipHash: too large for the 512 bytes of stack beside all else. */
#define UFRAG_MIN 4
#define UFRAG_MAX 256
struct scratch_ufrag {
	__u64 word[UFRAG_MAX / 8 + 1]; /* one more: the byte after the longest ufrag is read too */
	__u64 len;
};
BPF_PERCPU_ARRAY(scratch_ufrag, struct scratch_ufrag, 1);

#endif
