/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with a bounded walk of extension headers,
 * UDP. One cursor moves forward. What is not UDP is the host's business; what may be UDP with its
 * ports out of our sight is HIDDEN, for the caller to judge. Called by both programs.
 */
#ifndef TURNOUT_PARSE_H
#define TURNOUT_PARSE_H

#include "packet.h"

#define VLAN_TAGS_MAX 2
#define VLAN_ID_MASK 0x0fff
/* More extension headers than any sender has a use for; RFC 8200 names six kinds. */
#define EXTENSION_HEADERS_MAX 8

/* Beyond two tags, 40 bytes and 8 extension headers of 2,048 bytes; a bound for the verifier. */
#define UDP_OFFSET_MAX 0x7fff

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8

#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ICMP 1
#define PROTOCOL_UDP 17
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_DESTINATION_OPTIONS 60
#define PROTOCOL_MOBILITY 135

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff
#define IPV6_MORE_FRAGMENTS 0x0001
#define IPV6_FRAGMENT_OFFSET 0xfff8

struct vlan_tag {
	__be16 tci;
	__be16 ethertype;
};

/* The first 8 bytes are all that is alike in the extension headers we walk (RFC 8200 section 4). */
struct extension_header {
	__u8 next;
	__u8 len; /* in 8 bytes, without the first 8; reserved in a fragment header */
	__be16 fragment;
	__be32 fragment_id;
};

/*
 * How far the cursor has come. Verifier: hidden from clang, or it moves the pointer to the other
 * side of a comparison and subtracts it from a number, which is refused.
 */
static __always_inline __u64 offset_in(const struct packet *p, const void *cursor)
{
	__u64 offset = cursor - p->data;

	asm volatile("" : "+r"(offset));
	return offset;
}

static __always_inline int parse_udp(struct packet *p, void *cursor, __u64 transport)
{
	struct udphdr *udp = cursor;

	if ((void *)(udp + 1) > p->data_end) {
		p->transport = TRANSPORT_HIDDEN;
		return CONTINUE;
	}
	p->payload = offset_in(p, udp + 1);
	p->transport = transport;
	return CONTINUE;
}

/*
 * The UDP header again, from its offset. Verifier: each way through the parser leaves a packet
 * pointer of another shape, and it would walk the rest of the program once for each (over a
 * million instructions); from here on they are all alike.
 */
static __always_inline int point_at_udp(struct packet *p)
{
	__u64 offset = p->payload - sizeof(struct udphdr);

	asm volatile("" : "+r"(offset));
	if (offset > UDP_OFFSET_MAX)
		return NOT_OURS;
	p->udp = p->data + offset;
	if ((void *)(p->udp + 1) > p->data_end)
		return NOT_OURS;
	return CONTINUE;
}

static __always_inline int parse_ipv4(struct packet *p, void *cursor)
{
	struct iphdr *ip = cursor;
	__u64 transport = TRANSPORT_UDP;
	__u32 header_len;
	__u16 fragment;

	if ((void *)(ip + 1) > p->data_end || ip->version != 4 || ip->ihl < 5)
		return NOT_OURS;
	if (ip->protocol != PROTOCOL_UDP && ip->protocol != PROTOCOL_ICMP)
		return NOT_OURS;
	fragment = bpf_ntohs(ip->frag_off);
	if (fragment & IPV4_FRAGMENT_OFFSET)
		return NOT_OURS; /* no ports in it */
	if (fragment & IPV4_MORE_FRAGMENTS)
		transport = TRANSPORT_UDP_FRAGMENT;

	set_ipv4(&p->source, ip->saddr);
	set_ipv4(&p->destination, ip->daddr);
	p->network_end = offset_in(p, cursor) + bpf_ntohs(ip->tot_len);
	header_len = ip->ihl * 4;
	if (ip->protocol == PROTOCOL_ICMP) {
		p->payload = offset_in(p, cursor) + header_len;
		p->transport = transport == TRANSPORT_UDP ? TRANSPORT_ICMP : TRANSPORT_OTHER;
		return CONTINUE;
	}
	return parse_udp(p, cursor + header_len, transport);
}

