/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Which parts of large noted ranges were invalidated, and when: VERIFY looks
 * at these and not at the rest, so that its cost is that of the change.
 *
 * Invalidations are noted here rather than in the ranges: one of them may
 * overlap any number of ranges, and must not pay for each of them.
 */
#ifndef _UMMUNOTIFY_TOUCHED_H
#define _UMMUNOTIFY_TOUCHED_H

#include "trees.h"

/* Memory is noted in chunks of 2 MiB, aligned as huge pages are. */
#ifndef UMN_CHUNK_SHIFT
#define UMN_CHUNK_SHIFT		21
#endif

/* Places that are told apart; if more are touched, the oldest is forgotten. */
#ifndef UMN_TOUCHES
#define UMN_TOUCHES		128
#endif

/**
 * struct umn_note - a noted range
 * @span: its pages
 * @since: what was touched until then is known to have its pages
 * @ignore: the filterable kinds that it ignores, as a tree's number
 */
struct umn_note {
	struct interval_tree_node span;
	u64			since;
	u8			ignore;
};

/**
 * struct umn_touch - an invalidated place, or neighbours of it
 * @first: first chunk
 * @last: last chunk
 * @seq: when it was last touched
 * @kinds: UMMUNOTIFY_KIND_* by which it was
 */
struct umn_touch {
	unsigned long		first;
	unsigned long		last;
	u64			seq;
	u8			kinds;
};

/**
 * struct umn_touched - what was touched below the noted ranges
 * @notes: the noted ranges
 * @touches: where and when, in no order
 * @nr: how many
 * @seq: number of the last invalidation that is noted here
 * @looked: what it was when frames were looked at last
 * @forgotten: places that were touched until then may have been forgotten
 */
struct umn_touched {
	struct umn_trees	notes;
	struct umn_touch	touches[UMN_TOUCHES];
	unsigned int		nr;
	u64			seq;
	u64			looked;
	u64			forgotten;
};

static inline unsigned long umn_chunk_of(unsigned long address)
{
	return address >> UMN_CHUNK_SHIFT;
}

void umn_touched_init(struct umn_touched *touched);
void umn_touched_add(struct umn_touched *touched, struct umn_note *note,
		     unsigned long start, unsigned long last, u8 ignore);
void umn_touched_remove(struct umn_touched *touched, struct umn_note *note);
void umn_touched_invalidate(struct umn_touched *touched, unsigned long start,
			    unsigned long last, u8 kind, bool split);
u64 umn_touched_look(struct umn_touched *touched);
bool umn_touched_next(const struct umn_touched *touched,
		      const struct umn_note *note, unsigned long *chunk);

#endif /* _UMMUNOTIFY_TOUCHED_H */
