/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Rates by keyed hash: one word holds whom it counts (24 bits of the hash), in which tick (16) and
 * how many (24). Of those that share a place one is counted, and each packet of the others takes one
 * off, until the place is free (Misra and Gries, 1982): so the place ends up with whoever sends more
 * than all others there, and never does one pay for another. Few places, so that they stay cached.
 */
#ifndef TURNOUT_METER_H
#define TURNOUT_METER_H

#include "classify.h"
#include "flowhash.h"
#include "maps.h"

#define METER_COUNT_BITS 24
#define METER_COUNT_MAX ((1ULL << METER_COUNT_BITS) - 1)
#define METER_TICK_MASK 0xffff

static __always_inline __u64 meter_label(__u64 hash, __u32 tick)
{
	return (hash >> 16 & 0xffffff) << 16 | (tick & METER_TICK_MASK);
}

/* How many were counted in this tick. */
static __always_inline __u64 read_meter(const __u64 *meter, __u64 label)
{
	__u64 value = *meter;

	return value >> METER_COUNT_BITS == label ? value & METER_COUNT_MAX : 0;
}

static __always_inline void count_meter(__u64 *meter, __u64 label)
{
	__u64 value = *meter, count = value & METER_COUNT_MAX;

	if (value >> METER_COUNT_BITS == label)
		*meter = count < METER_COUNT_MAX ? value + 1 : value;
	else if (count && !((value >> METER_COUNT_BITS ^ label) & METER_TICK_MASK))
		*meter = value - 1;
	else
		*meter = label << METER_COUNT_BITS | 1;
}

/* One packet more of a flow: CONTINUE, or the drop. By CPU: a flow's packets come in on one. */
static __always_inline int meter_flow(const struct packet *p, const struct settings *settings)
{
	__u64 label = meter_label(p->flow_hash, p->tick);
	__u32 index = p->flow_hash & (METERS - 1);
	__u64 *meter;

	if (!settings->flow_packets)
		return CONTINUE;
	meter = meters.lookup(&index);
	if (!meter)
		return CONTINUE;
	if (read_meter(meter, label) >= settings->flow_packets)
		return DROP(flow_rate);
	count_meter(meter, label);
	return CONTINUE;
}

/* The hash of the network a packet says it comes from: IPv4 /24, IPv6 /48. */
static __always_inline __u64 hash_prefix(const struct packet *p, const struct settings *settings)
{
	struct flow_key prefix = {.client = p->flow_key.client};

	if (is_ipv4(&prefix.client)) {
		prefix.client.word[3] &= bpf_htonl(0xffffff00);
	} else {
		prefix.client.word[1] &= bpf_htonl(0xffff0000);
		prefix.client.word[2] = 0;
		prefix.client.word[3] = 0;
	}
	return hash_flow(settings, &prefix);
}

#endif
