/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What moves a flow to its session's new owner at once. A client's next check would do it, but media
 * may come 50 times before that. In the kernel, because only there a flow can be changed without
 * taking away what has come to stand in its place. The agent runs it (BPF_PROG_TEST_RUN) on a frame
 * that names the flow, after it has given the sessions entry its new owner.
 */
#ifndef TURNOUT_HANDOFF_H
#define TURNOUT_HANDOFF_H

#include "flows.h"
#include "learn.h"

/* Filled by the kernel. */
enum followed {
	FOLLOWED_NONE = 0, /* no flow of the session's from the old owner stands there */
	FOLLOWED_MOVED,
};

struct hand_off {
	__u64 ufrag_hash; /* of the session */
	struct flow_key key;
	struct owner_id from; /* the owner that the session had */
	__u32 followed;	      /* enum followed */
	__u32 reserved;
};

static __always_inline int follow_session(const struct hand_off *hand_off,
					  const struct settings *settings)
{
	struct packet packet = {.flow_key = hand_off->key};
	__u64 ufrag_hash = hand_off->ufrag_hash;
	struct session *session = sessions.lookup(&ufrag_hash);
	struct place place;
	struct flow *flow;

	if (!session)
		return FOLLOWED_NONE;
	packet.flow_hash = hash_flow(settings, &packet.flow_key);
	flow = find_details(&packet, settings, &place);
	if (!flow || !is_of(place.entry, hand_off->from))
		return FOLLOWED_NONE;
	/* A healed one names no session; that it was this one's the old owner knows by its proof. */
	if (flow->session_id && flow->session_id != session->session_id)
		return FOLLOWED_NONE;
	return replace_entry(&place, place.entry,
			     make_entry(entry_tag(packet.flow_hash), session->owner) |
				     (place.entry & ENTRY_PROVEN));
}

#endif
