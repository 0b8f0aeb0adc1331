/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The hand-over: only the UDP port changes, so there is no NAT state, the transceiver sees the
 * client's true address, and an unchanged media server serves if it listens on one port.
 */
#ifndef TURNOUT_HANDOVER_H
#define TURNOUT_HANDOVER_H

#include "packet.h"

/* RFC 1624: ~(~check + ~old + new). 0 means "no checksum" in UDP and is never the result. */
static __always_inline __sum16 patch_checksum(__sum16 check, __be16 old, __be16 new)
{
	__u32 sum = (__u16)~check + (__u16)~old + (__u32) new;

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (__u16)~sum;
	return sum ? sum : 0xffff;
}

static __always_inline void hand_over(struct packet *p)
{
	struct udphdr *udp = p->udp;

	/* The sender left it out (IPv4), or it is invalid and stays so (IPv6). */
	if (udp->check)
		udp->check = patch_checksum(udp->check, udp->dest, p->lane);
	udp->dest = p->lane;
}

#endif
