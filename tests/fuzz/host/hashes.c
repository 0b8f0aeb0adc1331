// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * siphash.h, flowhash.h and sha1.h against second implementations. An input is a key and what is
 * hashed under it.
 */
#include "shim.h"
#include "reference.h"

#include "siphash.h"
#include "flowhash.h"
#include "sha1.h"

#define KEY_BYTES 16
#define WORDS_MAX 32

static void check_siphash(const uint8_t *key, const uint8_t *bytes, size_t len)
{
	/* One word more than it is told of: it reads the word behind the last byte. */
	__u64 *words = malloc((WORDS_MAX + 1) * sizeof(*words));
	__u64 edge_key[2];

	/* What an earlier packet left behind must not matter. */
	memset(words, 0xa5, (WORDS_MAX + 1) * sizeof(*words));
	memcpy(words, bytes, len);
	memcpy(edge_key, key, sizeof(edge_key));
	REQUIRE(siphash_2_4(edge_key, words, len, WORDS_MAX) == reference_siphash(key, bytes, len));
	free(words);
}

static uint64_t reference_flow_hash(const uint64_t keys[6], const uint8_t key[20])
{
	uint64_t h = keys[5];
	int i;

	for (i = 0; i < 5; i++)
		h += keys[i] * reference_read64(key + 4 * i, 4);
	for (i = 0; i < 2; i++) {
		h ^= h >> 33;
		h *= i ? 0xc4ceb9fe1a85ec53 : 0xff51afd7ed558ccd;
	}
	return h ^ h >> 33;
}

static void check_flow_hash(const uint8_t *bytes, size_t len)
{
	struct settings settings = {};
	struct flow_key key;

	if (len < sizeof(settings.flow_keys) + sizeof(key))
		return;
	memcpy(settings.flow_keys, bytes, sizeof(settings.flow_keys));
	memcpy(&key, bytes + sizeof(settings.flow_keys), sizeof(key));
	REQUIRE(hash_flow(&settings, &key) ==
		reference_flow_hash((const uint64_t *)settings.flow_keys, (const uint8_t *)&key));
}

static void check_sha1(const uint8_t *bytes, size_t len)
{
	__u32 state[SHA1_WORDS], *schedule;
	uint32_t wanted[SHA1_WORDS];
	int i;

	if (len < sizeof(state) + SHA1_BLOCK_BYTES)
		return;
	memcpy(state, bytes, sizeof(state));
	memcpy(wanted, bytes, sizeof(wanted));
	bytes += sizeof(state);
	schedule = malloc(80 * sizeof(*schedule));
	for (i = 0; i < 16; i++)
		schedule[i] = bpf_ntohl(*(const __be32 *)(bytes + 4 * i));
	sha1_compress(state, schedule);
	reference_sha1_block(wanted, bytes);
	REQUIRE(!memcmp(state, wanted, sizeof(state)));
	free(schedule);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	check_reference();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
	if (len < KEY_BYTES)
		return 0;
	check_flow_hash(input + KEY_BYTES, len - KEY_BYTES);
	check_sha1(input + KEY_BYTES, len - KEY_BYTES);
	if (len - KEY_BYTES <= WORDS_MAX * 8)
		check_siphash(input, input + KEY_BYTES, len - KEY_BYTES);
	return 0;
}
