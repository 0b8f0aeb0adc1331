/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The tick: CLOCK_MONOTONIC in steps of 2^30 ns, 1.07 s. Ages of flows and all limits of rates are
 * counted in it, so that a packet reads the clock once and cheaply. Read by all programs.
 */
#ifndef TURNOUT_CLOCK_H
#define TURNOUT_CLOCK_H

#define TICK_SHIFT 30

#ifdef TURNOUT_TEST_CLOCK
/* The fuzzer says what time it is, or nothing it finds could be run again. */
BPF_ARRAY(test_clock, __u64, 1);

static __always_inline __u32 read_tick(void)
{
	int zero = 0;
	__u64 *now_ns = test_clock.lookup(&zero);

	return now_ns ? *now_ns >> TICK_SHIFT : 0;
}
#else
/* The jiffy in which the clock was read last (upper half), and the tick that it showed. */
BPF_ARRAY(scratch_clock, __u64, 1);

/*
 * Reading jiffies is one load, asking for the time a call. Two CPUs may put back each other's tick of
 * the same jiffy, which is the same or one less.
 */
static __always_inline __u32 read_tick(void)
{
	__u64 jiffy = bpf_jiffies64() << 32;
	__u64 *clock, seen;
	int zero = 0;

	clock = scratch_clock.lookup(&zero);
	if (!clock)
		return 0;
	seen = *clock;
	if ((seen ^ jiffy) >> 32) {
		seen = jiffy | (__u32)(bpf_ktime_get_coarse_ns() >> TICK_SHIFT);
		*clock = seen;
	}
	return seen;
}
#endif

#endif
