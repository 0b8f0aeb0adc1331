/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The keyed hash of a flow_key. A sum of products with secret keys (multilinear hashing: whoever
 * does not know them cannot choose tuples that meet), then MurmurHash3's finalizer, which spreads
 * the 64 bits. A third of the cost of SipHash, and nobody outside ever sees a result. No map and no
 * helper here: builds on the host too.
 */
#ifndef TURNOUT_FLOWHASH_H
#define TURNOUT_FLOWHASH_H

#include "packet.h"

static __always_inline __u64 hash_flow(const struct settings *settings, const struct flow_key *key)
{
	const __u64 *k = settings->flow_keys;
	__u64 h = k[5];

	h += k[0] * key->client.word[0];
	h += k[1] * key->client.word[1];
	h += k[2] * key->client.word[2];
	h += k[3] * key->client.word[3];
	h += k[4] * (key->client_port | (__u32)key->vip << 16);

	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ULL;
	h ^= h >> 33;
	return h;
}

#endif
