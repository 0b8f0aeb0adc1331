/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * SipHash-2-4 (Aumasson and Bernstein, 2012) over a ufrag. Little-endian machines only, like the
 * kernels Turnout runs on. The Python twin is agent/turnout/wire/siphash.py.
 */
#ifndef TURNOUT_SIPHASH_H
#define TURNOUT_SIPHASH_H

static __always_inline __u64 rotate_left(__u64 x, int bits)
{
	return (x << bits) | (x >> (64 - bits));
}

static __always_inline void siphash_round(__u64 v[4])
{
	v[0] += v[1];
	v[1] = rotate_left(v[1], 13) ^ v[0];
	v[0] = rotate_left(v[0], 32);
	v[2] += v[3];
	v[3] = rotate_left(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate_left(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate_left(v[1], 17) ^ v[2];
	v[2] = rotate_left(v[2], 32);
}

/*
 * `len` bytes at `word`, at most `words_max` * 8; the word that holds the last bytes must be
 * readable as a whole even where len % 8 == 0.
 */
static __always_inline __u64 siphash_2_4(const __u64 key[2], const __u64 *word, __u64 len,
					 __u32 words_max)
{
	__u64 v[4] = {
		key[0] ^ 0x736f6d6570736575ULL,
		key[1] ^ 0x646f72616e646f6dULL,
		key[0] ^ 0x6c7967656e657261ULL,
		key[1] ^ 0x7465646279746573ULL,
	};
	__u64 whole = len / 8;
	__u64 last = 0;
	__u32 i;

	for (i = 0; i <= words_max; i++) {
		__u64 m = word[i];

		if (i >= whole) {
			last = m;
			break;
		}
		v[3] ^= m;
		siphash_round(v);
		siphash_round(v);
		v[0] ^= m;
	}
	if (len % 8)
		last &= (1ULL << (len % 8 * 8)) - 1;
	else
		last = 0;
	last |= len << 56;
	v[3] ^= last;
	siphash_round(v);
	siphash_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	siphash_round(v);
	siphash_round(v);
	siphash_round(v);
	siphash_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

#endif
