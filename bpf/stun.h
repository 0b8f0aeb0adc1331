/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * STUN (RFC 8489): is the message well formed, and which server ufrag does a Binding request name?
 * Called by find.h. The Python twin is agent/turnout/wire/stun.py.
 */
#ifndef TURNOUT_STUN_H
#define TURNOUT_STUN_H

#include "maps.h"
#include "packet.h"
#include "siphash.h"

#define STUN_MAGIC_COOKIE 0x2112a442
#define STUN_BINDING_REQUEST 0x0001
#define STUN_USERNAME 0x0006
#define STUN_MESSAGE_INTEGRITY 0x0008
#define STUN_MESSAGE_INTEGRITY_SHA256 0x001c

/* libwebrtc sends up to 10 attributes, libnice and libjuice fewer. */
#define STUN_ATTRIBUTES_MAX 24

struct stun_header {
	__be16 type;
	__be16 len; /* bytes after this header */
	__be32 cookie;
	__u8 transaction_id[12];
};

struct stun_attribute {
	__be16 type;
	__be16 len; /* of the value, without padding to 4 */
};

struct stun_username {
	__u32 offset; /* of the value, in the frame */
	__u32 len;    /* bytes; 0: the message has none */
};

/* Checks the header; sets *type. */
static __always_inline int check_stun(struct xdp_md *ctx, const struct packet *p,
				      struct stun_header *stun)
{
	if (p->payload_len < sizeof(*stun) ||
	    bpf_xdp_load_bytes(ctx, p->payload, stun, sizeof(*stun)))
		return DROP(bad_stun);
	if (stun->cookie != bpf_htonl(STUN_MAGIC_COOKIE) || bpf_ntohs(stun->len) % 4 ||
	    sizeof(*stun) + bpf_ntohs(stun->len) > p->payload_len)
		return DROP(bad_stun);
	return CONTINUE;
}

/*
 * The first USERNAME before MESSAGE-INTEGRITY: what stands after it is not covered by it and is
 * ignored by every receiver (RFC 8489 section 14.5).
 */
static __always_inline int find_username(struct xdp_md *ctx, const struct packet *p, __u32 stun_len,
					 struct stun_username *username)
{
	__u32 offset = p->payload + sizeof(struct stun_header);
	__u32 end = offset + stun_len;
	int i;

	for (i = 0; i < STUN_ATTRIBUTES_MAX; i++) {
		struct stun_attribute attribute;
		__u32 len;

		if (offset == end)
			return CONTINUE;
		if (offset + sizeof(attribute) > end ||
		    bpf_xdp_load_bytes(ctx, offset, &attribute, sizeof(attribute)))
			return DROP(bad_stun);
		if (attribute.type == bpf_htons(STUN_MESSAGE_INTEGRITY) ||
		    attribute.type == bpf_htons(STUN_MESSAGE_INTEGRITY_SHA256))
			return CONTINUE;
		offset += sizeof(attribute);
		len = bpf_ntohs(attribute.len);
		if (offset + len > end)
			return DROP(bad_stun);
		if (attribute.type == bpf_htons(STUN_USERNAME)) {
			username->offset = offset;
			username->len = len;
			/* An empty one names nobody. */
			return len ? CONTINUE : DROP(bad_username);
		}
		offset += (len + 3) & ~3U;
	}
	return offset == end ? CONTINUE : DROP(stun_attributes);
}

/* The hash of the server ufrag: of USERNAME what stands before the first ':' (RFC 8445 7.2.2). */
static __always_inline int hash_ufrag(struct xdp_md *ctx, const struct settings *settings,
				      const struct stun_username *username, __u64 *hash)
{
	struct scratch_ufrag *ufrag;
	__u64 len = username->len;
	__u64 ufrag_len;
	__u8 *byte;
	int zero = 0;
	int i;

	ufrag = scratch_ufrag.lookup(&zero);
	if (!ufrag)
		return DROP(bad_username);
	if (!len)
		return DROP(bad_username);
	if (len > UFRAG_MAX + 1)
		len = UFRAG_MAX + 1;
	/*
	 * Verifier: bpf_xdp_load_bytes wants a length that is not 0, and 6.1 learns no lower bound
	 * from a test for it; 0..UFRAG_MAX, then plus 1, it understands. clang 14 would fold the
	 * tests of the two bounds into one of another register: hidden from it in between, the test
	 * stands on the register that is passed. 511 > UFRAG_MAX, so the mask keeps the value.
	 */
	len--;
	asm volatile("%0 &= 511" : "+r"(len));
	if (len > UFRAG_MAX)
		return DROP(bad_username);
	asm volatile("" : "+r"(len));
	len++;
	if (bpf_xdp_load_bytes(ctx, username->offset, ufrag->word, len))
		return DROP(bad_username);

	byte = (__u8 *)ufrag->word;
	for (i = 0; i < UFRAG_MAX + 1; i++) {
		if (i >= len || byte[i] == ':')
			break;
	}
	if (i >= len)
		return DROP(bad_username);
	/*
	 * Through memory, so that the verifier forgets which round the loop left in: it would
	 * walk the rest of the program once for each of the 257.
	 */
	ufrag->len = i;
	asm volatile("" ::: "memory");
	ufrag_len = ufrag->len;
	if (ufrag_len < UFRAG_MIN || ufrag_len > UFRAG_MAX)
		return DROP(bad_username);
	*hash = siphash_2_4(settings->edge_key, ufrag->word, ufrag_len, UFRAG_MAX / 8);
	return CONTINUE;
}

#endif
