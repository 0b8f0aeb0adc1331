/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * One frame as a program meets it. Its linear part stands in a block of its own, so that the
 * sanitizer sees one byte too many; the rest is reached by the helpers only.
 */
#ifndef FUZZ_HOST_FRAME_H
#define FUZZ_HOST_FRAME_H

#include "shim.h"

struct frame {
	uint8_t *data; /* the linear part */
	size_t linear;
	uint8_t *rest;
	size_t len; /* of both */
};

static struct frame frame;

/* `blocks`: 8-byte blocks that are linear, 0 for all of it. */
static void take_frame(const uint8_t *bytes, size_t len, size_t blocks)
{
	frame.len = len;
	frame.linear = blocks && blocks * 8 < len ? blocks * 8 : len;
	frame.data = malloc(frame.linear);
	frame.rest = malloc(len - frame.linear);
	if (frame.linear)
		memcpy(frame.data, bytes, frame.linear);
	if (len > frame.linear)
		memcpy(frame.rest, bytes + frame.linear, len - frame.linear);
}

static void drop_frame(void)
{
	free(frame.data);
	free(frame.rest);
}

static inline uint8_t *frame_byte(size_t offset)
{
	REQUIRE(offset < frame.len);
	return offset < frame.linear ? frame.data + offset : frame.rest + offset - frame.linear;
}

/* As the kernel's helpers: all of it or nothing. */
static inline long copy_from_frame(size_t offset, void *buffer, size_t len)
{
	size_t i;

	if (!len || offset > frame.len || len > frame.len - offset)
		return -22;
	for (i = 0; i < len; i++)
		((uint8_t *)buffer)[i] = *frame_byte(offset + i);
	return 0;
}

static inline long copy_to_frame(size_t offset, const void *buffer, size_t len)
{
	size_t i;

	if (!len || offset > frame.len || len > frame.len - offset)
		return -22;
	for (i = 0; i < len; i++)
		*frame_byte(offset + i) = ((const uint8_t *)buffer)[i];
	return 0;
}

#endif
