// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "watches.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <search.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <unistd.h>

struct watch {
	const void *addr;
	size_t len;
	size_t entries;		/* at most so many registrations are on it */
	size_t renewed;		/* of those, subscribed while it was purged */
	bool stale;		/* it has changed: they may be of old pages */
	bool purging;		/* libfabric is being told to drop them */
	bool expired;		/* to be forgotten as soon as it has none */
	bool doubtful;		/* it is in that list */
	TAILQ_ENTRY(watch) by_age;
	TAILQ_ENTRY(watch) in_doubt;
};

TAILQ_HEAD(watch_list, watch);

static struct {
	pthread_mutex_t lock;	/* all that follows, and each drain */
	struct regcache_monitor *source;
	pid_t process;
	int wake;		/* an eventfd: the list of doubtful ones grew */
	bool grew;
	bool lost;		/* a drain has failed: nothing is known any more */
	size_t most;
	size_t count;
	size_t doubts;		/* in the list; also read without the lock */
	void *by_range;		/* of tsearch(3) */
	struct watch_list by_age;
	struct watch_list doubtful;	/* stale with entries, or purging */
} self = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int compare(const void *left, const void *right)
{
	const struct watch *a = left, *b = right;

	if (a->addr != b->addr)
		return a->addr < b->addr ? -1 : 1;
	return (a->len > b->len) - (a->len < b->len);
}

static struct watch *find(const void *addr, size_t len)
{
	const struct watch key = { .addr = addr, .len = len };
	struct watch **found = tfind(&key, &self.by_range, compare);

	return found ? *found : NULL;
}

static void doubt(struct watch *watch)
{
	if (watch->doubtful)
		return;
	watch->doubtful = true;
	TAILQ_INSERT_TAIL(&self.doubtful, watch, in_doubt);
	__atomic_store_n(&self.doubts, self.doubts + 1, __ATOMIC_RELAXED);
	self.grew = true;
}

static void trust(struct watch *watch)
{
	if (!watch->doubtful)
		return;
	watch->doubtful = false;
	TAILQ_REMOVE(&self.doubtful, watch, in_doubt);
	__atomic_store_n(&self.doubts, self.doubts - 1, __ATOMIC_RELAXED);
}

static void mark(struct watch *watch)
{
	watch->stale = true;
	if (watch->entries)
		doubt(watch);
}

static void forget(struct watch *watch)
{
	trust(watch);
	regcache_monitor_unwatch(self.source, (uintptr_t)watch);
	tdelete(watch, &self.by_range, compare);
	TAILQ_REMOVE(&self.by_age, watch, by_age);
	self.count--;
	free(watch);
}

static void hear(void *context, const struct regcache_event *event)
{
	struct watch *watch;

	(void)context;
	if (event->type == REGCACHE_EVENT_WATCH) {
		mark((struct watch *)(uintptr_t)event->cookie);
		return;
	}
	TAILQ_FOREACH(watch, &self.by_age, by_age)
		mark(watch);
}

static void drain(void)
{
	if (!self.lost && regcache_monitor_changed(self.source) &&
	    regcache_monitor_drain(self.source, hear, NULL) < 0)
		self.lost = true;
}

/* The program may close a descriptor that is not its own, and its next file
 * then has the number.  Ours is told by the signal of its F_SETSIG, which is
 * never sent: nothing sets O_ASYNC. */
#define MARK	SIGRTMAX

/* How long the thread waits where it cannot be woken, and at most where it can:
 * the eventfd may be closed while it waits. */
#define PAUSE_MS	100
#define MOST_MS		1000

static bool wake_is_ours(void)
{
	return fcntl(self.wake, F_GETSIG) == MARK;
}

static void unlock(void)
{
	bool wake = self.grew && self.doubts;

	self.grew = false;
	pthread_mutex_unlock(&self.lock);
	if (wake && wake_is_ours())
		eventfd_write(self.wake, 1);
}

/* Makes room for a new watch, at once or a little later. */
static void expire_oldest(void)
{
	struct watch *watch = TAILQ_FIRST(&self.by_age);

	if (!watch)
		return;
	if (!watch->entries && !watch->purging) {
		forget(watch);
		return;
	}
	/* Its registrations may have been evicted long ago, and may not. */
	TAILQ_REMOVE(&self.by_age, watch, by_age);
	TAILQ_INSERT_TAIL(&self.by_age, watch, by_age);
	watch->expired = true;
	mark(watch);
}

static int add(const void *addr, size_t len, struct watch **added)
{
	struct watch *watch;
	int ret;

	/* So many have expired, and libfabric is being told. */
	if (self.count >= 2 * self.most)
		return -ENOSPC;
	if (self.count >= self.most)
		expire_oldest();
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return -ENOMEM;
	watch->addr = addr;
	watch->len = len;
	if (!tsearch(watch, &self.by_range, compare)) {
		free(watch);
		return -ENOMEM;
	}
	TAILQ_INSERT_TAIL(&self.by_age, watch, by_age);
	self.count++;
	ret = regcache_monitor_watch(self.source, addr, len, (uintptr_t)watch, 0);
	if (ret) {
		forget(watch);
		expire_oldest();
		return ret;
	}
	*added = watch;
	return 0;
}

