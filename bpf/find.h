/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Who owns the packet: a Binding request with USERNAME goes by its ufrag, whatever its flow says
 * (NATs re-use tuples); all else by its flow. Never by SSRC: clients choose those and collide.
 */
#ifndef TURNOUT_FIND_H
#define TURNOUT_FIND_H

#include "classify.h"
#include "flows.h"
#include "maps.h"
#include "meter.h"
#include "stun.h"

/* The owner's lane, if it is still the one that was meant and takes packets. */
static __always_inline int find_lane(struct packet *p)
{
	__u32 slot = p->owner.slot;
	struct owner *owner = owners.lookup(&slot);

	if (!owner || owner->generation != p->owner.generation)
		return DROP(stale_owner);
	if (owner->state == OWNER_DOWN)
		return DROP(owner_down);
	p->lane = bpf_htons(owner->lane);
	return CONTINUE;
}

static __always_inline int find_by_ufrag(struct packet *p, struct session **found)
{
	__u64 ufrag_hash = p->ufrag_hash;
	struct session *session = sessions.lookup(&ufrag_hash);

	if (!session)
		return DROP(no_session);
	p->session_id = session->session_id;
	p->owner = session->owner;
	*found = session;
	return find_lane(p);
}

static __always_inline int find_by_flow(struct packet *p, const struct settings *settings)
{
	struct place place;
	int verdict;

	p->flow_hash = hash_flow(settings, &p->flow_key);
	find_flow(p, settings, &place);
	if (!place.entry || is_claimed(place.entry))
		return DROP(no_flow);
	p->owner = entry_owner(place.entry);
	verdict = find_lane(p);
	if (verdict)
		return verdict;
	verdict = meter_flow(p, settings);
	if (verdict)
		return verdict;
	if (is_media(p->first_byte))
		touch_flow(&place, p->tick);
	return CONTINUE;
}

/*
 * Sets owner and lane, *kind to the counter of what was steered, and *session where a request named
 * one by its ufrag.
 */
static __always_inline int find_owner(struct xdp_md *ctx, struct packet *p,
				      const struct settings *settings, int *kind,
				      struct session **session)
{
	struct stun_username username = {};
	struct stun_header stun;
	__u64 ufrag_hash;
	int verdict;

	if (is_rtp(p->first_byte)) {
		*kind = STEERED(rtp);
		return find_by_flow(p, settings);
	}
	if (is_dtls(p->first_byte)) {
		*kind = STEERED(dtls);
		return find_by_flow(p, settings);
	}
	if (!is_stun(p))
		return DROP(unknown_class);

	verdict = check_stun(ctx, p, &stun);
	if (verdict)
		return verdict;
	*kind = STEERED(stun);
	if (stun.type != bpf_htons(STUN_BINDING_REQUEST))
		return find_by_flow(p, settings);
	p->stun_len = bpf_ntohs(stun.len);
	verdict = find_username(ctx, p, p->stun_len, &username);
	if (verdict)
		return verdict;
	if (!username.len)
		return find_by_flow(p, settings);
	verdict = hash_ufrag(ctx, settings, &username, &ufrag_hash);
	if (verdict)
		return verdict;
	p->ufrag_hash = ufrag_hash;
	*kind = STEERED(stun_request);
	return find_by_ufrag(p, session);
}

#endif
