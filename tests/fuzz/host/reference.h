/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The algorithms of bpf/ a second time, as their papers write them: byte by byte, no thought of a
 * verifier. Checked against published vectors before the first input (check_reference).
 */
#ifndef FUZZ_HOST_REFERENCE_H
#define FUZZ_HOST_REFERENCE_H

#include "shim.h"

static uint64_t reference_rotate64(uint64_t x, unsigned bits)
{
	return x << bits | x >> (64 - bits);
}

static uint64_t reference_read64(const uint8_t *bytes, size_t len)
{
	uint64_t value = 0;
	size_t i;

	for (i = 0; i < len && i < 8; i++)
		value |= (uint64_t)bytes[i] << 8 * i;
	return value;
}

static uint64_t reference_siphash(const uint8_t key[16], const uint8_t *bytes, size_t len)
{
	uint64_t k0 = reference_read64(key, 8), k1 = reference_read64(key + 8, 8);
	uint64_t a = k0 ^ 0x736f6d6570736575, b = k1 ^ 0x646f72616e646f6d;
	uint64_t c = k0 ^ 0x6c7967656e657261, d = k1 ^ 0x7465646279746573;
	size_t at, rounds;

	for (at = 0; at <= len; at += 8) {
		uint64_t word = reference_read64(bytes + at, len - at);
		int is_last = len - at < 8;

		if (is_last)
			word |= (uint64_t)len << 56;
		d ^= word;
		for (rounds = 0; rounds < (is_last ? 6 : 2); rounds++) {
			if (rounds == 2) {
				a ^= word;
				c ^= 0xff;
			}
			a += b;
			c += d;
			b = reference_rotate64(b, 13) ^ a;
			d = reference_rotate64(d, 16) ^ c;
			a = reference_rotate64(a, 32);
			c += b;
			a += d;
			b = reference_rotate64(b, 17) ^ c;
			d = reference_rotate64(d, 21) ^ a;
			c = reference_rotate64(c, 32);
		}
		if (!is_last)
			a ^= word;
	}
	return a ^ b ^ c ^ d;
}

static void reference_sha1_block(uint32_t state[5], const uint8_t block[64])
{
	uint32_t w[80], v[5];
	int i;

	for (i = 0; i < 80; i++) {
		if (i < 16)
			w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 |
			       block[4 * i + 2] << 8 | block[4 * i + 3];
		else {
			uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16];

			w[i] = x << 1 | x >> 31;
		}
	}
	memcpy(v, state, sizeof(v));
	for (i = 0; i < 80; i++) {
		uint32_t f, k, next;

		if (i < 20) {
			f = (v[1] & v[2]) | (~v[1] & v[3]);
			k = 0x5a827999;
		} else if (i < 40) {
			f = v[1] ^ v[2] ^ v[3];
			k = 0x6ed9eba1;
		} else if (i < 60) {
			f = (v[1] & v[2]) | (v[1] & v[3]) | (v[2] & v[3]);
			k = 0x8f1bbcdc;
		} else {
			f = v[1] ^ v[2] ^ v[3];
			k = 0xca62c1d6;
		}
		next = (v[0] << 5 | v[0] >> 27) + f + v[4] + k + w[i];
		v[4] = v[3];
		v[3] = v[2];
		v[2] = v[1] << 30 | v[1] >> 2;
		v[1] = v[0];
		v[0] = next;
	}
	for (i = 0; i < 5; i++)
		state[i] += v[i];
}

static const uint32_t reference_sha1_start[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476,
						 0xc3d2e1f0};

/* Goes on from `state`, which has seen `before` bytes (a multiple of 64), to the end. */
static void reference_sha1(uint32_t state[5], uint64_t before, const uint8_t *bytes, size_t len)
{
	uint8_t block[64];
	size_t at = 0;
	int i;

	for (; len - at >= 64; at += 64)
		reference_sha1_block(state, bytes + at);
	memset(block, 0, sizeof(block));
	memcpy(block, bytes + at, len - at);
	block[len - at] = 0x80;
	if (len - at > 55) {
		reference_sha1_block(state, block);
		memset(block, 0, sizeof(block));
	}
	for (i = 0; i < 8; i++)
		block[56 + i] = (before + len) * 8 >> (56 - 8 * i);
	reference_sha1_block(state, block);
}

/* RFC 2104, for keys of at most 64 bytes: the mid-states, and the whole. */
static void reference_hmac_key(const uint8_t *key, size_t len, uint8_t pad, uint32_t state[5])
{
	uint8_t block[64];
	size_t i;

	memset(block, pad, sizeof(block));
	for (i = 0; i < len; i++)
		block[i] ^= key[i];
	memcpy(state, reference_sha1_start, 5 * sizeof(*state));
	reference_sha1_block(state, block);
}

static void reference_write(const uint32_t state[5], uint8_t digest[20])
{
	int i;

	for (i = 0; i < 20; i++)
		digest[i] = state[i / 4] >> (24 - i % 4 * 8);
}

static void reference_hmac(const uint8_t *key, size_t key_len, const uint8_t *bytes, size_t len,
			   uint8_t digest[20])
{
	uint32_t state[5];
	uint8_t inner[20];

	reference_hmac_key(key, key_len, 0x36, state);
	reference_sha1(state, 64, bytes, len);
	reference_write(state, inner);
	reference_hmac_key(key, key_len, 0x5c, state);
	reference_sha1(state, 64, inner, sizeof(inner));
	reference_write(state, digest);
}

/* SipHash's own vectors (its paper, appendix A) and RFC 2202 section 3, case 2. */
static void check_reference(void)
{
	static const uint8_t wanted[] = "\xef\xfc\xdf\x6a\xe5\xeb\x2f\xa2\xd2\x74"
					"\x16\xd5\xf1\x84\xdf\x9c\x25\x9a\x7c\x79";
	static const char text[] = "what do ya want for nothing?";
	uint8_t bytes[16], digest[20];
	int i;

	for (i = 0; i < 16; i++)
		bytes[i] = i;
	REQUIRE(reference_siphash(bytes, bytes, 15) == 0xa129ca6149be45e5);
	REQUIRE(reference_siphash(bytes, bytes, 0) == 0x726fdb47dd0e0e31);
	REQUIRE(reference_siphash(bytes, bytes, 8) == 0x93f5f5799a932462);
	reference_hmac((const uint8_t *)"Jefe", 4, (const uint8_t *)text, strlen(text), digest);
	REQUIRE(!memcmp(digest, wanted, 20));
}

#endif
