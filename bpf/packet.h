/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * struct packet: what the stages hand to each other; and the verdict, in which every packet ends.
 * No map and no helper here: this header, parse.h, siphash.h also build on the host.
 */
#ifndef TURNOUT_PACKET_H
#define TURNOUT_PACKET_H

#include "abi.h"

/*
 * A stage returns CONTINUE, or the verdict: the counter it ends in, and whether it is dropped.
 * NOT_OURS leaves the packet to the host, uncounted.
 */
enum {
	CONTINUE = 0,
	NOT_OURS = 0x8000,
	VERDICT_DROP = 0x4000,
	VERDICT_COUNTER = 0x0fff,
};

#define COUNTER(name) (__builtin_offsetof(struct counters, name) / sizeof(__u64))
#define COUNTERS_MAX (sizeof(struct counters) / sizeof(__u64))

#define STEERED(kind) COUNTER(steered__##kind)
#define PASS(reason) COUNTER(pass__##reason)
#define DROP(reason) (COUNTER(drop__##reason) | VERDICT_DROP)
#define GUARD(reason) (COUNTER(guard__##reason) | VERDICT_DROP)

enum transport {
	TRANSPORT_OTHER = 0, /* nothing of ours */
	TRANSPORT_UDP,
	TRANSPORT_UDP_FRAGMENT, /* the first one: it has the ports, not all of the payload */
	TRANSPORT_HIDDEN, /* UDP, or a chain that may lead to it, with the ports out of sight */
	TRANSPORT_ICMP,
	TRANSPORT_ICMPV6,
};

struct packet {
	void *data;
	void *data_end;
	__u32 len_bytes; /* of the frame, with the part that data_end does not reach */

	struct udphdr *udp; /* by point_at_udp() */

	struct counters *counters; /* once the packet is known to be for the shared port */

	/* By parse(). */
	__u32 network_end; /* offset of the end of the IP packet */
	__u32 payload;	   /* offset of the UDP payload */
	__u32 payload_len; /* bytes */
	struct address source;
	struct address destination;
	__u64 transport; /* enum transport; the verifier follows only 8-byte spills */

	/* By find.h. */
	__u32 tick;
	struct flow_key flow_key;
	__u64 flow_hash;
	__u64 ufrag_hash; /* of a Binding request with USERNAME */
	__u64 session_id;
	struct owner_id owner;
	__u32 stun_len; /* without the header */
	__be16 lane;
	__u8 first_byte; /* of the payload */
};

static __always_inline void set_ipv4(struct address *address, __be32 ipv4)
{
	address->word[0] = 0;
	address->word[1] = 0;
	address->word[2] = bpf_htonl(0xffff);
	address->word[3] = ipv4;
}

static __always_inline int is_ipv4(const struct address *address)
{
	return !address->word[0] && !address->word[1] && address->word[2] == bpf_htonl(0xffff);
}

static __always_inline int same_address(const struct address *a, const struct address *b)
{
	return !((a->word[0] ^ b->word[0]) | (a->word[1] ^ b->word[1]) | (a->word[2] ^ b->word[2]) |
		 (a->word[3] ^ b->word[3]));
}

static __always_inline int same_flow_key(const struct flow_key *a, const struct flow_key *b)
{
	return same_address(&a->client, &b->client) && a->client_port == b->client_port &&
	       a->vip == b->vip;
}

static __always_inline int same_owner(const struct owner_id *a, const struct owner_id *b)
{
	return a->slot == b->slot && a->generation == b->generation;
}

#endif
