/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The flow table: (client address, client port, VIP) -> owner. A flow stands in one of two buckets
 * that its hash names, and a packet of an established flow touches one cache line in most cases.
 * Several CPUs write at once: a place changes hands by compare-and-swap only, and its details are
 * written while it stands claimed (tag without generation), when nobody follows it.
 *
 * Verifier: positions are computed without branches. A branch for each of 14 places would have it
 * walk the rest of the program for each; as numbers of unknown value in known bounds they are one.
 */
#ifndef TURNOUT_FLOWS_H
#define TURNOUT_FLOWS_H

#include "count.h"
#include "flowhash.h"
#include "maps.h"
#include "packet.h"

/* A flow that has shown no sign of life for 5 s may be moved to another session. */
#define FLOW_SILENT_TICKS 6
/*
 * Beyond the 30 s after which consent expires (RFC 7675) a proven flow may make room for a new one. One
 * that is not proven counts as so much longer silent: flows that nobody uses fill no table.
 */
#define FLOW_EVICTED_TICKS 28
/* With so many empty places the first bucket is taken: it is where a packet looks first. */
#define FIRST_BUCKET_ROOM 5
/* Clocks of two CPUs: a sign of life may seem to come from the future. */
#define TICKS_AHEAD_MAX 8

#define ENTRY_TAG_SHIFT 25
/*
 * The owner has sent media to the tuple, which it does only when the client has answered from there.
 * Before that a flow shows no more than that somebody with a session sent one packet, and from any
 * address that he liked.
 */
#define ENTRY_PROVEN (1ULL << 24)

/* Where a flow stands, and its entry as it was read. entry 0: nowhere. */
struct place {
	struct flow_bucket *bucket;
	__u64 entry;
	__u64 at;
	__u32 index; /* in flow_details */
};

static __always_inline __u64 hide(__u64 value)
{
	asm volatile("" : "+r"(value));
	return value;
}

/* 1 if the value, below 2^63, is 0, else 0. */
static __always_inline __u64 is_zero(__u64 value)
{
	return hide(value - 1) >> 63;
}

/* `a` if the condition (0 or 1) holds, else `b`. */
static __always_inline __u64 choose(__u64 condition, __u64 a, __u64 b)
{
	return b ^ (hide(-condition) & (a ^ b));
}

/* The place in its bucket, as the verifier wants it bounded. */
static __always_inline __u64 bounded(__u64 at)
{
	asm volatile("%0 &= 7" : "+r"(at));
	return at < BUCKET_PLACES ? at : 0;
}

static __always_inline __u64 entry_tag(__u64 hash)
{
	__u64 tag = hash << ENTRY_TAG_SHIFT;

	return tag ? tag : 1ULL << ENTRY_TAG_SHIFT;
}

static __always_inline __u64 make_entry(__u64 tag, struct owner_id owner)
{
	return tag | (__u64)owner.generation << 16 | owner.slot;
}

static __always_inline struct owner_id entry_owner(__u64 entry)
{
	struct owner_id owner = {.slot = entry, .generation = entry >> 16};

	return owner;
}

static __always_inline int is_of(__u64 entry, struct owner_id owner)
{
	return (entry & 0xffffff) == ((__u64)owner.generation << 16 | owner.slot);
}

static __always_inline __u32 first_bucket(const struct settings *settings, __u64 hash)
{
	return (hash >> 32) * settings->flow_buckets >> 32;
}

static __always_inline __u32 second_bucket(const struct settings *settings, __u64 hash, __u32 first)
{
	__u32 second = (hash * 0x9e3779b97f4a7c15ULL >> 32) * settings->flow_buckets >> 32;

	return second == first ? first ^ 1 : second;
}

/* Finds a tag in one bucket. */
static __always_inline int search_bucket(__u32 number, __u64 tag, struct place *place)
{
	struct flow_bucket *bucket = flows.lookup(&number);
	__u64 at = 0;
	int i;

	if (!bucket)
		return 0;
#pragma unroll
	for (i = 0; i < BUCKET_PLACES; i++)
		at += is_zero((bucket->entry[i] ^ tag) >> ENTRY_TAG_SHIFT) * (i + 1);
	if (!at)
		return 0;
	at = bounded(at - 1);
	place->bucket = bucket;
	place->at = at;
	place->index = number * BUCKET_PLACES + at;
	/* It may have changed hands since; or two CPUs have claimed places for one tag. */
	place->entry = bucket->entry[at];
	return !((place->entry ^ tag) >> ENTRY_TAG_SHIFT);
}

/* Sets *place; its entry is 0 where there is no flow. */
static __always_inline void find_flow(const struct packet *p, const struct settings *settings,
				      struct place *place)
{
	__u64 tag = entry_tag(p->flow_hash);
	__u32 first = first_bucket(settings, p->flow_hash);

	if (search_bucket(first, tag, place))
		return;
	if (search_bucket(second_bucket(settings, p->flow_hash, first), tag, place))
		return;
	place->entry = 0;
}

/* A place without generation is empty, or claimed if it has a tag: the flow is not there yet. */
static __always_inline int is_claimed(__u64 entry)
{
	return !(__u8)(entry >> 16);
}

static __always_inline __u64 silent_ticks(__u32 tick, __u8 age)
{
	__u64 silent = (__u8)(tick + TICKS_AHEAD_MAX - age);

	return silent < TICKS_AHEAD_MAX ? 0 : silent - TICKS_AHEAD_MAX;
}

/* A sign of life. Written once a tick, so that media does not dirty a line per packet. */
static __always_inline void touch_flow(const struct place *place, __u32 tick)
{
	__u8 *age = &place->bucket->age[bounded(place->at)];

	if (*age != (__u8)tick)
		*age = tick;
}

