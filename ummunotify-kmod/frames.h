/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The page frames of a range, as keyed hashes.
 */
#ifndef _UMMUNOTIFY_FRAMES_H
#define _UMMUNOTIFY_FRAMES_H

#include <linux/refcount.h>

#include "file.h"

/**
 * struct umn_frames - the page frames of a large range, chunk by chunk
 * @note: the range
 * @users: the region, and whoever looks at it without the lock
 * @charge: what the user pays for it, in ranges
 * @digests: of each chunk; they do not change once a region has them
 */
struct umn_frames {
	struct umn_note		note;
	refcount_t		users;
	unsigned int		charge;
	u64			digests[];
};

static inline struct umn_frames *umn_frames_of(struct umn_note *note)
{
	return container_of(note, struct umn_frames, note);
}

int umn_digest(unsigned long start, unsigned long last, u64 *digest);

bool umn_frames_are_many(unsigned long start, unsigned long last);
struct umn_frames *umn_frames_note(struct umn_file *file, unsigned long start,
				   unsigned long last, u8 ignore);
int umn_frames_compare(struct umn_space *space, struct umn_frames *frames,
		       u64 *since);
void umn_frames_drop(struct umn_file *file, struct umn_frames *frames);
void umn_frames_put(struct umn_file *file, struct umn_frames *frames);

#endif /* _UMMUNOTIFY_FRAMES_H */
