/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Is the packet for the shared port, for a lane, or not for us; and what its first payload byte
 * says it is (RFC 7983, updated by RFC 9443). Called by the ingress program.
 */
#ifndef TURNOUT_CLASSIFY_H
#define TURNOUT_CLASSIFY_H

#include "maps.h"
#include "packet.h"
#include "parse.h"

/* `lo` has this index in every network namespace (include/net/flow.h). */
#define LOOPBACK_IFINDEX 1

#define DTLS_APPLICATION_DATA 23

/* The index of the VIP, or -1. */
static __always_inline int find_vip(const struct settings *settings, const struct address *address)
{
	int i;

#pragma unroll
	for (i = 0; i < VIPS_MAX; i++) {
		if (same_address(&settings->vips[i], address) && settings->vip_mask & (1 << i))
			return i;
	}
	return -1;
}

/* The owner that listens on a port, or NULL: the rest of the range is the host's own business. */
static __always_inline struct owner_id *find_lane_owner(const struct settings *settings, int port)
{
	struct owner_id *owner;

	if (port < settings->lane_first || port > settings->lane_last)
		return NULL;
	owner = lanes.lookup(&port);
	return owner && owner->generation ? owner : NULL;
}

/* CONTINUE for a packet to (VIP, shared port), of which the whole payload is in this frame. */
static __always_inline int match_destination(struct xdp_md *ctx, struct packet *p,
					     const struct settings *settings)
{
	int outside = ctx->ingress_ifindex != LOOPBACK_IFINDEX;
	int vip = find_vip(settings, &p->destination);
	__u16 port;

	if (p->transport == TRANSPORT_OTHER)
		return NOT_OURS;
	if (p->transport == TRANSPORT_HIDDEN) {
		if (vip < 0 || !outside)
			return NOT_OURS;
		/* The stack would walk on and might arrive at a lane. */
		return GUARD(hidden_port);
	}
	if (point_at_udp(p))
		return NOT_OURS;
	port = bpf_ntohs(p->udp->dest);
	if (vip < 0)
		return NOT_OURS;
	if (port != settings->shared_port) {
		if (!outside || !find_lane_owner(settings, port))
			return NOT_OURS;
		return p->transport == TRANSPORT_UDP_FRAGMENT ? GUARD(lane_fragment) : GUARD(lane);
	}
	p->flow_key.client = p->source;
	p->flow_key.client_port = p->udp->source;
	p->flow_key.vip = vip;
	return CONTINUE;
}

/* Read where it stands, which spares a call; a driver may split headers from payload, though. */
static __always_inline int read_first_byte(struct xdp_md *ctx, struct packet *p)
{
	__u64 offset = p->payload;
	const __u8 *byte;
	__u64 value;

	/* Verifier: a pointer of its own, or what is learned of it here makes two ways of one. */
	asm volatile("%0 &= 0x7fff" : "+r"(offset));
	byte = p->data + offset;
	if ((void *)(byte + 1) <= p->data_end) {
		value = *byte;
	} else {
		__u8 copy;

		if (bpf_xdp_load_bytes(ctx, p->payload, &copy, 1))
			return DROP(bad_udp_length);
		value = copy;
	}
	/* Verifier: or it would walk on for both ways. */
	asm volatile("" : "+r"(value));
	p->first_byte = value;
	return CONTINUE;
}

/* Checks the UDP length against what is there and reads the first payload byte. */
static __always_inline int classify(struct xdp_md *ctx, struct packet *p)
{
	__u32 udp_len = bpf_ntohs(p->udp->len);

	if (p->transport == TRANSPORT_UDP_FRAGMENT)
		return PASS(fragment);
	if (udp_len < sizeof(struct udphdr) || p->network_end > p->len_bytes ||
	    p->payload - sizeof(struct udphdr) + udp_len > p->network_end)
		return DROP(bad_udp_length);
	p->payload_len = udp_len - sizeof(struct udphdr);
	if (!p->payload_len)
		return DROP(empty);
	return read_first_byte(ctx, p);
}

static __always_inline int is_stun(const struct packet *p)
{
	return p->first_byte <= 3;
}

static __always_inline int is_dtls(__u8 first_byte)
{
	return first_byte >= 20 && first_byte <= 63;
}

static __always_inline int is_rtp(__u8 first_byte)
{
	return first_byte >= 128 && first_byte <= 191;
}

/* What only a session in progress sends: a handshake, an alert or a stray answer is none. */
static __always_inline int is_media(__u8 first_byte)
{
	return is_rtp(first_byte) || first_byte == DTLS_APPLICATION_DATA;
}

#endif
