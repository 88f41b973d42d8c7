/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The monitor alone, fed by hand. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static struct regcache_monitor *manual(void)
{
	struct regcache_monitor_options options = REGCACHE_MONITOR_OPTIONS_INIT;
	struct regcache_monitor *monitor = NULL;

	options.monitor = REGCACHE_MONITOR_MANUAL;
	EXPECT_EQ(regcache_monitor_open(&options, &monitor), 0);
	if (!monitor)
		exit(1);
	return monitor;
}

struct heard {
	int ranges, all;
	const void *addr;
	size_t len;
	struct regcache_monitor *monitor;
	int again;
};

static void hear(void *context, const struct regcache_event *event)
{
	struct heard *heard = (struct heard *)context;

	heard->ranges += event->type == REGCACHE_EVENT_RANGE;
	heard->all += event->type == REGCACHE_EVENT_ALL;
	heard->addr = event->addr;
	heard->len = event->len;
}

static void what_is_fed_is_told(void)
{
	struct regcache_monitor *monitor = manual();
	struct heard heard = { 0 };

	EXPECT_EQ(regcache_monitor_changed(monitor), 0);
	EXPECT_EQ(regcache_monitor_drain(monitor, hear, &heard), 0);
	EXPECT_EQ(regcache_monitor_notify(monitor, at(3), 10), 0);
	EXPECT_EQ(regcache_monitor_changed(monitor), 1);
	EXPECT_EQ(regcache_monitor_drain(monitor, hear, &heard), 1);
	EXPECT_EQ(heard.ranges, 1);
	EXPECT(heard.addr == at(3));
	EXPECT_EQ(heard.len, 10);
	EXPECT_EQ(regcache_monitor_changed(monitor), 0);
	EXPECT_EQ(regcache_monitor_flush(monitor), 0);
	EXPECT_EQ(regcache_monitor_changed(monitor), 1);
	EXPECT_EQ(regcache_monitor_drain(monitor, hear, &heard), 1);
	EXPECT_EQ(heard.all, 1);
	for (size_t n = 0; n < 10000; n++)
		EXPECT_EQ(regcache_monitor_notify(monitor, at(2 * n), 10), 0);
	EXPECT_EQ(regcache_monitor_drain(monitor, hear, &heard), 1);
	EXPECT_EQ(heard.all, 2);
	EXPECT_EQ(regcache_monitor_changed(monitor), 0);
	EXPECT_EQ(regcache_monitor_watch(monitor, at(1), 1, 7, 0), 0);
	EXPECT_EQ(regcache_monitor_unwatch(monitor, 7), 0);
	EXPECT_FAILS(regcache_monitor_watch(monitor, at(1), 0, 7, 0), EINVAL);
	EXPECT_FAILS(regcache_monitor_watch(monitor, at(1), 1, 7, 1u << 9), EINVAL);
	EXPECT_FAILS(regcache_monitor_fd(monitor), EOPNOTSUPP);
	EXPECT_EQ(regcache_monitor_close(monitor), 0);
}

static void call_back(void *context, const struct regcache_event *event)
{
	struct heard *heard = (struct heard *)context;

	(void)event;
	EXPECT_EQ(regcache_monitor_changed(heard->monitor), 1);
	EXPECT_FAILS(regcache_monitor_drain(heard->monitor, call_back, heard), EDEADLK);
	EXPECT_FAILS(regcache_monitor_close(heard->monitor), EDEADLK);
	if (heard->again-- > 0)
		EXPECT_EQ(regcache_monitor_notify(heard->monitor, at(1), 1), 0);
}

static void a_sink_may_feed(void)
{
	struct heard heard = { 0 };

	heard.monitor = manual();
	heard.again = 1;
	EXPECT_EQ(regcache_monitor_notify(heard.monitor, at(1), 1), 0);
	EXPECT_EQ(regcache_monitor_drain(heard.monitor, call_back, &heard), 1);
	EXPECT_EQ(regcache_monitor_changed(heard.monitor), 1);
	EXPECT_EQ(regcache_monitor_drain(heard.monitor, call_back, &heard), 1);
	EXPECT_EQ(regcache_monitor_changed(heard.monitor), 0);
	EXPECT_EQ(regcache_monitor_close(heard.monitor), 0);
}

/* A child trusts nothing of its parent's. */
static void a_child_is_refused(void)
{
	struct regcache_monitor *monitor = manual();
	struct heard heard = { 0 };
	int status = -1;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		EXPECT_EQ(regcache_monitor_changed(monitor), 1);
		EXPECT_FAILS(regcache_monitor_drain(monitor, hear, &heard), EPERM);
		EXPECT_FAILS(regcache_monitor_notify(monitor, at(1), 1), EPERM);
		fflush(stdout);
		_exit(check_failed);
	}
	EXPECT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(regcache_monitor_close(monitor), 0);
}

/*
 * Who finds nothing changed has the sink's word that what was announced before
 * is marked, whichever thread drained.
 */
enum { ROUNDS = 5000 };
static struct regcache_monitor *shared;
static int begun, announced, marked;

static void mark(void *context, const struct regcache_event *event)
{
	(void)context;
	if (event->type == REGCACHE_EVENT_RANGE)
		__atomic_store_n(&marked, (int)((uintptr_t)event->addr / PAGE), __ATOMIC_RELAXED);
	else /* Of all that waits, also of what is not called announced yet. */
		__atomic_store_n(&marked, __atomic_load_n(&begun, __ATOMIC_ACQUIRE),
				 __ATOMIC_RELAXED);
}

static void *look(void *context)
{
	int before;

	(void)context;
	do {
		before = __atomic_load_n(&announced, __ATOMIC_ACQUIRE);
		if (regcache_monitor_changed(shared))
			EXPECT(regcache_monitor_drain(shared, mark, NULL) >= 0);
		EXPECT(__atomic_load_n(&marked, __ATOMIC_RELAXED) >= before);
	} while (before < ROUNDS);
	return NULL;
}

static void no_news_is_good_news(void)
{
	pthread_t threads[2];

	shared = manual();
	for (int n = 0; n < 2; n++)
		EXPECT_EQ(pthread_create(&threads[n], NULL, look, NULL), 0);
	for (int n = 1; n <= ROUNDS; n++) {
		__atomic_store_n(&begun, n, __ATOMIC_RELEASE);
		EXPECT_EQ(regcache_monitor_notify(shared, (void *)(n * PAGE), 1), 0);
		__atomic_store_n(&announced, n, __ATOMIC_RELEASE);
	}
	for (int n = 0; n < 2; n++)
		EXPECT_EQ(pthread_join(threads[n], NULL), 0);
	EXPECT_EQ(regcache_monitor_close(shared), 0);
}

int main(void)
{
	PLAN(4);
	RUN(what_is_fed_is_told);
	RUN(a_sink_may_feed);
	RUN(a_child_is_refused);
	RUN(no_news_is_good_news);
	DONE();
}
