// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Turnout's programs, top to bottom. In (XDP): parse -> match and classify -> find the owner -> learn
 * -> hand over. Out (TC egress): parse -> match -> heal -> rewrite the source. And what sweeps the
 * flow table, and what moves a flow to its session's new owner. One header a stage. Compiled with
 * bcc by agent/turnout/kernel/compile.py, which joins the headers into one text, because bcc
 * resolves map calls in the main file only.
 */
#include <uapi/asm-generic/errno-base.h>
#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/pkt_cls.h>
#include <uapi/linux/udp.h>

#include "abi.h"
#include "maps.h"
#include "packet.h"
#include "count.h"
#include "clock.h"
#include "parse.h"
#include "classify.h"
#include "siphash.h"
#include "stun.h"
#include "flows.h"
#include "meter.h"
#include "find.h"
#include "integrity.h"
#include "learn.h"
#include "handover.h"
#include "icmp.h"
#include "return.h"
#include "sweep.h"
#include "handoff.h"

static __always_inline int steer(struct xdp_md *ctx, struct packet *p)
{
	const struct settings *host;
	struct session *session = NULL;
	int verdict, kind, zero = 0;

	verdict = parse(p);
	if (verdict)
		return verdict;

	host = settings.lookup(&zero);
	if (!host)
		return NOT_OURS;
	if (p->transport == TRANSPORT_ICMP || p->transport == TRANSPORT_ICMPV6) {
		translate_icmp(ctx, p, host);
		return NOT_OURS;
	}
	verdict = match_destination(ctx, p, host);
	if (verdict)
		return verdict;

	p->counters = counters.lookup(&zero);
	if (!p->counters)
		return NOT_OURS;
	p->counters->received++;
	verdict = classify(ctx, p);
	if (verdict)
		return verdict;
	p->tick = read_tick();
	verdict = find_owner(ctx, p, host, &kind, &session);
	if (verdict)
		return verdict;
	if (session) {
		verdict = learn(ctx, p, host, session);
		if (verdict)
			return verdict;
	}
	hand_over(p);
	count_steered(p);
	return kind;
}

int ingress(struct xdp_md *ctx)
{
	struct packet packet = {
		.data = (void *)(long)ctx->data,
		.data_end = (void *)(long)ctx->data_end,
		.len_bytes = bpf_xdp_get_buff_len((void *)ctx),
	};
	int verdict = steer(ctx, &packet);

	if (packet.counters)
		count_in(packet.counters, verdict & VERDICT_COUNTER);
	else if (verdict != NOT_OURS)
		count(verdict & VERDICT_COUNTER);
	return verdict & VERDICT_DROP ? XDP_DROP : XDP_PASS;
}

static __always_inline int send_back(struct __sk_buff *skb, struct packet *p)
{
	const struct settings *host;
	int verdict, zero = 0;

	verdict = point_at_headers(skb, p);
	if (verdict)
		return verdict;
	if (parse(p))
		return NOT_OURS;

	host = settings.lookup(&zero);
	if (!host)
		return NOT_OURS;
	verdict = match_source(p, host);
	if (verdict)
		return verdict;
	heal(skb, p, host);
	count_returned(p, p->network_end - p->payload);
	return rewrite_source(skb, p, host);
}

int egress(struct __sk_buff *skb)
{
	struct packet packet = {};
	int verdict = send_back(skb, &packet);

	if (verdict != NOT_OURS)
		count(verdict & VERDICT_COUNTER);
	/* UNSPEC, not OK: other filters of this interface run too. */
	return verdict & VERDICT_DROP ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

int sweep(struct xdp_md *ctx)
{
	struct sweep_cursor *cursor = (void *)(long)ctx->data;

	if ((void *)(cursor + 1) <= (void *)(long)ctx->data_end)
		sweep_buckets(cursor);
	return XDP_PASS;
}

int follow(struct xdp_md *ctx)
{
	struct hand_off *hand_off = (void *)(long)ctx->data;
	const struct settings *host;
	int zero = 0;

	host = settings.lookup(&zero);
	if (host && (void *)(hand_off + 1) <= (void *)(long)ctx->data_end)
		hand_off->followed = follow_session(hand_off, host);
	return XDP_PASS;
}
