/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The way out: source (VIP, lane) becomes (VIP, shared port), with no state; and on its way out
 * the packet puts a lost flow back. Called by the egress program.
 */
#ifndef TURNOUT_RETURN_H
#define TURNOUT_RETURN_H

#include "classify.h"
#include "count.h"
#include "find.h"
#include "flows.h"
#include "learn.h"
#include "maps.h"

/* As much as the headers we parse can take; they are linear already in what a UDP socket sends. */
#define HEADERS_BYTES_MAX 128

static __always_inline int point_at_headers(struct __sk_buff *skb, struct packet *p)
{
	__u32 linear = skb->data_end - skb->data;
	__u32 wanted = skb->len < HEADERS_BYTES_MAX ? skb->len : HEADERS_BYTES_MAX;

	if (linear < wanted && bpf_skb_pull_data(skb, wanted))
		return NOT_OURS;
	p->data = (void *)(long)skb->data;
	p->data_end = (void *)(long)skb->data_end;
	p->len_bytes = skb->len;
	return CONTINUE;
}

/* CONTINUE for a packet from (VIP, a lane that somebody owns). */
static __always_inline int match_source(struct packet *p, const struct settings *settings)
{
	struct owner_id *owner;
	int vip;

	if (p->transport != TRANSPORT_UDP && p->transport != TRANSPORT_UDP_FRAGMENT)
		return NOT_OURS;
	if (point_at_udp(p))
		return NOT_OURS;
	owner = find_lane_owner(settings, bpf_ntohs(p->udp->source));
	if (!owner)
		return NOT_OURS;
	vip = find_vip(settings, &p->source);
	if (vip < 0)
		return NOT_OURS;
	p->owner = *owner;
	p->flow_key.client = p->destination;
	p->flow_key.client_port = p->udp->dest;
	p->flow_key.vip = vip;
	return CONTINUE;
}

/*
 * What a living owner sends in a session in progress (RTP, RTCP, DTLS data) heals a lost flow and
 * proves one that is there. A STUN response does not, or a server that answers a stranger's check
 * with an error would open a flow for the stranger; nor does the alert with which a session ends,
 * or its tuple would not be free.
 */
static __always_inline void heal(struct __sk_buff *skb, struct packet *p,
				 const struct settings *settings)
{
	struct place place;
	__u8 first_byte;

	if (p->transport == TRANSPORT_UDP_FRAGMENT)
		return;
	p->flow_hash = hash_flow(settings, &p->flow_key);
	find_flow(p, settings, &place);
	if (place.entry & ENTRY_PROVEN || (place.entry && !is_of(place.entry, p->owner)))
		return;
	if (bpf_skb_load_bytes(skb, p->payload, &first_byte, 1) || !is_media(first_byte))
		return;
	if (place.entry) {
		replace_entry(&place, place.entry, place.entry | ENTRY_PROVEN);
		return;
	}
	if (find_lane(p))
		return;
	p->tick = read_tick();
	count_put(insert_flow(p, settings, ENTRY_PROVEN, &place), COUNTER(flow__healed));
}

static __always_inline int rewrite_source(struct __sk_buff *skb, const struct packet *p,
					  const struct settings *settings)
{
	__u32 udp = p->payload - sizeof(struct udphdr);
	__be16 lane = p->udp->source;
	__be16 shared_port = bpf_htons(settings->shared_port);

	/*
	 * MANGLED_0 leaves an absent checksum absent. A partial checksum (offload) holds the
	 * pseudo-header only, which has no ports: the helper leaves it alone, and so do we where
	 * it cannot know, in a GSO packet for a device that cannot do checksums.
	 */
	if ((!skb->gso_size &&
	     bpf_l4_csum_replace(skb, udp + __builtin_offsetof(struct udphdr, check), lane,
				 shared_port, BPF_F_MARK_MANGLED_0 | sizeof(shared_port))) ||
	    bpf_skb_store_bytes(skb, udp + __builtin_offsetof(struct udphdr, source), &shared_port,
				sizeof(shared_port), 0))
		return COUNTER(returned__failed) | VERDICT_DROP;
	return COUNTER(returned__rewritten);
}

#endif
