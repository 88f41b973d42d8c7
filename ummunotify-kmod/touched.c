// SPDX-License-Identifier: GPL-2.0
/*
 * Which parts of large noted ranges were invalidated: see touched.h.
 *
 * Called with the lock of the address space held, and compiled outside the
 * kernel too, like core.c.
 *
 * Why no change is missed.  A range is added before its frames are looked at,
 * and an invalidation that moves pages is noted when it ends: so one that was in
 * flight when the range was added is noted too.  Of those that are in flight
 * when VERIFY begins it has waited for the end before it looks here; one that
 * begins later moves the generation.  An invalidation that moves no page is not
 * waited for, and noted when it starts.
 */
#include <linux/minmax.h>

#include "touched.h"

void umn_touched_init(struct umn_touched *touched)
{
	umn_trees_init(&touched->notes);
	touched->nr = 0;
	touched->seq = 0;
	touched->looked = 0;
	touched->forgotten = 0;
}

void umn_touched_add(struct umn_touched *touched, struct umn_note *note,
		     unsigned long start, unsigned long last, u8 ignore)
{
	note->span.start = start;
	note->span.last = last;
	note->since = umn_touched_look(touched);
	note->ignore = ignore & ~UMN_IGNORE_SPLITS;
	umn_trees_insert(&touched->notes, note->ignore, &note->span);
}

void umn_touched_remove(struct umn_touched *touched, struct umn_note *note)
{
	umn_trees_remove(&touched->notes, note->ignore, &note->span);
}

/*
 * From here on someone looks at frames: what is noted later is noted apart.
 * If the frames are those that were noted, this becomes umn_note.since.
 */
u64 umn_touched_look(struct umn_touched *touched)
{
	touched->looked = touched->seq;
	return touched->seq;
}

/*
 * May @new be noted in the place of @touch?  If nobody has looked since, what
 * overlaps or leaves no chunk between is one place.  Once someone has, what he
 * looked at is not to be looked at again, unless it was touched again.
 */
static bool is_one_place(const struct umn_touched *touched,
			 const struct umn_touch *touch,
			 const struct umn_touch *new)
{
	if (touch->seq > touched->looked)
		return touch->first <= new->last + 1 &&
		       new->first <= touch->last + 1;
	return new->first <= touch->first && touch->last <= new->last;
}

/* Notes an invalidation, if it touches a noted range that does not ignore it. */
void umn_touched_invalidate(struct umn_touched *touched, unsigned long start,
			    unsigned long last, u8 kind, bool split)
{
	struct umn_touch *oldest = NULL, new = {
		.first = umn_chunk_of(start),
		.last = umn_chunk_of(last),
		.kinds = kind,
	};
	u64 left = umn_trees_not_ignoring(&touched->notes,
					  umn_ignored(kind, split));
	unsigned int i;

	if (!umn_trees_next(&touched->notes, &left, start, last))
		return;

	new.seq = ++touched->seq;
	for (i = 0; i < touched->nr; i++) {
		struct umn_touch *touch = &touched->touches[i];

		if (is_one_place(touched, touch, &new)) {
			touch->first = min(touch->first, new.first);
			touch->last = max(touch->last, new.last);
			touch->seq = new.seq;
			touch->kinds |= new.kinds;
			return;
		}
		if (!oldest || touch->seq < oldest->seq)
			oldest = touch;
	}
	if (touched->nr < UMN_TOUCHES) {
		touched->touches[touched->nr++] = new;
		return;
	}
	touched->forgotten = oldest->seq;
	*oldest = new;
}

/*
 * Moves @chunk on to the first that was touched since @note has its pages for
 * certain; false if there is none.
 */
bool umn_touched_next(const struct umn_touched *touched,
		      const struct umn_note *note, unsigned long *chunk)
{
	unsigned int ignored = note->ignore << UMN_FILTER_SHIFT;
	unsigned long next = umn_chunk_of(note->span.last) + 1;
	unsigned int i;

	if (touched->forgotten > note->since)
		next = *chunk;
	for (i = 0; i < touched->nr; i++) {
		const struct umn_touch *touch = &touched->touches[i];

		if (touch->seq > note->since && touch->last >= *chunk &&
		    touch->kinds & ~ignored)
			next = min(next, max(touch->first, *chunk));
	}
	*chunk = next;
	return next <= umn_chunk_of(note->span.last);
}
