/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The ABI between the kernel programs and the agent: every struct that stands in a map. This is
 * the only declaration of them; Python reads names, offsets and sizes from the maps' BTF
 * (agent/turnout/kernel/btf.py). Addresses are 16 bytes, IPv4 v4-mapped (RFC 4291 section 2.5.5.2).
 * Ports are in host byte order unless the type says __be16.
 *
 * A change of any size or offset here is a new ABI: raise TURNOUT_ABI.
 */
#ifndef TURNOUT_ABI_H
#define TURNOUT_ABI_H

#define TURNOUT_ABI 2

#define VIPS_MAX 8
/* Slots of one host's owners. owner_counters costs 32 bytes a slot and CPU. */
#define OWNERS_MAX 4096
#define SESSION_FLOWS_MAX 16
/* Entries of a bucket: with their ages they fill one cache line. */
#define BUCKET_PLACES 7

struct address {
	__be32 word[4];
};

/* A transceiver's slot with the generation that tells a reborn one from the dead one.
 * Generation 0 is never given out: a zeroed owner is nobody.
 */
struct owner_id {
	__u16 slot;
	__u8 generation;
	__u8 reserved;
};

struct settings {
	__u64 edge_key[2]; /* SipHash key of the sessions map */
	struct address vips[VIPS_MAX];
	__u16 shared_port;
	__u16 lane_first;
	__u16 lane_last;
	__u8 vip_mask; /* bit n: vips[n] is in use. A VIP keeps its index for life: flows hold it */
	__u8 reserved;
	__u32 flow_buckets;  /* of the map `flows`, even */
	__u32 session_flows; /* flows a session may have, at most SESSION_FLOWS_MAX */
	__u64 flow_keys[6];  /* of the flow hash */

	/* Limits, by the tick (clock.h). */
	__u32 check_budget;    /* requests of a session that are verified */
	__u32 prefix_failures; /* checks of a source prefix that may fail */
	__u32 flow_packets;    /* packets of a flow; 0: no limit */
	__u32 reserved_limit;
};

enum owner_state {
	OWNER_DOWN = 0,
	OWNER_ACTIVE = 1,
	OWNER_DRAINING = 2, /* takes no new sessions; the agent's business, the kernel steers on */
};

struct owner {
	__u64 incarnation; /* random, chosen by the transceiver at its start; the agent's business */
	__u16 lane;
	__u8 generation;
	__u8 state; /* enum owner_state */
	__u32 reserved;
};

/* Key: SipHash-2-4(edge key, server ufrag). An ICE restart gives one session a second entry. */
struct session {
	__u64 session_id;
	struct owner_id owner;

	/* How many requests were verified in this tick, and how many of them failed. */
	__u32 check_tick;
	__u32 checks;
	__u32 failures;

	/*
	 * SHA-1 after its first block under HMAC (RFC 2104): the ICE password with ipad and opad.
	 * Both together are as secret as the password itself.
	 */
	__u32 hmac_inner[5];
	__u32 hmac_outer[5];

	__u32 flows[SESSION_FLOWS_MAX]; /* 1 + index in `flow_details`; may be out of date */
};

struct flow_key {
	struct address client;
	__be16 client_port;
	__u16 vip; /* index in settings.vips */
};

/*
 * The flow table: buckets of one cache line in `flows`, all that a packet of an established flow
 * needs; and one `struct flow` for each place in `flow_details`, for requests, sweep and trace.
 *
 * An entry is one word, so that no reader ever sees half of it: a keyed tag of the flow_key (39
 * bits), whether the flow is proven (1), the owner's generation (8) and slot (16). Zero is an empty
 * place; generation 0 beside a tag is a place that some CPU is filling.
 */
struct flow_bucket {
	__u64 entry[BUCKET_PLACES];
	__u8 age[BUCKET_PLACES]; /* low byte of the tick of the client's last sign of life */
	__u8 reserved;
};

struct flow {
	struct flow_key key;
	/* Low half of the id of the living session that lost the tuple to this one for its silence. */
	__u32 displaced;
	__u64 session_id; /* 0: healed on egress, session not known */
	__u64 ufrag_hash; /* the sessions entry that made this flow: gone = session ended */
};

