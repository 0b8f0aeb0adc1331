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

/* Learned by the kernel, swept by it when the agent says so. Mapped by page: buckets are aligned. */
BPF_F_TABLE("array", __u32, struct flow_bucket, flows, FLOW_BUCKETS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", __u32, struct flow, flow_details, FLOW_BUCKETS *BUCKET_PLACES, BPF_F_MMAPABLE);
BPF_ARRAY(owner_flows, struct owner_flows, OWNERS_MAX);

/* Rates by keyed hash (meter.h): of flows, and of failed checks by source prefix. */
BPF_PERCPU_ARRAY(meters, __u64, METERS);
BPF_ARRAY(prefix_meters, __u64, METERS);

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

/* A STUN message that is verified, and SHA-1's work on it. DTLS in STUN makes them this long. */
#define MESSAGE_BYTES_MAX 1400
#define MESSAGE_BLOCKS_MAX ((MESSAGE_BYTES_MAX + 8) / 64 + 1)
struct scratch_message {
	__u8 byte[2048 + 128]; /* as far as masked offsets and the padding may point */
	__u64 len;
	__u64 blocks;
	__u32 schedule[80];
	__u32 state[5];
	__u32 reserved;
};
BPF_PERCPU_ARRAY(scratch_message, struct scratch_message, 1);
BPF_PERCPU_ARRAY(scratch_rank, __u64, 1);

#endif
