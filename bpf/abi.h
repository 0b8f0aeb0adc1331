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

#define TURNOUT_ABI 1

#define VIPS_MAX 8
/* Slots of one host's owners. owner_counters costs 32 bytes a slot and CPU. */
#define OWNERS_MAX 4096

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
	__u8 reserved[9];
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
	__u32 reserved;
};

struct flow_key {
	struct address client;
	__be16 client_port;
	__u16 vip; /* index in settings.vips */
};

struct flow {
	__u64 session_id; /* 0: healed on egress, session not known */
	__u64 ufrag_hash; /* the sessions entry that made this flow: gone = session ended */
	__u64 alive_ns;	  /* CLOCK_MONOTONIC of the last sign of life from the client, coarse */
	struct owner_id owner;
	__u32 reserved;
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

	/* Not for the shared port, and not let through. */
	__u64 guard__lane; /* from outside straight to a lane */
	__u64 guard__lane_fragment;
	__u64 guard__hidden_port; /* UDP to a VIP whose port is not where we can see it */

	/* What requests did to the flow table. */
	__u64 flow__learned;
	__u64 flow__moved;
	__u64 flow__contested; /* request delivered, tuple left with its living session */
	__u64 flow__healed;    /* put back by the owner's own outgoing packet */
	__u64 flow__refused;   /* the table would not take it */

	/* Egress: source port rewritten lane -> shared port. */
	__u64 returned__rewritten;
	__u64 returned__failed; /* the rewrite was refused, packet dropped */
};

_Static_assert(sizeof(struct owner_id) == 4, "owner_id");
_Static_assert(sizeof(struct settings) == 160, "settings");
_Static_assert(sizeof(struct owner) == 16, "owner");
_Static_assert(sizeof(struct session) == 16, "session");
_Static_assert(sizeof(struct flow_key) == 20, "flow_key");
_Static_assert(sizeof(struct flow) == 32, "flow");

#endif
