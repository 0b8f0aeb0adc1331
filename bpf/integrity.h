/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * MESSAGE-INTEGRITY (RFC 8489 section 14.5): HMAC-SHA1 over the message up to the attribute, keyed
 * with the ICE password. What it costs is bounded before it is spent: a budget for each session,
 * and for a session whose checks fail, one for each network that they come from.
 */
#ifndef TURNOUT_INTEGRITY_H
#define TURNOUT_INTEGRITY_H

#include "meter.h"
#include "sha1.h"
#include "stun.h"

#define MESSAGE_INTEGRITY_BYTES 20

/* Verifier: offsets into the message, of which it knows no more than this mask. */
#define MESSAGE_MASK 2047

/* The message in the scratch map, with its length. */
static __always_inline int copy_message(struct xdp_md *ctx, const struct packet *p,
					struct scratch_message *message)
{
	__u64 len = p->stun_len + sizeof(struct stun_header);

	/* Verifier: as in hash_ufrag(). */
	len--;
	asm volatile("%0 &= 2047" : "+r"(len));
	if (len >= MESSAGE_BYTES_MAX)
		return DROP(stun_too_long);
	asm volatile("" : "+r"(len));
	len++;
	if (bpf_xdp_load_bytes(ctx, p->payload, message->byte, len))
		return DROP(bad_stun);
	message->len = len;
	return CONTINUE;
}

/*
 * The offset of the first MESSAGE-INTEGRITY, or 0. What follows it is not covered and does not
 * matter (FINGERPRINT, MESSAGE-INTEGRITY-SHA256, anything else).
 */
static __always_inline __u64 find_integrity(const struct scratch_message *message)
{
	__u64 offset = sizeof(struct stun_header);
	int i;

	for (i = 0; i < STUN_ATTRIBUTES_MAX; i++) {
		const struct stun_attribute *attribute;
		__u64 len;

		if (offset + sizeof(*attribute) > message->len)
			return 0;
		attribute = (const void *)(message->byte + (offset & MESSAGE_MASK));
		len = bpf_ntohs(attribute->len);
		if (attribute->type == bpf_htons(STUN_MESSAGE_INTEGRITY)) {
			if (len != MESSAGE_INTEGRITY_BYTES ||
			    offset + sizeof(*attribute) + len > message->len)
				return 0;
			return offset;
		}
		offset += sizeof(*attribute) + ((len + 3) & ~3ULL);
		/* Verifier: one number of unknown value, or it would walk on for each. */
		asm volatile("" : "+r"(offset));
	}
	return 0;
}

/* Ends the text of the inner hash at `len` as SHA-1 wants it, and counts its blocks. */
static __always_inline void pad_message(struct scratch_message *message, __u64 len)
{
	__u64 blocks = (len + 8) / SHA1_BLOCK_BYTES + 1;
	__u8 *end = message->byte + (len & MESSAGE_MASK);
	__u64 last = blocks * SHA1_BLOCK_BYTES - sizeof(__be32);
	int i;

	*(__be32 *)end = bpf_htonl(0x80000000);
#pragma unroll
	for (i = 1; i < 17; i++)
		*(__be32 *)(end + i * sizeof(__be32)) = 0;
	*(__be32 *)(message->byte + (last & MESSAGE_MASK)) =
		bpf_htonl((SHA1_BLOCK_BYTES + len) * 8);
	message->blocks = blocks;
}

static __always_inline void load_block(struct scratch_message *message, __u64 block)
{
	const __be32 *word = (const void *)(message->byte + block * SHA1_BLOCK_BYTES);
	int i;

	for (i = 0; i < SHA1_BLOCK_WORDS; i++)
		message->schedule[i] = bpf_ntohl(word[i]);
}

/* The inner hash is the text of the outer one. */
static __always_inline void load_outer_block(struct scratch_message *message,
					     const struct session *session)
{
	int i;

	__builtin_memset(message->schedule, 0, SHA1_BLOCK_BYTES);
	for (i = 0; i < SHA1_WORDS; i++)
		message->schedule[i] = message->state[i];
	message->schedule[SHA1_WORDS] = 0x80000000;
	message->schedule[SHA1_BLOCK_WORDS - 1] =
		(SHA1_BLOCK_BYTES + SHA1_WORDS * sizeof(__u32)) * 8;
	__builtin_memcpy(message->state, session->hmac_outer, sizeof(message->state));
}

/* HMAC-SHA1 over what stands before `integrity`; 1 if it is what stands there. */
static __always_inline int is_authentic(struct scratch_message *message, __u64 integrity,
					const struct session *session)
{
	const __be32 *claimed;
	__u32 difference = 0;
	__u64 block;
	__be32 sent[SHA1_WORDS];
	int i;

	claimed = (const void *)(message->byte + ((integrity + 4) & MESSAGE_MASK));
	for (i = 0; i < SHA1_WORDS; i++)
		sent[i] = claimed[i];

	/* The length it had when it was made: up to and with the attribute. */
	*(__be16 *)(message->byte + 2) =
		bpf_htons(integrity - sizeof(struct stun_header) + sizeof(struct stun_attribute) +
			  MESSAGE_INTEGRITY_BYTES);
	pad_message(message, integrity);
	__builtin_memcpy(message->state, session->hmac_inner, sizeof(message->state));
	/*
	 * The last round is the outer hash, over what the inner one came to. Verifier: `blocks` from
	 * memory each time, or each way out of a comparison would be another one to walk.
	 */
	for (block = 0; block <= MESSAGE_BLOCKS_MAX; block++) {
		__u64 blocks = *(volatile __u64 *)&message->blocks;

		if (block < blocks)
			load_block(message, block);
		else if (block == blocks)
			load_outer_block(message, session);
		else
			break;
		sha1_compress(message->state, message->schedule);
	}
	for (i = 0; i < SHA1_WORDS; i++)
		difference |= sent[i] ^ bpf_htonl(message->state[i]);
	return !difference;
}

/* CONTINUE for a request that was made with the session's password. */
static __always_inline int verify_integrity(struct xdp_md *ctx, const struct packet *p,
					    const struct settings *settings,
					    struct session *session)
{
	__u64 hash = hash_prefix(p, settings);
	__u64 label = meter_label(hash, p->tick);
	struct scratch_message *message;
	__u64 *meter, integrity;
	int verdict, zero = 0;
	__u32 index;

	if (p->stun_len + sizeof(struct stun_header) > MESSAGE_BYTES_MAX)
		return DROP(stun_too_long);
	if (session->check_tick != p->tick) {
		session->check_tick = p->tick;
		session->checks = 0;
		session->failures = 0;
	}
	/*
	 * The network first, so that one network's failures do not spend the session's budget. A session
	 * whose checks do not fail is not kept out by its neighbours' that do.
	 */
	index = hash & (METERS - 1);
	meter = prefix_meters.lookup(&index);
	if (!meter)
		return DROP(failed_checks);
	if (session->failures && read_meter(meter, label) >= settings->prefix_failures)
		return DROP(failed_checks);
	if (session->checks >= settings->check_budget)
		return DROP(verify_budget);
	session->checks++;

	message = scratch_message.lookup(&zero);
	if (!message)
		return DROP(bad_integrity);
	verdict = copy_message(ctx, p, message);
	if (verdict)
		return verdict;
	integrity = find_integrity(message);
	if (integrity && is_authentic(message, integrity, session))
		return CONTINUE;
	session->failures++;
	count_meter(meter, label);
	return DROP(bad_integrity);
}

#endif