static __always_inline int parse_ipv6(struct packet *p, void *cursor)
{
	struct ipv6hdr *ip = cursor;
	__u64 transport = TRANSPORT_UDP;
	__u8 next;
	int i;

	if ((void *)(ip + 1) > p->data_end || ip->version != 6)
		return NOT_OURS;
	__builtin_memcpy(&p->source, &ip->saddr, sizeof(p->source));
	__builtin_memcpy(&p->destination, &ip->daddr, sizeof(p->destination));
	/* To us these are IPv4's; the stack drops what has them for a source (RFC 4291 2.5.5.2). */
	if (is_ipv4(&p->source) || is_ipv4(&p->destination))
		return NOT_OURS;
	next = ip->nexthdr;
	cursor += sizeof(*ip);
	p->network_end = offset_in(p, cursor) + bpf_ntohs(ip->payload_len);
	if (next == PROTOCOL_ICMPV6) {
		p->payload = offset_in(p, cursor);
		p->transport = TRANSPORT_ICMPV6;
		return CONTINUE;
	}

#pragma unroll
	for (i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		struct extension_header *extension = cursor;

		if (next != PROTOCOL_UDP && next != PROTOCOL_HOP_BY_HOP &&
		    next != PROTOCOL_ROUTING && next != PROTOCOL_FRAGMENT &&
		    next != PROTOCOL_DESTINATION_OPTIONS && next != PROTOCOL_MOBILITY)
			return NOT_OURS;
		/*
		 * The packet ends where IP says: the stack cuts off what follows in the frame, and
		 * the next fragment goes on there. Every header has 8 bytes at least, UDP too.
		 */
		if (offset_in(p, cursor) + 8 > p->network_end)
			break;
		if (next == PROTOCOL_UDP)
			return parse_udp(p, cursor, transport);
		if ((void *)(extension + 1) > p->data_end)
			break;
		if (next == PROTOCOL_FRAGMENT) {
			__u16 fragment = bpf_ntohs(extension->fragment);

			if (fragment & IPV6_FRAGMENT_OFFSET)
				return NOT_OURS;
			/* An atomic fragment (RFC 6946) is a whole packet. */
			if (fragment & IPV6_MORE_FRAGMENTS)
				transport = TRANSPORT_UDP_FRAGMENT;
			cursor += sizeof(*extension);
		} else {
			cursor += 8 + extension->len * 8;
		}
		next = extension->next;
	}
	p->transport = TRANSPORT_HIDDEN;
	return CONTINUE;
}

static __always_inline int is_vlan(__be16 ethertype)
{
	return ethertype == bpf_htons(ETHERTYPE_VLAN) || ethertype == bpf_htons(ETHERTYPE_QINQ);
}

/* Finds addresses, transport and ports; NOT_OURS for what is not UDP over IP. */
static __always_inline int parse(struct packet *p)
{
	struct ethhdr *ethernet = p->data;
	void *cursor = ethernet + 1;
	int i, priority_tags = 0;
	__be16 ethertype;

	if (cursor > p->data_end)
		return NOT_OURS;
	ethertype = ethernet->h_proto;
#pragma unroll
	for (i = 0; i <= VLAN_TAGS_MAX && is_vlan(ethertype); i++) {
		struct vlan_tag *tag = cursor;

		if ((void *)(tag + 1) > p->data_end)
			return NOT_OURS;
		ethertype = tag->ethertype;
		priority_tags += !(tag->tci & bpf_htons(VLAN_ID_MASK));
		cursor = tag + 1;
	}
	/*
	 * A tag of VLAN 0 carries a priority only, and the stack takes off any number of them with
	 * no VLAN device. Among more tags than we look under it has no use but to hide.
	 */
	if (i > VLAN_TAGS_MAX)
		return priority_tags ? GUARD(hidden_port) : NOT_OURS;
	if (ethertype == bpf_htons(ETHERTYPE_IPV4))
		return parse_ipv4(p, cursor);
	if (ethertype == bpf_htons(ETHERTYPE_IPV6))
		return parse_ipv6(p, cursor);
	return NOT_OURS;
}

#endif
