/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The benchmark's own programs, appended to the text of bpf/steer.c by programs.py, which has made
 * its ingress() a static steer_frame(). TEST_RUN feeds one frame in again and again: what must see
 * another client each time writes the next one into the frame first.
 */

/* One byte of payload short of an IPv6 frame with the smallest STUN message; all ours are longer. */
#define BENCH_HEADERS_BYTES 62
#define BENCH_LANE 3478
#define BENCH_OWNERS 8

struct bench {
	__u64 random;	  /* state of the generator */
	__u64 sequence;	  /* clients written by next_client() */
	__u64 ufrag_hash; /* key of the session that learns */
	__u32 shift;	  /* 64 - log2 of the clients any_client() chooses from */
	__u32 learn;	  /* new clients instead */
};
BPF_ARRAY(bench, struct bench, 1);

static __always_inline void write_client(struct xdp_md *ctx, __u32 number)
{
	void *data = (void *)(long)ctx->data;
	struct ethhdr *ethernet = data;
	__be16 port = bpf_htons(0x4000 | (number & 0x3fff));
	struct udphdr *udp;

	if (data + BENCH_HEADERS_BYTES > (void *)(long)ctx->data_end)
		return;
	if (ethernet->h_proto == bpf_htons(ETHERTYPE_IPV4)) {
		struct iphdr *ip = data + sizeof(*ethernet);

		ip->saddr = bpf_htonl(0x0a000000 + number);
		udp = (void *)(ip + 1);
	} else {
		struct ipv6hdr *ip = data + sizeof(*ethernet);

		ip->saddr.in6_u.u6_addr32[3] = bpf_htonl(number);
		udp = (void *)(ip + 1);
	}
	udp->source = port;
}

/* One of the first 2^n clients, by the high bits of a linear congruential generator (Knuth). */
static __always_inline void any_client(struct xdp_md *ctx, struct bench *state)
{
	state->random = state->random * 6364136223846793005ULL + 1442695040888963407ULL;
	write_client(ctx, state->random >> (state->shift & 63));
}

static __always_inline __u32 next_client(struct xdp_md *ctx, struct bench *state)
{
	__u32 number = state->sequence++;

	write_client(ctx, number);
	return number;
}

/* A client that is not known, and a session that has no flow yet. */
static __always_inline void newcomer(struct xdp_md *ctx, struct bench *state)
{
	__u64 ufrag_hash = state->ufrag_hash;
	struct session *session = sessions.lookup(&ufrag_hash);

	if (session)
		session->flows[0] = 0;
	next_client(ctx, state);
}

int ingress(struct xdp_md *ctx)
{
	return steer_frame(ctx);
}

static __always_inline void another_client(struct xdp_md *ctx)
{
	int zero = 0;
	struct bench *state = bench.lookup(&zero);

	if (!state)
		return;
	if (state->learn)
		newcomer(ctx, state);
	else
		any_client(ctx, state);
}

int bench_steer(struct xdp_md *ctx)
{
	another_client(ctx);
	return steer_frame(ctx);
}

/* What bench_steer costs beside the packet's way. */
int bench_client(struct xdp_md *ctx)
{
	another_client(ctx);
	return XDP_PASS;
}

#ifndef BENCH_LRU
static __always_inline int bench_put(struct packet *p, const struct settings *settings)
{
	struct place place;

	p->tick = read_tick();
	p->flow_hash = hash_flow(settings, &p->flow_key);
	return insert_flow(p, settings, ENTRY_PROVEN, &place) != PUT_INSERTED;
}
#endif

/* Puts one client after the other into the flow table, as if each had been learned. */
int bench_fill(struct xdp_md *ctx)
{
	int zero = 0;
	struct bench *state = bench.lookup(&zero);
	const struct settings *host = settings.lookup(&zero);
	struct packet packet = {};
	__u32 number;

	if (!state || !host)
		return XDP_ABORTED;
	number = next_client(ctx, state);
	packet.data = (void *)(long)ctx->data;
	packet.data_end = (void *)(long)ctx->data_end;
	packet.len_bytes = bpf_xdp_get_buff_len((void *)ctx);
	if (parse(&packet) || match_destination(ctx, &packet, host))
		return XDP_ABORTED;
	packet.owner.slot = 1 + number % BENCH_OWNERS;
	packet.owner.generation = 1;
	packet.session_id = 1;
	if (bench_put(&packet, host))
		return XDP_ABORTED;
	COUNT(flow__learned);
	return XDP_PASS;
}

/* What TEST_RUN itself costs. */
int bench_nothing(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* The least a forwarder can do: the frame goes back where it came from. */
int bench_tx(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	__u8 address[ETH_ALEN];

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(address, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, address, ETH_ALEN);
	return XDP_TX;
}

/*
 * The floor: what any forwarder with our headers must do. Our parser, our match and our classes,
 * the port rewritten to a target that is known beforehand, one verdict counted; no table.
 */
int bench_floor(struct xdp_md *ctx)
{
	struct packet packet = {
		.data = (void *)(long)ctx->data,
		.data_end = (void *)(long)ctx->data_end,
		.len_bytes = bpf_xdp_get_buff_len((void *)ctx),
	};
	const struct settings *host;
	int zero = 0;

	if (parse(&packet))
		return XDP_PASS;
	host = settings.lookup(&zero);
	if (!host || match_destination(ctx, &packet, host))
		return XDP_PASS;
	if (classify(ctx, &packet) || !is_rtp(packet.first_byte))
		return XDP_DROP;
	packet.lane = bpf_htons(BENCH_LANE);
	hand_over(&packet);
	COUNT(steered__rtp);
	return XDP_PASS;
}
