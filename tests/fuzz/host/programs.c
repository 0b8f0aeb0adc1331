// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The whole of steer.c, with maps of a few entries: what BPF_PROG_TEST_RUN cannot show, that no
 * byte outside of a frame or a map's value is touched where the verifier was told to look away, and
 * what has to hold after every packet. An input is a list of steps: what, ticks gone by, linear
 * blocks, length of the frame (2 bytes, big-endian), the frame.
 */
#include "edge.h"
#include "reference.h"

#define PASSWORD "passwordpasswordpassword"

enum step {
	STEP_INGRESS = 0,
	STEP_LOOPBACK,
	STEP_EGRESS,
	STEP_SWEEP,
	STEP_KINDS = 4,
	STEP_SIGNED = 4, /* a bit: MESSAGE-INTEGRITY is made right first, which no mutation could */
	STEP_RECONFIGURED = 8, /* a bit: a session ends, an owner is reborn, or both are back */
};

#define STEP_BYTES 5

/* A session of this input was made anew: what it had before is not in its list of flows. */
static int is_renewed;

static const char *const ufrags[SESSIONS] = {"srvr", "othr", "agin"};

static void add_session(int i)
{
	__u64 ufrag[UFRAG_MAX / 8 + 1] = {};
	struct session_entry *entry = &session_entries[i];

	memcpy(ufrag, ufrags[i], 4);
	memset(entry, 0, sizeof(*entry));
	entry->used = 1;
	entry->key = reference_siphash((uint8_t *)settings_entries[0].edge_key,
				       (const uint8_t *)ufrags[i], strlen(ufrags[i]));
	/* The third is an ICE restart of the first. */
	entry->value.session_id = i == 1 ? 0x2222 : 0x1111;
	entry->value.owner.slot = i == 1 ? 2 : 1;
	entry->value.owner.generation = 7;
	reference_hmac_key((const uint8_t *)PASSWORD, strlen(PASSWORD), 0x36,
			   entry->value.hmac_inner);
	reference_hmac_key((const uint8_t *)PASSWORD, strlen(PASSWORD), 0x5c,
			   entry->value.hmac_outer);
}

static void reset(void)
{
	int i;

	now = 1ULL << 40;
	is_renewed = 0;
	for (i = 0; i < SESSIONS; i++)
		add_session(i);
	for (i = 1; i <= 2; i++) {
		owners_entries[i].lane = 20000 + i - 1;
		owners_entries[i].generation = 7;
		owners_entries[i].state = OWNER_ACTIVE;
	}
	memset(flows_entries, 0, sizeof(flows_entries));
	memset(flow_details_entries, 0, sizeof(flow_details_entries));
	memset(meters_entries, 0, sizeof(meters_entries));
	memset(prefix_meters_entries, 0, sizeof(prefix_meters_entries));
	memset(counters_entries, 0, sizeof(counters_entries));
}

static void reconfigure(uint8_t how)
{
	switch (how % 4) {
	case 0:
		session_entries[0].used = 0;
		break;
	case 1:
		owners_entries[1].generation++;
		break;
	case 2:
		owners_entries[2].state = OWNER_DOWN;
		break;
	default:
		add_session(0);
		owners_entries[2].state = OWNER_ACTIVE;
		is_renewed = 1;
	}
}

/* Puts the right MESSAGE-INTEGRITY into a request that has the attribute. */
static void sign(void)
{
	struct packet p = {
		.data = frame.data, .data_end = frame.data + frame.linear, .len_bytes = frame.len};
	uint8_t message[2048], digest[20], len[2];
	size_t at, end, size = 0;

	if (parse(&p) || p.transport != TRANSPORT_UDP || p.payload + 20 > frame.len)
		return;
	end = frame.len - p.payload;
	if (end > sizeof(message) || copy_from_frame(p.payload, message, end))
		return;
	for (at = 20; at + 24 <= end; at += 4 + (size + 3) / 4 * 4) {
		size = message[at + 2] << 8 | message[at + 3];
		if (message[at] == 0 && message[at + 1] == 8)
			break;
	}
	if (at + 24 > end)
		return;
	memcpy(len, message + 2, 2);
	message[2] = (at + 4) >> 8;
	message[3] = at + 4;
	reference_hmac((const uint8_t *)PASSWORD, strlen(PASSWORD), message, at, digest);
	copy_to_frame(p.payload + at + 4, digest, sizeof(digest));
}

static __u64 sum_of_verdicts(void)
{
	const __u64 *counter = (const __u64 *)&counters_entries[0];
	__u64 sum = 0;
	size_t i;

	for (i = COUNTER(steered__stun_request); i <= COUNTER(drop__flow_rate); i++)
		sum += counter[i];
	return sum;
}

