/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ways of changing memory that UCX's hooks do not see. */
#ifndef REGCACHE_UCX_WAYS_H
#define REGCACHE_UCX_WAYS_H

#include <stddef.h>

/* Memory that is sent from: `size` bytes at `data`, in `mapped` at `base`. */
struct buffer {
	char *data;
	size_t size;
	char *base;
	size_t mapped;
	int file;
	void *library;
};

struct way {
	const char *name;
	/* 0, or -1 with errno. */
	int (*make)(struct buffer *buffer);
	/* Other pages at the same address, which nobody has written to.  0, or
	 * -1 with errno: EOPNOTSUPP if this kernel has no such call. */
	int (*change)(struct buffer *buffer);
};

extern const struct way ways[];
extern const size_t ways_count;

const struct way *way_find(const char *name);

#endif
