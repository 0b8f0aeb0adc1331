// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * parse.h and handover.h over any frame: nothing is read outside of it, what is found lies inside
 * of it, and the patched checksum is the one that a new count of all bytes gives. The first byte of
 * an input says how much of the frame is linear.
 */
#include "frame.h"

#include "parse.h"
#include "handover.h"

#define LANE 20000

static __u16 checksum(const uint8_t *bytes, size_t len)
{
	__u32 sum = 0;
	size_t i;

	for (i = 0; i < len; i++)
		sum += i % 2 ? bytes[i] : bytes[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return bpf_htons(~sum);
}

static void set_checksum(struct udphdr *udp, size_t len)
{
	udp->check = 0;
	udp->check = checksum((uint8_t *)udp, len);
	if (!udp->check)
		udp->check = 0xffff;
}

static void check_handover(struct packet *p)
{
	size_t len = frame.linear - (p->payload - sizeof(struct udphdr));
	__be16 before = p->udp->dest;
	__sum16 claimed = p->udp->check, patched;

	/* Any checksum: none stays none, and one never becomes none. */
	p->lane = bpf_htons(LANE);
	hand_over(p);
	REQUIRE(p->udp->dest == p->lane);
	REQUIRE(!p->udp->check == !claimed);

	/* A right one stays right. */
	p->udp->dest = before;
	set_checksum(p->udp, len);
	hand_over(p);
	patched = p->udp->check;
	set_checksum(p->udp, len);
	REQUIRE(p->udp->check == patched);
}

static void check_found(struct packet *p)
{
	switch (p->transport) {
	case TRANSPORT_UDP:
	case TRANSPORT_UDP_FRAGMENT:
		REQUIRE(p->payload >= ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr));
		REQUIRE(p->payload <= frame.linear);
		REQUIRE(point_at_udp(p) == CONTINUE);
		REQUIRE((uint8_t *)p->udp == frame.data + p->payload - sizeof(struct udphdr));
		check_handover(p);
		return;
	case TRANSPORT_HIDDEN:
		REQUIRE(!p->payload);
		return;
	default: /* ICMP, read by helpers only: they look where it ends */
		REQUIRE(p->transport <= TRANSPORT_ICMPV6);
		REQUIRE(p->payload <= frame.linear + 40);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
	struct packet packet = {};
	int verdict;

	if (!len)
		return 0;
	take_frame(input + 1, len - 1, input[0]);
	packet.data = frame.data;
	packet.data_end = frame.data + frame.linear;
	packet.len_bytes = frame.len;

	verdict = parse(&packet);
	if (verdict == CONTINUE)
		check_found(&packet);
	else
		REQUIRE(verdict == NOT_OURS || verdict == (int)GUARD(hidden_port));
	drop_frame();
	return 0;
}