static void require_table(void)
{
	__u64 ours[SESSIONS] = {};
	__u32 number, at, other;
	int i;

	for (number = 0; number < FLOW_BUCKETS; number++) {
		for (at = 0; at < BUCKET_PLACES; at++) {
			struct flow *flow = &flow_details_entries[number * BUCKET_PLACES + at];
			__u64 entry = flows_entries[number].entry[at], hash;

			if (!entry)
				continue;
			/* With one CPU nothing is left half done, and a flow is where it belongs. */
			REQUIRE(!is_claimed(entry));
			hash = hash_flow(&settings_entries[0], &flow->key);
			REQUIRE(!((entry ^ entry_tag(hash)) >> ENTRY_TAG_SHIFT));
			other = first_bucket(&settings_entries[0], hash);
			REQUIRE(number == other ||
				number == second_bucket(&settings_entries[0], hash, other));
			for (other = 0; other < FLOW_BUCKETS * BUCKET_PLACES; other++)
				REQUIRE(other == number * BUCKET_PLACES + at ||
					!flows_entries[other / BUCKET_PLACES]
						 .entry[other % BUCKET_PLACES] ||
					!same_flow_key(&flow->key,
						       &flow_details_entries[other].key));
			for (i = 0; i < SESSIONS; i++)
				ours[i] +=
					flow->session_id &&
					session_entries[i].key == flow->ufrag_hash &&
					session_entries[i].value.session_id == flow->session_id &&
					session_entries[i].used;
		}
	}
	for (i = 0; i < SESSIONS; i++)
		REQUIRE(is_renewed || ours[i] <= settings_entries[0].session_flows);
}

/* What a packet that is steered may differ in from the one that came. */
static void require_same_but(const uint8_t *before, size_t udp, size_t port)
{
	size_t i;

	for (i = 0; i < frame.len; i++) {
		if (*frame_byte(i) == before[i])
			continue;
		REQUIRE((i >= udp + port && i < udp + port + 2) || (i >= udp + 6 && i < udp + 8));
	}
}

static void receive(const uint8_t *before, __u32 interface)
{
	struct counters was = counters_entries[0];
	const struct counters *is = &counters_entries[0];
	struct xdp_md ctx = {
		.data = (unsigned long)frame.data,
		.data_end = (unsigned long)frame.data + frame.linear,
		.ingress_ifindex = interface,
	};
	__u64 verdicts = sum_of_verdicts();
	struct packet p = {
		.data = frame.data, .data_end = frame.data + frame.linear, .len_bytes = frame.len};
	int is_udp = parse(&p) == CONTINUE && p.transport == TRANSPORT_UDP;
	int verdict = ingress(&ctx);

	REQUIRE(verdict == XDP_PASS || verdict == XDP_DROP);
	REQUIRE(is->received - was.received <= 1);
	REQUIRE(sum_of_verdicts() - verdicts == is->received - was.received);
	if (is->received == was.received && is->icmp__translated == was.icmp__translated)
		REQUIRE(!frame.linear || !memcmp(frame.data, before, frame.linear));
	else if (is_udp)
		require_same_but(before, p.payload - sizeof(struct udphdr), 2);
	if (is->received != was.received && verdict == XDP_PASS && is_udp)
		REQUIRE(p.payload < frame.len);
}

static void send(const uint8_t *before)
{
	struct __sk_buff skb = {
		.data = (unsigned long)frame.data,
		.data_end = (unsigned long)frame.data + frame.linear,
		.len = frame.len,
	};
	struct counters was = counters_entries[0];
	int verdict = egress(&skb);

	REQUIRE(verdict == TC_ACT_UNSPEC || verdict == TC_ACT_SHOT);
	REQUIRE(counters_entries[0].received == was.received);
	if (counters_entries[0].returned__rewritten == was.returned__rewritten)
		REQUIRE(!frame.linear || !memcmp(frame.data, before, frame.linear));
}

static void take_step(uint8_t what, const uint8_t *bytes)
{
	if (what & STEP_RECONFIGURED)
		reconfigure(frame.len);
	switch (what % STEP_KINDS) {
	case STEP_EGRESS:
		send(bytes);
		break;
	case STEP_SWEEP: {
		struct xdp_md ctx = {.data = (unsigned long)frame.data,
				     .data_end = (unsigned long)frame.data + frame.linear};

		REQUIRE(sweep(&ctx) == XDP_PASS);
		break;
	}
	default:
		receive(bytes, what % STEP_KINDS == STEP_LOOPBACK ? LOOPBACK_IFINDEX : 2);
	}
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
	(void)count;
	(void)arguments;
	check_reference();
	set_up_edge();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
	reset();
	while (len >= STEP_BYTES) {
		size_t wanted = input[3] << 8 | input[4];
		uint8_t *before;

		if (wanted > len - STEP_BYTES)
			wanted = len - STEP_BYTES;
		now += (__u64)input[1] << 30;
		take_frame(input + STEP_BYTES, wanted, input[2]);
		before = malloc(wanted);
		if (input[0] & STEP_SIGNED)
			sign();
		if (wanted)
			copy_from_frame(0, before, wanted);
		take_step(input[0], before);
		require_table();
		free(before);
		drop_frame();
		input += STEP_BYTES + wanted;
		len -= STEP_BYTES + wanted;
	}
	return 0;
}
