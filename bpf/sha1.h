/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The compression of SHA-1 (RFC 3174), for HMAC (RFC 2104) over a STUN message. 32-bit words in
 * 64-bit registers: what stands above the lower half is rubbish until a shift to the right needs
 * it gone. No map and no helper here: builds on the host too.
 */
#ifndef TURNOUT_SHA1_H
#define TURNOUT_SHA1_H

#define SHA1_BLOCK_BYTES 64
#define SHA1_BLOCK_WORDS 16
#define SHA1_WORDS 5

static __always_inline __u64 rotate_word(__u64 x, int bits)
{
	return x << bits | (__u32)x >> (32 - bits);
}

struct sha1_round {
	__u64 a, b, c, d, e;
};

/* Rounds of five, so that every word is back in its place and nothing is copied. */
#define SHA1_ROUND(f, k, a, b, c, d, e, word)                \
	do {                                                 \
		e += rotate_word(a, 5) + (f) + (k) + (word); \
		b = rotate_word(b, 30);                      \
	} while (0)

#define SHA1_FIVE(F, k, v, w)                                                     \
	do {                                                                      \
		SHA1_ROUND(F(v.b, v.c, v.d), k, v.a, v.b, v.c, v.d, v.e, (w)[0]); \
		SHA1_ROUND(F(v.a, v.b, v.c), k, v.e, v.a, v.b, v.c, v.d, (w)[1]); \
		SHA1_ROUND(F(v.e, v.a, v.b), k, v.d, v.e, v.a, v.b, v.c, (w)[2]); \
		SHA1_ROUND(F(v.d, v.e, v.a), k, v.c, v.d, v.e, v.a, v.b, (w)[3]); \
		SHA1_ROUND(F(v.c, v.d, v.e), k, v.b, v.c, v.d, v.e, v.a, (w)[4]); \
	} while (0)

#define SHA1_CHOICE(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define SHA1_PARITY(x, y, z) ((x) ^ (y) ^ (z))
#define SHA1_MAJORITY(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))

/* Takes in one block, whose 16 words stand at the start of `schedule`, in host order. */
static __always_inline void sha1_compress(__u32 state[SHA1_WORDS], __u32 schedule[80])
{
	struct sha1_round v = {state[0], state[1], state[2], state[3], state[4]};
	int i;

	for (i = 16; i < 80; i++) {
		__u32 *w = schedule + i;

		*w = rotate_word(w[-3] ^ w[-8] ^ w[-14] ^ w[-16], 1);
	}
#pragma unroll
	for (i = 0; i < 20; i += 5)
		SHA1_FIVE(SHA1_CHOICE, 0x5a827999, v, schedule + i);
#pragma unroll
	for (i = 20; i < 40; i += 5)
		SHA1_FIVE(SHA1_PARITY, 0x6ed9eba1, v, schedule + i);
#pragma unroll
	for (i = 40; i < 60; i += 5)
		SHA1_FIVE(SHA1_MAJORITY, 0x8f1bbcdc, v, schedule + i);
#pragma unroll
	for (i = 60; i < 80; i += 5)
		SHA1_FIVE(SHA1_PARITY, 0xca62c1d6, v, schedule + i);
	state[0] += v.a;
	state[1] += v.b;
	state[2] += v.c;
	state[3] += v.d;
	state[4] += v.e;
}

#endif