/* Counted by the sweep. */
struct owner_flows {
	__u32 flows;
	__u32 unclaimed; /* healed, session not known */
};

/* What one owner was sent and what it sent, in packets and bytes of UDP payload. */
struct owner_counters {
	__u64 steered_packets;
	__u64 steered_bytes;
	__u64 returned_packets;
	__u64 returned_bytes;
};

/*
 * One per-CPU struct of u64. `family__reason` becomes the metric `family` with a label; adding a
 * counter is one line here.
 *
 * Every packet for (VIP, shared port) is counted once in `received` and ends in exactly one of
 * steered__*, drop__* or pass__*: their sum equals `received`.
 */
struct counters {
	__u64 received;

	/* Rewritten to the owner's lane. */
	__u64 steered__stun_request; /* Binding request, by its ufrag */
	__u64 steered__stun;	     /* other STUN, by flow */
	__u64 steered__dtls;
	__u64 steered__rtp;

	/* Left to the socket on the shared port. */
	__u64 pass__fragment; /* first fragment: the rest has no ports to steer by */

	__u64 drop__empty; /* no payload */
	__u64 drop__bad_udp_length;
	__u64 drop__unknown_class; /* first byte is none of STUN, DTLS, RTP (RFC 7983, RFC 9443) */
	__u64 drop__bad_stun;	   /* cookie, length, or an attribute past the end */
	__u64 drop__stun_attributes; /* no USERNAME among as many attributes as are looked at */
	__u64 drop__bad_username;    /* no ':' or a ufrag not of 4 to 256 characters */
	__u64 drop__no_session;	     /* the ufrag is nobody's */
	__u64 drop__no_flow;
	__u64 drop__stale_owner; /* the owner was reborn since */
	__u64 drop__owner_down;
	__u64 drop__stun_too_long; /* a request too long to verify */
	__u64 drop__bad_integrity; /* MESSAGE-INTEGRITY is absent or not made with the password */
	__u64 drop__verify_budget; /* the session's verifications of this second are spent */
	__u64 drop__failed_checks; /* too many failed checks from this source prefix */
	__u64 drop__flow_rate;	   /* more packets than one flow may send */

	/* Not for the shared port, and not let through. */
	__u64 guard__lane; /* from outside straight to a lane */
	__u64 guard__lane_fragment;
	__u64 guard__hidden_port; /* UDP to a VIP whose port is not where we can see it */

	/* What requests did to the flow table. */
	__u64 flow__learned;
	__u64 flow__moved;
	__u64 flow__contested; /* request delivered, tuple left with its living session */
	__u64 flow__healed;    /* put back by the owner's own outgoing packet */
	__u64 flow__reclaimed; /* moved back to the session that had lost it for its silence */
	__u64 flow__evicted;   /* longest silent of two full buckets, made room for a new one */
	__u64 flow__capped;    /* longest silent of its session, made room for a new one */
	__u64 flow__over_cap;  /* not made: its session has its number of living ones */
	__u64 flow__refused;   /* both buckets are full of living flows, or a tag stands for two */

	/* What the sweep removed from it. */
	__u64 swept__ended; /* the session or its owner's generation is gone */
	__u64 swept__idle;

	/* ICMP errors about packets of ours. */
	__u64 icmp__translated; /* quoted source port put back to the lane */
	__u64 icmp__no_flow;	/* left as it is: it quotes a packet to nobody we know */

	/* Egress: source port rewritten lane -> shared port. */
	__u64 returned__rewritten;
	__u64 returned__failed; /* the rewrite was refused, packet dropped */
};

_Static_assert(sizeof(struct owner_id) == 4, "owner_id");
_Static_assert(sizeof(struct settings) == 224, "settings");
_Static_assert(sizeof(struct owner) == 16, "owner");
_Static_assert(sizeof(struct session) == 128, "session");
_Static_assert(sizeof(struct flow_key) == 20, "flow_key");
_Static_assert(sizeof(struct flow_bucket) == 64, "flow_bucket");
_Static_assert(sizeof(struct flow) == 40, "flow");

#endif
