/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ICMP errors (RFC 792, RFC 4443) quote the packet they are about, and ours left as (VIP, shared
 * port): with the lane put back as its source port, the host's stack finds the socket that sent it
 * (path MTU, unreachable). Called by the ingress program.
 */
#ifndef TURNOUT_ICMP_H
#define TURNOUT_ICMP_H

#include "classify.h"
#include "find.h"
#include "handover.h"

#define ICMP_UNREACHABLE 3
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12
#define ICMPV6_ERROR_LAST 4

struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 check;
	__be32 rest;
};

struct ports {
	__be16 source;
	__be16 dest;
};

/* Sets the flow that the quoted IPv4 packet was of and the offset of its ports. */
static __always_inline int read_quoted_ipv4(struct xdp_md *ctx, struct packet *p,
					    struct address *source, __u32 *ports)
{
	struct iphdr ip;

	if (bpf_xdp_load_bytes(ctx, *ports, &ip, sizeof(ip)))
		return NOT_OURS;
	if (ip.version != 4 || ip.ihl < 5 || ip.protocol != PROTOCOL_UDP ||
	    ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
		return NOT_OURS;
	set_ipv4(source, ip.saddr);
	set_ipv4(&p->flow_key.client, ip.daddr);
	*ports += ip.ihl * 4;
	return CONTINUE;
}

static __always_inline int read_quoted_ipv6(struct xdp_md *ctx, struct packet *p,
					    struct address *source, __u32 *ports)
{
	struct ipv6hdr ip;

	if (bpf_xdp_load_bytes(ctx, *ports, &ip, sizeof(ip)))
		return NOT_OURS;
	if (ip.version != 6 || ip.nexthdr != PROTOCOL_UDP)
		return NOT_OURS;
	__builtin_memcpy(source, &ip.saddr, sizeof(*source));
	__builtin_memcpy(&p->flow_key.client, &ip.daddr, sizeof(p->flow_key.client));
	*ports += sizeof(ip);
	return CONTINUE;
}

static __always_inline int is_icmp_error(const struct packet *p, __u8 type)
{
	if (p->transport == TRANSPORT_ICMP)
		return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
		       type == ICMP_PARAMETER_PROBLEM;
	return type >= 1 && type <= ICMPV6_ERROR_LAST;
}

/* Always left to the host's stack. */
static __always_inline void translate_icmp(struct xdp_md *ctx, struct packet *p,
					   const struct settings *settings)
{
	__u32 quoted = p->payload + sizeof(struct icmp_header);
	struct address source = {};
	struct icmp_header icmp;
	struct ports ports;
	struct place place;
	int error, vip;

	if (find_vip(settings, &p->destination) < 0)
		return;
	if (bpf_xdp_load_bytes(ctx, p->payload, &icmp, sizeof(icmp)) ||
	    !is_icmp_error(p, icmp.type))
		return;
	error = p->transport == TRANSPORT_ICMP ? read_quoted_ipv4(ctx, p, &source, &quoted)
					       : read_quoted_ipv6(ctx, p, &source, &quoted);
	if (error || bpf_xdp_load_bytes(ctx, quoted, &ports, sizeof(ports)))
		return;
	vip = find_vip(settings, &source);
	if (vip < 0 || ports.source != bpf_htons(settings->shared_port))
		return;
	p->flow_key.client_port = ports.dest;
	p->flow_key.vip = vip;
	p->flow_hash = hash_flow(settings, &p->flow_key);
	find_flow(p, settings, &place);
	p->owner = entry_owner(place.entry);
	if (!place.entry || is_claimed(place.entry) || find_lane(p)) {
		COUNT(icmp__no_flow);
		return;
	}
	icmp.check = patch_checksum(icmp.check, ports.source, p->lane);
	if (bpf_xdp_store_bytes(ctx, quoted, &p->lane, sizeof(p->lane)) ||
	    bpf_xdp_store_bytes(ctx, p->payload + __builtin_offsetof(struct icmp_header, check),
				&icmp.check, sizeof(icmp.check)))
		return;
	COUNT(icmp__translated);
}

#endif