int watches_open(struct regcache_monitor *source, size_t most)
{
	int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	if (wake < 0)
		return -errno;
	fcntl(wake, F_SETSIG, MARK);
	/* What a child has from its parent may be locked and half changed. */
	if (self.source && wake_is_ours())
		close(self.wake);
	pthread_mutex_init(&self.lock, NULL);
	self.source = source;
	self.process = getpid();
	self.wake = wake;
	self.grew = self.lost = false;
	self.most = most;
	self.count = self.doubts = 0;
	self.by_range = NULL;
	TAILQ_INIT(&self.by_age);
	TAILQ_INIT(&self.doubtful);
	return 0;
}

void watches_close(void)
{
	watches_clear();
	regcache_monitor_close(self.source);
	if (wake_is_ours())
		close(self.wake);
	self.source = NULL;
}

bool watches_are_open(void)
{
	return self.source && self.process == getpid();
}

int watches_subscribe(const void *addr, size_t len)
{
	struct watch *watch;
	int ret = 0;

	if (!watches_are_open())
		return -EPERM;
	pthread_mutex_lock(&self.lock);
	/* What has changed up to now may have changed since it was pinned. */
	drain();
	watch = find(addr, len);
	if (self.lost)
		ret = -EIO;
	else if (!watch)
		ret = add(addr, len, &watch);
	if (!ret) {
		watch->entries++;
		watch->renewed += watch->purging;
		watch->expired = false;
		if (watch->stale)
			doubt(watch);
	}
	unlock();
	return ret;
}

void watches_unsubscribe(const void *addr, size_t len)
{
	struct watch *watch;

	if (!watches_are_open())
		return;
	pthread_mutex_lock(&self.lock);
	watch = find(addr, len);
	/* None is left to be taken off if valid() refused the only one. */
	if (watch && watch->entries && !--watch->entries && !watch->purging)
		trust(watch);
	unlock();
}

/* What there is to say when something has changed. */
static bool is_valid(const void *addr, size_t len)
{
	struct watch *watch;
	bool valid;

	/* A child has no news, and a lock that may never be free. */
	if (!watches_are_open())
		return false;
	pthread_mutex_lock(&self.lock);
	drain();
	watch = self.lost ? NULL : find(addr, len);
	valid = watch && !watch->stale && !watch->purging;
	if (!valid && watch && watch->entries == 1 && !watch->purging) {
		/* It is the one that libfabric asks about, and so drops.  What
		 * it pins next is pinned later than all that was drained. */
		watch->entries = 0;
		watch->stale = false;
		trust(watch);
	}
	unlock();
	return valid;
}

bool watches_valid(const void *addr, size_t len)
{
	/* In this order: who drains has doubts before nothing is new. */
	if (!regcache_monitor_changed(self.source) &&
	    !__atomic_load_n(&self.doubts, __ATOMIC_RELAXED))
		return true;
	return is_valid(addr, len);
}

void watches_clear(void)
{
	struct watch *watch, *next;

	if (!watches_are_open())
		return;
	pthread_mutex_lock(&self.lock);
	for (watch = TAILQ_FIRST(&self.by_age); watch; watch = next) {
		next = TAILQ_NEXT(watch, by_age);
		watch->entries = watch->renewed = 0;
		watch->expired = true;
		if (!watch->purging)
			forget(watch);
	}
	unlock();
}

void watches_wait(void)
{
	struct pollfd fds[] = {
		{ .fd = self.wake, .events = POLLIN },
		{ .fd = regcache_monitor_fd(self.source), .events = POLLIN },
	};
	bool lost = __atomic_load_n(&self.lost, __ATOMIC_RELAXED);
	eventfd_t woken;

	if (!wake_is_ours()) {
		poll(NULL, 0, PAUSE_MS);
		return;
	}
	/* News that cannot be drained would never let it wait. */
	if (poll(fds, lost ? 1 : 2, MOST_MS) <= 0)
		return;
	/* Either another thread has drained, or the number is another file's,
	 * which must not keep the thread busy. */
	if (!fds[0].revents && !regcache_monitor_changed(self.source))
		poll(fds, 1, PAUSE_MS);
	if (fds[0].revents && wake_is_ours())
		eventfd_read(self.wake, &woken);
}

void watches_settle(void (*notify)(const void *addr, size_t len))
{
	struct watch *watch;

	pthread_mutex_lock(&self.lock);
	drain();
	while ((watch = TAILQ_FIRST(&self.doubtful))) {
		watch->stale = false;
		watch->purging = true;
		watch->renewed = 0;
		pthread_mutex_unlock(&self.lock);
		notify(watch->addr, watch->len);
		pthread_mutex_lock(&self.lock);
		watch->purging = false;
		/* What was there when it began has gone.  What came meanwhile
		 * may have been dropped too, and may be as old. */
		watch->entries = watch->renewed;
		trust(watch);
		if (watch->entries)
			mark(watch);
		else if (watch->expired)
			forget(watch);
	}
	self.grew = false;
	pthread_mutex_unlock(&self.lock);
}
