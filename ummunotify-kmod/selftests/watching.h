/* SPDX-License-Identifier: GPL-2.0 */
/* Ranges are watched, and are not any more: one by one, and in batches. */
#ifndef WATCHING_H
#define WATCHING_H

#include "players.h"

static inline __u32 random_flags(struct random *r, const struct listener *l)
{
	__u32 flags = 0;

	if (!l->features)
		return 0;
	if (!random_one_in(r, 4))
		flags |= UMMUNOTIFY_REGISTER_SLOT;
	if (random_one_in(r, 2))
		flags |= random_next(r) & UMMUNOTIFY_KINDS_FILTERABLE;
	if (random_one_in(r, 8))
		flags |= UMMUNOTIFY_REGISTER_ONESHOT;
	if (random_one_in(r, 4))
		flags |= UMMUNOTIFY_REGISTER_NOWAKE;
	return flags;
}

static inline bool is_oneshot(const struct range *range)
{
	return range->parm.flags & UMMUNOTIFY_REGISTER_ONESHOT;
}

/* From here on its events are entered. */
static inline void open_account(struct player *p, unsigned int cell,
				unsigned int n)
{
	unsigned int number = range_number(p, cell, n), from, len;
	struct range *range = &p->ranges[cell][n];
	size_t bytes = cell_bytes(&p->cells[cell]);
	struct listener *l = listener(p, n);
	struct account *a = &accounts[number];

	/* Any bytes of the cell, at least one. */
	from = random_below(&p->random, bytes);
	len = 1 + random_below(&p->random, bytes - from);
	range->parm = (struct ummunotify_register_ioctl){
		.start = addr(p->cells[cell].p) + from,
		.end = addr(p->cells[cell].p) + from + len,
		.user_cookie = ++p->serial << RANGE_BITS | number,
		.flags = random_flags(&p->random, l),
	};
	if (range->parm.flags & UMMUNOTIFY_REGISTER_SLOT)
		range->parm.reserved = number;

	pthread_mutex_lock(&l->lock);
	a->cookie = range->parm.user_cookie;
	a->events = 0;
	account_forget(a);
	pthread_mutex_unlock(&l->lock);
	range->watched = true;
	range->noted = false;
}

static inline void start_watching(struct player *p, unsigned int cell,
				  unsigned int n)
{
	open_account(p, cell, n);
	if (ioctl(listener(p, n)->d.fd, UMMUNOTIFY_REGISTER_REGION,
		  &p->ranges[cell][n].parm))
		report("REGISTER: error %d", errno);
}

static inline void stop_watching(struct player *p, unsigned int cell,
				 unsigned int n)
{
	struct account *a = account_of(p, cell, n);
	struct range *range = &p->ranges[cell][n];
	bool alone = random_one_in(&p->random, 2);
	struct listener *l = listener(p, n);
	long ret;

	if (alone)
		pthread_mutex_lock(&l->lock);
	ret = unwatch(l->d.fd, range->parm.user_cookie);
	/* Somebody else may have been reading at the time. */
	if (!alone)
		pthread_mutex_lock(&l->lock);
	if (is_oneshot(range) && ret == -EINVAL ? a->events != 1 :
	    ret != (l->features ? (long)a->events : 0))
		report("UNREGISTER: %ld after %u events", ret, a->events);
	a->cookie = 0;
	pthread_mutex_unlock(&l->lock);
	range->watched = false;
}

/* All ranges of a thread with one listener. */
#define MOST_OF_LISTENER (CELLS * RANGES_OF_CELL / LISTENERS)

static inline void must_be_done(const char *what, long ret, unsigned int count,
				const struct ummunotify_batch *b)
{
	if (ret || b->done != count || b->error)
		report("%s: %ld, %u of %u done, error %u", what, ret, b->done,
		       count, b->error);
}

static inline void start_watching_all(struct player *p, unsigned int which)
{
	struct ummunotify_register_ioctl parm[MOST_OF_LISTENER];
	unsigned int cell, n, count = 0;
	struct ummunotify_batch b;

	for (cell = 0; cell < CELLS; cell++) {
		for (n = which; n < RANGES_OF_CELL; n += LISTENERS) {
			if (p->ranges[cell][n].watched)
				continue;
			open_account(p, cell, n);
			parm[count++] = p->ranges[cell][n].parm;
		}
	}
	must_be_done("REGISTER_BATCH", batch(listener(p, which)->d.fd,
		     UMMUNOTIFY_REGISTER_BATCH, parm, count, &b), count, &b);
}

/* Those for one event may be over already, where that ends a batch. */
static inline void stop_watching_all(struct player *p, unsigned int which)
{
	struct listener *l = listener(p, which);
	bool all = l == &p->own_negotiated && random_one_in(&p->random, 2);
	unsigned int cell, n, count = 0;
	__u64 cookie[MOST_OF_LISTENER];
	struct ummunotify_batch b;

	for (cell = 0; cell < CELLS; cell++) {
		for (n = which; n < RANGES_OF_CELL; n += LISTENERS) {
			struct range *range = &p->ranges[cell][n];

			if (range->watched && (all || !is_oneshot(range)))
				cookie[count++] = range->parm.user_cookie;
		}
	}
	if (!all)
		must_be_done("UNREGISTER_BATCH", batch(l->d.fd,
			     UMMUNOTIFY_UNREGISTER_BATCH, cookie, count, &b),
			     count, &b);
	else if (unwatch_all(l->d.fd))
		report("UNREGISTER_ALL: error %d", errno);
	/* Who was reading at the time has entered it once this is locked. */
	pthread_mutex_lock(&l->lock);
	for (cell = 0; cell < CELLS; cell++) {
		for (n = which; n < RANGES_OF_CELL; n += LISTENERS) {
			struct range *range = &p->ranges[cell][n];

			if (!all && is_oneshot(range))
				continue;
			account_of(p, cell, n)->cookie = 0;
			range->watched = false;
		}
	}
	pthread_mutex_unlock(&l->lock);
}

#endif /* WATCHING_H */
