/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The comparison: the kernel's LRU hash in the place of the flow table, as Turnout had it before it
 * had a table of its own. programs.py puts this behind flows.h and lets find.h call it; all else of
 * the programs stays as it is, the meter's flow hash too.
 */
#define BENCH_LRU

struct lru_flow {
	__u64 session_id;
	__u64 ufrag_hash;
	__u64 alive_ns;
	struct owner_id owner;
	__u32 reserved;
};
BPF_TABLE("lru_hash", struct flow_key, struct lru_flow, lru_flows, 1024);

#define LRU_TOUCH_NS (250LL * 1000 * 1000)

/* What the packet's way reads of a place, and in `bucket` the flow. */
static __always_inline void find_lru_flow(struct packet *p, struct place *place)
{
	struct lru_flow *flow = lru_flows.lookup(&p->flow_key);

	place->bucket = (struct flow_bucket *)flow;
	place->entry = flow ? make_entry(1ULL << ENTRY_TAG_SHIFT, flow->owner) : 0;
}

static __always_inline void touch_lru_flow(const struct place *place)
{
	struct lru_flow *flow = (struct lru_flow *)place->bucket;

	if (flow && (__s64)(bpf_ktime_get_coarse_ns() - flow->alive_ns) > LRU_TOUCH_NS)
		flow->alive_ns = bpf_ktime_get_coarse_ns();
}

static __always_inline int bench_put(struct packet *p, const struct settings *settings)
{
	struct lru_flow flow = {
		.session_id = p->session_id,
		.alive_ns = bpf_ktime_get_coarse_ns(),
		.owner = p->owner,
	};

	return lru_flows.update(&p->flow_key, &flow);
}
