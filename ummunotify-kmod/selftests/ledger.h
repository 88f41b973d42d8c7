/* SPDX-License-Identifier: GPL-2.0 */
/* What was heard of each watched range, whoever read it. */
#ifndef LEDGER_H
#define LEDGER_H

#include "soak.h"
#include "actors.h"

#include <stdarg.h>

/*
 * What all processes count.
 * @same: ranges that have the noted pages still, and VERIFY said so
 * @unsure: ranges that have them too, where VERIFY was not sure
 * @replaced: ranges that have them no more, and VERIFY did not say so
 * @batches: calls for many ranges
 */
struct tally {
	unsigned long changes, watched, due, heard, lost;
	unsigned long same, unsure, replaced, batches;
};

static struct tally *tally;

#define COUNT(name, n) __atomic_fetch_add(&tally->name, n, __ATOMIC_RELAXED)

/* Enough to see what is wrong. */
#define MOST_REPORTS	20

static inline void __attribute__((format(printf, 1, 2)))
report(const char *format, ...)
{
	char text[400];
	va_list args;
	int n;

	__atomic_store_n(&harness_failed, 1, __ATOMIC_RELAXED);
	if (COUNT(lost, 1) >= MOST_REPORTS)
		return;
	va_start(args, format);
	n = snprintf(text, sizeof(text), "# seed %llu: ",
		     (unsigned long long)soak_seed);
	n += vsnprintf(text + n, sizeof(text) - n - 1, format, args);
	va_end(args);
	dprintf(STDOUT_FILENO, "%s\n", text);
}

/* Of a process.  The rest of a cookie is a number that never comes again. */
#define RANGES		1024U
#define RANGE_BITS	16

/**
 * struct account - what was heard of a range since it was watched
 * @cookie: its cookie; 0: it is not watched
 * @events: how many
 * @kinds: by what
 * @whole: all of it was hit
 * @from: first byte that was hit
 * @to: first byte after those
 */
struct account {
	__u64 cookie;
	unsigned int events;
	__u32 kinds;
	bool whole;
	__u64 from, to;
};

static inline void account_forget(struct account *a)
{
	a->kinds = 0;
	a->whole = false;
	a->from = ALL_ONES;
	a->to = 0;
}

/**
 * struct listener - an open file, and who may read it
 * @d: the file
 * @features: what was negotiated
 * @slots: the generations of its ranges
 * @lock: held from reading events to entering them
 * @has_sleeper: a thread waits for events, which nobody else reads after a change
 * @sleeper: that thread
 * @stop: ends that thread
 */
struct listener {
	struct dev d;
	__u32 features;
	const volatile __u64 *slots;
	pthread_mutex_t lock;
	bool has_sleeper;
	pthread_t sleeper;
	struct gate stop;
};

/* Each range always has the same listener, whose lock protects its account. */
static struct account accounts[RANGES];

static inline bool listener_init(struct listener *l, __u32 features)
{
	memset(l, 0, sizeof(*l));
	pthread_mutex_init(&l->lock, NULL);
	l->features = features;
	if (!features)
		return dev_open(&l->d);
	if (!dev_open_with(&l->d, features, RANGES))
		return false;
	l->slots = map_slots(l->d.fd, RANGES);
	return l->slots;
}

static inline void enter(const struct ummunotify_event *ev)
{
	unsigned int n = ev->user_cookie_counter & ((1U << RANGE_BITS) - 1);
	struct account *a = &accounts[n < RANGES ? n : 0];

	if (a->cookie != ev->user_cookie_counter) {
		report("an event of cookie %#llx, which is not watched",
		       (unsigned long long)ev->user_cookie_counter);
		return;
	}
	a->events++;
	a->kinds |= kinds_of(ev);
	if (!(ev->flags & UMMUNOTIFY_EVENT_FLAG_HINT))
		a->whole = true;
	if (ev->hint_start < a->from)
		a->from = ev->hint_start;
	if (ev->hint_end > a->to)
		a->to = ev->hint_end;
}

/* Reads all there is; with the lock held. */
static inline void collect(struct listener *l)
{
	struct ummunotify_event ev[READ_MAX];
	long n, i;

	for (;;) {
		n = read_events(l->d.fd, ev, READ_MAX);
		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			report("read: %ld", n);
			return;
		}
		COUNT(heard, n);
		for (i = 0; i < n; i++) {
			if (ev[i].type == UMMUNOTIFY_EVENT_TYPE_LAST) {
				COUNT(heard, -1);
				return;
			}
			enter(&ev[i]);
		}
	}
}

static inline void *sleeper_main(void *arg)
{
	struct listener *l = arg;
	struct pollfd p[2] = {
		{ .fd = l->d.fd, .events = POLLIN },
		{ .fd = l->stop.fd[0], .events = POLLIN },
	};

	while (!(p[1].revents & POLLIN)) {
		if (poll(p, 2, -1) > 0 && p[0].revents) {
			pthread_mutex_lock(&l->lock);
			collect(l);
			pthread_mutex_unlock(&l->lock);
		}
	}
	return NULL;
}

static inline bool sleeper_start(struct listener *l)
{
	l->has_sleeper = true;
	return gate_init(&l->stop) &&
	       !pthread_create(&l->sleeper, NULL, sleeper_main, l);
}

static inline void sleeper_stop(struct listener *l)
{
	gate_open(&l->stop);
	pthread_join(l->sleeper, NULL);
}

#endif /* LEDGER_H */