/* 1 if the entry was what we thought it was. */
static __always_inline int replace_entry(const struct place *place, __u64 old, __u64 new)
{
	__u64 *entry = &place->bucket->entry[bounded(place->at)];

	return __sync_val_compare_and_swap(entry, old, new) == old;
}

/* Writes the flow of `p` to a place that stands claimed, and lets everybody see it. */
static __always_inline void fill_place(const struct place *place, const struct packet *p,
				       __u64 proven, __u32 displaced)
{
	__u64 entry = make_entry(entry_tag(p->flow_hash), p->owner) | proven;
	__u32 index = place->index;
	struct flow *flow = flow_details.lookup(&index);

	if (flow) {
		flow->key = p->flow_key;
		flow->displaced = displaced;
		flow->session_id = p->session_id;
		flow->ufrag_hash = p->ufrag_hash;
	}
	place->bucket->age[bounded(place->at)] = p->tick;
	asm volatile("" ::: "memory"); /* x86 keeps stores in order, clang shall too */
	*(volatile __u64 *)&place->bucket->entry[bounded(place->at)] = entry;
}

/* What one look at a bucket says about making room in it. */
struct room {
	__u64 empty;   /* places */
	__u64 at;      /* the first empty one */
	__u64 longest; /* silence in ticks * 16 + 15 - order: the largest is the one to evict */
};

static __always_inline void look_for_room(const struct flow_bucket *bucket, __u32 tick, __u64 order,
					  struct room *room)
{
	int i;

	room->empty = 0;
	room->at = 0;
#pragma unroll
	for (i = BUCKET_PLACES - 1; i >= 0; i--) {
		__u64 entry = bucket->entry[i];
		__u64 empty = is_zero(entry >> ENTRY_TAG_SHIFT);
		__u64 claimed = is_zero(entry >> 16 & 0xff);
		__u64 proven = entry >> 24 & 1;
		/* silent_ticks() without a branch. */
		__u64 silent = (__u8)(tick + TICKS_AHEAD_MAX - bucket->age[i]);
		__u64 ahead = hide(silent - TICKS_AHEAD_MAX) >> 63;
		__u64 key;

		room->empty += empty;
		room->at = choose(empty, i, room->at);
		silent = choose(ahead, 0, silent - TICKS_AHEAD_MAX);
		silent = choose(proven, silent, silent + FLOW_EVICTED_TICKS);
		silent = choose(claimed, 0, silent);
		key = silent << 4 | (15 - (order + i));
		room->longest = choose(hide(room->longest - key) >> 63, key, room->longest);
	}
}

/* 1 if the tag stands in the bucket, in another place than ours. */
static __always_inline __u64 has_rival(const struct flow_bucket *bucket, __u64 tag, __u64 order,
				       __u64 ours)
{
	__u64 rivals = 0;
	int i;

#pragma unroll
	for (i = 0; i < BUCKET_PLACES; i++) {
		__u64 entry = *(volatile __u64 *)&bucket->entry[i];
		__u64 same = is_zero((entry ^ tag) >> ENTRY_TAG_SHIFT);

		rivals |= same & (is_zero(order + i ^ ours) ^ 1);
	}
	return rivals;
}

enum put {
	PUT_NOT = 0, /* another CPU is at it at this moment */
	PUT_INSERTED,
	PUT_REFUSED,
};

/* Inserts the flow of `p`, which was not found; ENTRY_PROVEN or 0. Sets *place. */
static __always_inline int insert_flow(const struct packet *p, const struct settings *settings,
				       __u64 proven, struct place *place)
{
	__u64 tag = entry_tag(p->flow_hash);
	__u32 first = first_bucket(settings, p->flow_hash);
	__u32 second = second_bucket(settings, p->flow_hash, first);
	struct flow_bucket *one = flows.lookup(&first), *two = flows.lookup(&second);
	struct room room_one = {}, room_two = {};
	__u64 old = 0, order;
	int evict;

	if (!one || !two)
		return PUT_REFUSED;
	look_for_room(one, p->tick, 0, &room_one);
	room_two.longest = room_one.longest;
	look_for_room(two, p->tick, BUCKET_PLACES, &room_two);

	evict = !(room_one.empty + room_two.empty);
	if (!evict) {
		order = room_one.empty >= FIRST_BUCKET_ROOM || room_one.empty >= room_two.empty
				? room_one.at
				: BUCKET_PLACES + room_two.at;
	} else {
		if (room_two.longest >> 4 < FLOW_EVICTED_TICKS)
			return PUT_REFUSED;
		order = 15 - (room_two.longest & 15);
	}
	order = hide(order);
	if (order < BUCKET_PLACES) {
		place->bucket = one;
		place->at = order;
		place->index = first * BUCKET_PLACES + order;
	} else {
		place->bucket = two;
		place->at = order - BUCKET_PLACES;
		place->index = second * BUCKET_PLACES + order - BUCKET_PLACES;
	}
	place->at = bounded(place->at);
	if (evict) {
		old = place->bucket->entry[place->at];
		/* Another CPU may have been faster. */
		if (is_claimed(old) ||
		    (old & ENTRY_PROVEN &&
		     silent_ticks(p->tick, place->bucket->age[place->at]) < FLOW_EVICTED_TICKS))
			return PUT_NOT;
	}
	if (!replace_entry(place, old, tag))
		return PUT_NOT;
	if (old)
		COUNT(flow__evicted);
	/* Of two CPUs that claim a place for one tuple the later one sees the earlier one here. */
	if (has_rival(one, tag, 0, order) | has_rival(two, tag, BUCKET_PLACES, order)) {
		replace_entry(place, tag, 0);
		return PUT_NOT;
	}
	fill_place(place, p, proven, 0);
	return PUT_INSERTED;
}

#endif
