/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Steering one packet is not owning a tuple. A request that is not of its session's own flow is
 * verified; then it creates the flow where there is none, and one that is another living session's
 * is left alone, or any client with a session of its own could take over a call by forging its
 * address. Called by the ingress program for requests that found their owner.
 */
#ifndef TURNOUT_LEARN_H
#define TURNOUT_LEARN_H

#include "claims.h"
#include "count.h"
#include "flows.h"
#include "integrity.h"
#include "maps.h"

/*
 * A session ends when its ufrag leaves `sessions`, or when its owner is reborn. An owner that is
 * down may come back with all its sessions: its flows wait for it.
 */
static __always_inline int is_ended(const struct flow *flow, __u64 entry)
{
	struct owner_id id = entry_owner(entry);
	__u64 ufrag_hash = flow->ufrag_hash;
	struct session *session;
	struct owner *owner;
	__u32 slot = id.slot;

	owner = owners.lookup(&slot);
	if (!owner || owner->generation != id.generation)
		return 1;
	if (!flow->session_id)
		return 0; /* healed: whose it is shows only in its silence */
	session = sessions.lookup(&ufrag_hash);
	return !session || session->session_id != flow->session_id;
}

/* The session's own flow: a sign of life; and a hand-off may have given it another owner. */
static __always_inline void follow_own(const struct packet *p, const struct place *place)
{
	__u64 entry = make_entry(entry_tag(p->flow_hash), p->owner) | (place->entry & ENTRY_PROVEN);

	touch_flow(place, p->tick);
	if (place->entry != entry)
		replace_entry(place, place->entry, entry);
}

enum contest {
	CONTEST_NONE = 0, /* there is no flow */
	CONTEST_OWN,
	CONTEST_LOST, /* the flow is another living call's */
	CONTEST_WON,
	CONTEST_WON_BACK,  /* by the session that had lost the tuple for its silence */
	CONTEST_INHERITED, /* from a session that has ended */
};

/* Whose the tuple is when a request of another session comes from it. */
static __always_inline int contest(const struct packet *p, const struct place *place,
				   const struct flow *flow)
{
	__u8 age = place->bucket->age[bounded(place->at)];

	if (flow->session_id == p->session_id)
		return CONTEST_OWN;
	if (is_ended(flow, place->entry))
		return CONTEST_INHERITED;
	/*
	 * A session that was silent too long and lives on: its media may come again, and would keep
	 * the new flow alive that is not its own. It gets the tuple back for the asking, once.
	 */
	if (flow->displaced && flow->displaced == (__u32)p->session_id)
		return CONTEST_WON_BACK;
	if (!(place->entry & ENTRY_PROVEN) || silent_ticks(p->tick, age) >= FLOW_SILENT_TICKS)
		return CONTEST_WON;
	return CONTEST_LOST;
}

/*
 * A healed flow stays nobody's session while it lives: claiming it would let a neighbour on the
 * same owner name it his own and end it with his.
 */
static __always_inline int is_healed_for(const struct flow *flow, const struct place *place,
					 struct owner_id owner)
{
	return !flow->session_id && is_of(place->entry, owner);
}

/* 1 if the flow went over to the session of the request `p`. */
static __always_inline int take_over(const struct packet *p, const struct place *place,
				     const struct flow *flow, int how)
{
	int lost_by_silence = how == CONTEST_WON && place->entry & ENTRY_PROVEN;
	__u32 loser = lost_by_silence ? flow->session_id : 0;

	if (!replace_entry(place, place->entry, entry_tag(p->flow_hash)))
		return 0;
	fill_place(place, p, 0, loser);
	count(how == CONTEST_WON_BACK ? COUNTER(flow__reclaimed) : COUNTER(flow__moved));
	return 1;
}

/* Counts what became of an insert_flow; 1 if the flow is there. */
static __always_inline int count_put(int put, __u32 counter)
{
	if (put == PUT_REFUSED)
		COUNT(flow__refused);
	if (put != PUT_INSERTED)
		return 0;
	count(counter);
	return 1;
}

/* Sets *place, and returns the flow that stands there for the tuple of `p`, or NULL. */
static __always_inline struct flow *
find_details(const struct packet *p, const struct settings *settings, struct place *place)
{
	struct flow *flow;
	__u32 index;

	find_flow(p, settings, place);
	if (!place->entry || is_claimed(place->entry))
		return NULL;
	index = place->index;
	flow = flow_details.lookup(&index);
	return flow && same_flow_key(&flow->key, &p->flow_key) ? flow : NULL;
}

/*
 * The request is of its ufrag's own flow, or of one that was healed for its owner and lives: it can
 * change nothing. Everybody's consent checks are such, and cost no verification.
 */
static __always_inline int is_settled(const struct packet *p, const struct place *place,
				      const struct flow *flow)
{
	if (flow->session_id == p->session_id)
		return flow->ufrag_hash == p->ufrag_hash;
	return is_healed_for(flow, place, p->owner) && contest(p, place, flow) == CONTEST_LOST;
}

/* What a request changes in the table that is more than a sign of life. */
static __always_inline void change_flows(const struct packet *p, const struct settings *settings,
					 struct session *session)
{
	/* Verifier: the claim first, while there is one way only up to here. */
	__u64 claim = choose_claim(p, settings, session);
	struct place place;
	struct flow *flow = find_details(p, settings, &place);
	int how = flow ? contest(p, &place, flow) : CONTEST_NONE;
	int gained = 0;

	if (how == CONTEST_LOST) {
		COUNT(flow__contested);
	} else if (claim >= SESSION_FLOWS_MAX) {
		COUNT(flow__over_cap);
	} else if (how == CONTEST_OWN) {
		/* An ICE restart: the flow goes over to the session's new ufrag. */
		follow_own(p, &place);
		flow->ufrag_hash = p->ufrag_hash;
		gained = 1;
	} else if (flow) {
		gained = take_over(p, &place, flow, how);
	} else if (place.entry) {
		/* Two tuples with one tag; or another CPU writes it at this moment. */
		COUNT(flow__refused);
	} else {
		gained = count_put(insert_flow(p, settings, 0, &place), COUNTER(flow__learned));
	}
	/* Not counted among its session's a flow would escape the cap: it goes. */
	if (gained && !take_claim(p, session, claim, place.index) &&
	    replace_entry(&place, make_entry(entry_tag(p->flow_hash), p->owner), 0))
		COUNT(flow__capped);
}

/* CONTINUE, or the drop of a request that is not genuine or one too many. */
static __always_inline int learn(struct xdp_md *ctx, struct packet *p,
				 const struct settings *settings, struct session *session)
{
	struct place place;
	struct flow *flow;
	int verdict;

	p->flow_hash = hash_flow(settings, &p->flow_key);
	flow = find_details(p, settings, &place);
	if (flow && is_settled(p, &place, flow)) {
		verdict = meter_flow(p, settings);
		if (!verdict && flow->session_id == p->session_id)
			follow_own(p, &place);
		return verdict;
	}
	verdict = verify_integrity(ctx, p, settings, session);
	if (!verdict)
		change_flows(p, settings, session);
	return verdict;
}

#endif
