/* SPDX-License-Identifier: GPL-2.0 */
/* Who changes memory at random, and which ranges each of them watches. */
#ifndef PLAYERS_H
#define PLAYERS_H

#include "ledger.h"

#define PROCESSES	2
#define PLAYERS		3	/* threads of each */
#define CELLS		8	/* of each thread */
#define RANGES_OF_CELL	10
#define LISTENERS	5

/*
 * A watched range as its owner knows it.
 * @due: the change must hit it
 * @noted: NOTE knows its pages, which are pinned
 * @taken_back: VERIFY may have taken the event of the change back
 */
struct range {
	struct ummunotify_register_ioctl parm;
	bool watched;
	bool due, noted, taken_back;
	/* Before a change: */
	unsigned int events;
	__u64 slot;
};

struct player {
	unsigned int number;
	pthread_t thread;
	struct random random;
	struct actors actors;
	struct cell cells[CELLS];
	bool damaged[CELLS];
	struct range ranges[CELLS][RANGES_OF_CELL];
	struct listener own, own_negotiated;
	__u64 serial;
	unsigned long step;
};

/* Files that the threads of a process share. */
static struct listener shared, shared_negotiated, slept_on;

static inline struct listener *listener(struct player *p, unsigned int n)
{
	struct listener *all[LISTENERS] = {
		&shared, &shared_negotiated, &slept_on, &p->own,
		&p->own_negotiated,
	};

	return all[n % LISTENERS];
}

static inline unsigned int range_number(const struct player *p,
					unsigned int cell, unsigned int n)
{
	return (p->number % PLAYERS * CELLS + cell) * RANGES_OF_CELL + n;
}

static inline struct account *account_of(const struct player *p,
					 unsigned int cell, unsigned int n)
{
	return &accounts[range_number(p, cell, n)];
}

static inline bool overlaps(const struct range *range, const struct change *c)
{
	__u64 from = addr(change_start(c)), to = from + change_len(c);

	/* Whole pages are watched. */
	return range->watched && (range->parm.start & -PAGE) < to &&
	       range->parm.end > from;
}

static inline bool is_hit(const struct range *range, const struct change *c)
{
	__u32 kind = change_kind(c);

	return kind && overlaps(range, c) && !(range->parm.flags & kind);
}

static inline bool is_replaced(const struct range *range,
			       const struct change *c)
{
	return verbs[c->verb].replaces & c->cell.backing && overlaps(range, c);
}

#endif /* PLAYERS_H */
