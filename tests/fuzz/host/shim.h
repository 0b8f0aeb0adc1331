/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What stands around the headers of bpf/ when they build for the host: the kernel's own headers,
 * the helpers as plain functions over one frame, bcc's maps as objects with a `lookup`. Included
 * first by every target here.
 */
#ifndef FUZZ_HOST_SHIM_H
#define FUZZ_HOST_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The context's pointers have 32 bits there, which only the verifier makes whole: ours below. */
#define xdp_md kernel_xdp_md
#define __sk_buff kernel_sk_buff
#include <linux/bpf.h>
#undef xdp_md
#undef __sk_buff
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/types.h>
#include <linux/udp.h>

#define bpf_htons(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define bpf_ntohs(x) __builtin_bswap16((__u16)(x))
#define bpf_htonl(x) ((__be32)__builtin_bswap32((__u32)(x)))
#define bpf_ntohl(x) __builtin_bswap32((__u32)(x))

/* Ends the run with the name of what does not hold; libFuzzer keeps the input. */
#define REQUIRE(condition)                                                                \
	do {                                                                              \
		if (!(condition)) {                                                       \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, \
				#condition);                                              \
			abort();                                                          \
		}                                                                         \
	} while (0)

/* Not for the kernel's reason, which makes clang work for ten seconds and coverage coarse. */
#undef __always_inline
#define __always_inline inline

/*
 * The inline assembly of bpf/ is for the verifier and changes no value of a right program; some of
 * it is BPF's own. What is included above has been read by now.
 */
#define asm
#define volatile(...)

#endif
