/* SPDX-License-Identifier: GPL-2.0 */
/* Pinned pages are noted before a change, and compared after it. */
#ifndef NOTING_H
#define NOTING_H

#include "watching.h"

/*
 * Pins a cell for a change, and notes the ranges there: returns what closing
 * unpins, or -1.  The pages of a private file are not those that a pin finds:
 * it breaks the copy on write that the change is about.
 */
static inline int pin_and_note(struct player *p, unsigned int cell)
{
	const struct cell *c = &p->cells[cell];
	unsigned int n;
	int pinned;

	if (c->backing == PRIVATE || !p->actors.has_ring)
		return -1;
	pinned = pin(c->p, cell_bytes(c));
	if (pinned < 0) {
		report("a cell cannot be pinned: error %d", -pinned);
		return -1;
	}
	for (n = 0; n < RANGES_OF_CELL; n++) {
		struct range *range = &p->ranges[cell][n];
		struct listener *l = listener(p, n);
		long ret;

		if (!range->watched || is_oneshot(range) || !l->features)
			continue;
		ret = note(l->d.fd, range->parm.user_cookie);
		if (ret)
			report("NOTE: %ld", ret);
		range->noted = !ret;
	}
	return pinned;
}

/*
 * The cell is pinned still: pages that were replaced never pass for those that
 * were noted.  Pages that were not do, but for the few times that VERIFY cannot
 * wait for something else.
 */
static inline void verify_noted(struct player *p, unsigned int cell,
				const struct change *c)
{
	unsigned int n;

	for (n = 0; n < RANGES_OF_CELL; n++) {
		struct range *range = &p->ranges[cell][n];
		long ret;

		if (!range->noted)
			continue;
		range->noted = false;
		range->taken_back = true;
		ret = verify(listener(p, n)->d.fd, range->parm.user_cookie);
		if (ret < 0)
			report("VERIFY: %ld", ret);
		else if (is_replaced(range, c) && ret)
			report("thread %u, step %lu: VERIFY takes other pages for the same: %s (backing %u) by %s",
			       p->number, p->step, verbs[c->verb].name,
			       c->cell.backing, actor_name(c->actor));
		else if (is_replaced(range, c))
			COUNT(replaced, 1);
		else if (ret)
			COUNT(same, 1);
		else
			COUNT(unsure, 1);
	}
}

#endif /* NOTING_H */
