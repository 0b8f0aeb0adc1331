/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * An edge with two VIPs, two owners and three ufrags, in maps that are arrays of this process; and
 * steer.c, which works on them. Used by the target `programs`.
 */
#ifndef FUZZ_HOST_EDGE_H
#define FUZZ_HOST_EDGE_H

#include "frame.h"

#define FLOW_BUCKETS 4
#define METERS 64
#define SESSIONS 3
#define SESSIONS_MAX SESSIONS

struct xdp_md {
	unsigned long data, data_end;
	__u32 ingress_ifindex;
};

struct __sk_buff {
	unsigned long data, data_end;
	__u32 len, gso_size;
};

static __u64 now;

static inline __u64 bpf_ktime_get_coarse_ns(void)
{
	return now;
}

/* At 250 Hz. */
static inline __u64 bpf_jiffies64(void)
{
	return now / 4000000;
}

static inline __u64 bpf_xdp_get_buff_len(void *ctx)
{
	(void)ctx;
	return frame.len;
}

static inline long bpf_xdp_load_bytes(void *ctx, __u32 offset, void *buffer, __u32 len)
{
	(void)ctx;
	return copy_from_frame(offset, buffer, len);
}

static inline long bpf_xdp_store_bytes(void *ctx, __u32 offset, void *buffer, __u32 len)
{
	(void)ctx;
	return copy_to_frame(offset, buffer, len);
}

static inline long bpf_skb_load_bytes(void *skb, __u32 offset, void *buffer, __u32 len)
{
	(void)skb;
	return copy_from_frame(offset, buffer, len);
}

static inline long bpf_skb_store_bytes(void *skb, __u32 offset, const void *buffer, __u32 len,
				       __u64 flags)
{
	(void)skb;
	(void)flags;
	return copy_to_frame(offset, buffer, len);
}

/* Makes all of the frame linear, somewhere else: pointers from before are no good any more. */
static inline long bpf_skb_pull_data(struct __sk_buff *skb, __u32 len)
{
	uint8_t *all = malloc(frame.len);

	(void)len;
	copy_from_frame(0, all, frame.len);
	drop_frame();
	frame.data = all;
	frame.rest = NULL;
	frame.linear = frame.len;
	skb->data = (unsigned long)all;
	skb->data_end = skb->data + frame.len;
	return 0;
}

static inline long bpf_l4_csum_replace(void *skb, __u32 offset, __u64 from, __u64 to, __u64 flags)
{
	__u16 check;

	(void)skb;
	REQUIRE((flags & 0xf) == 2);
	if (copy_from_frame(offset, &check, sizeof(check)))
		return -22;
	if (check) {
		__u32 sum = (__u16)~check + (__u16)~from + (__u16)to;

		sum = (sum & 0xffff) + (sum >> 16);
		check = ~((sum & 0xffff) + (sum >> 16));
		check = check ? check : 0xffff;
	}
	return copy_to_frame(offset, &check, sizeof(check));
}

#define BPF_ARRAY(name, type, entries)                                    \
	static type name##_entries[entries];                              \
	static type *name##_lookup(const void *key)                       \
	{                                                                 \
		__u32 index;                                              \
                                                                          \
		memcpy(&index, key, sizeof(index));                       \
		return index < (entries) ? &name##_entries[index] : NULL; \
	}                                                                 \
	static const struct {                                             \
		type *(*lookup)(const void *);                            \
	} name = {name##_lookup}
#define BPF_PERCPU_ARRAY(name, type, entries) BPF_ARRAY(name, type, entries)
#define BPF_F_TABLE(kind, key, type, name, entries, flags) BPF_ARRAY(name, type, entries)

/* The only hash is `sessions`. */
#define BPF_TABLE(kind, key_type, type, name, entries)                                             \
	static struct session_entry {                                                              \
		int used;                                                                          \
		key_type key;                                                                      \
		type value;                                                                        \
	} session_entries[entries];                                                                \
	static type *name##_lookup(const void *key)                                                \
	{                                                                                          \
		int i;                                                                             \
                                                                                                   \
		for (i = 0; i < (entries); i++)                                                    \
			if (session_entries[i].used && session_entries[i].key == *(key_type *)key) \
				return &session_entries[i].value;                                  \
		return NULL;                                                                       \
	}                                                                                          \
	static const struct {                                                                      \
		type *(*lookup)(const void *);                                                     \
	} name = {name##_lookup}

#include "steer.c"

/* As tests/datapath/packets.py has it, where the seeds come from. */
static void set_up_edge(void)
{
	static const uint8_t vip4[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 10};
	static const uint8_t vip6[] = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10};
	struct settings *host = &settings_entries[0];
	int i;

	for (i = 0; i < 16; i++)
		((uint8_t *)host->edge_key)[i] = i;
	for (i = 0; i < 6; i++)
		host->flow_keys[i] = 0x9e3779b97f4a7c15ULL * (2 * i + 1);
	memcpy(&host->vips[0], vip4, sizeof(vip4));
	memcpy(&host->vips[1], vip6, sizeof(vip6));
	host->vip_mask = 3;
	host->shared_port = 3478;
	host->lane_first = 20000;
	host->lane_last = 20009;
	host->flow_buckets = FLOW_BUCKETS;
	host->session_flows = 3;
	host->check_budget = 5;
	host->prefix_failures = 3;
	host->flow_packets = 4;
	for (i = 1; i <= 2; i++) {
		lanes_entries[20000 + i - 1].slot = i;
		lanes_entries[20000 + i - 1].generation = 7;
	}
}

#endif
