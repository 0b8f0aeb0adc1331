/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which flows a session has: `flows` of its sessions entry names their places. A session may have
 * only so many; the one longest silent makes room for a new one. The list may be out of date: a
 * place counts only while its details say that it is the session's.
 */
#ifndef TURNOUT_CLAIMS_H
#define TURNOUT_CLAIMS_H

#include "count.h"
#include "flows.h"
#include "maps.h"

/* Above any silence. */
#define CLAIM_IS_FREE 512

/* The place behind an index of flow_details; 0 when there is no such place. */
static __always_inline int place_of(__u32 index, struct place *place)
{
	__u32 number = index / BUCKET_PLACES;

	place->bucket = flows.lookup(&number);
	if (!place->bucket)
		return 0;
	place->index = index;
	place->at = bounded(index % BUCKET_PLACES);
	place->entry = place->bucket->entry[place->at];
	return 1;
}

/* 1 if the place behind `claim` (1 + index, 0: none) is a flow that the ufrag of `p` made. */
static __always_inline int holds(__u32 claim, const struct packet *p, struct place *place)
{
	__u32 index = claim - 1;
	struct flow *flow;

	if (!claim || !place_of(index, place) || is_claimed(place->entry))
		return 0;
	flow = flow_details.lookup(&index);
	return flow && flow->ufrag_hash == p->ufrag_hash && flow->session_id == p->session_id;
}

/* How gladly a claim is given up for a new one: free or out of date, then the longest silent. */
static __always_inline __u64 rank_claim(__u32 claim, const struct packet *p)
{
	struct place place;

	if (!holds(claim, p, &place))
		return CLAIM_IS_FREE;
	return silent_ticks(p->tick, place.bucket->age[bounded(place.at)]);
}

/*
 * The claim that one more flow of the session may take; SESSION_FLOWS_MAX when all are held by flows
 * that live. A living one never makes room: checks that somebody captured and sends again, from
 * anywhere, would push a call's own flow out.
 */
static __always_inline __u64 choose_claim(const struct packet *p, const struct settings *settings,
					  const struct session *session)
{
	__u64 best = 0;
	int i, zero = 0;
	__u64 *rank;

	rank = scratch_rank.lookup(&zero);
	if (!rank)
		return SESSION_FLOWS_MAX;
	/*
	 * The first of the highest rank. Verifier: through memory, so that it forgets which way each
	 * rank was found, or it would walk on for each.
	 */
	for (i = 0; i < SESSION_FLOWS_MAX; i++) {
		__u64 key;

		*(volatile __u64 *)rank =
			i < settings->session_flows ? rank_claim(session->flows[i], p) : 0;
		key = *(volatile __u64 *)rank << 4 | (SESSION_FLOWS_MAX - 1 - i);
		best = choose(hide(best - key) >> 63, key, best);
	}
	if (best >> 4 < FLOW_SILENT_TICKS)
		return SESSION_FLOWS_MAX;
	return SESSION_FLOWS_MAX - 1 - (best & (SESSION_FLOWS_MAX - 1));
}

/*
 * Notes a flow of the session under the claim; the one that had it goes. 0 if that one has come to
 * life or another CPU has taken the claim meanwhile.
 */
static __always_inline int take_claim(const struct packet *p, struct session *session, __u64 claim,
				      __u32 index)
{
	__u64 *pair, both, half;
	struct place before;
	__u32 held;
	int i;

	asm volatile("%0 &= 15" : "+r"(claim));
	/* Two claims are a word: clang 14 knows no smaller one that can be compared and swapped. */
	pair = (__u64 *)session->flows + (claim >> 1);
	half = (claim & 1) * 32;
	both = *(volatile __u64 *)pair;
	held = both >> half;
	if (held != index + 1 && holds(held, p, &before)) {
		if (silent_ticks(p->tick, before.bucket->age[bounded(before.at)]) <
		    FLOW_SILENT_TICKS)
			return 0;
		if (replace_entry(&before, before.entry, 0))
			COUNT(flow__capped);
	}
	if (__sync_val_compare_and_swap(pair, both,
					(both & ~(0xffffffffULL << half)) |
						(__u64)(index + 1) << half) != both)
		return 0;
	/* One that was out of date may name the place that the flow has now. */
	for (i = 0; i < SESSION_FLOWS_MAX; i++) {
		if (i != claim && session->flows[i] == index + 1)
			session->flows[i] = 0;
	}
	return 1;
}

#endif
