/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Ways in which memory changes and a hook on libc's functions does not see it. */
#ifndef WAYS_H
#define WAYS_H

#include <stddef.h>

/* Memory that a way changes.  It lives as long as the process does, so that no
 * buffer is ever given the address of an earlier one. */
struct buffer {
	/* Where it is now: writable, and nobody else's. */
	void *addr;
	size_t len;
	/* What belongs to the way: a memory file, a loaded library. */
	int file;
	void *library;
};

struct way {
	const char *name;
	void (*make)(struct buffer *buffer);
	/* Gives the buffer other pages, full of zeros, at the same address. */
	void (*change)(struct buffer *buffer);
};

/* The first is the control: it changes nothing. */
extern const struct way ways[];
extern const size_t way_count;

/* A buffer of `len` bytes; it ends the process with a message if it cannot. */
struct buffer make_buffer(const struct way *way, size_t len);

#endif
