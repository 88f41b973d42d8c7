// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Many threads change memory and look it up in two caches that are kept as
 * libfabric keeps its own, for five seconds.  A range is changed and looked up by
 * one thread, so that what is stale is certain; the caches, the lock, the plug-in
 * and the kernel are everyone's.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "host.h"
#include "memory.h"
#include "tap.h"

enum { PAGE = 4096, THREADS = 4, RANGES = 16, DOMAINS = 2, SECONDS = 5 };

struct range {
	char *addr;
	size_t len;
	unsigned long changes;
	struct {
		bool cached;
		unsigned long changes;	/* when it was registered */
	} entry[DOMAINS];
};

static struct range ranges[THREADS * RANGES];
static unsigned long hits, misses, stale;

static void drop(const void *addr, size_t len)
{
	for (int n = 0; n < THREADS * RANGES; n++) {
		struct range *range = &ranges[n];

		if (range->addr < (const char *)addr + len &&
		    (const char *)addr < range->addr + range->len)
			for (int domain = 0; domain < DOMAINS; domain++)
				range->entry[domain].cached = false;
	}
}

static void look_up(struct range *range, int domain)
{
	unsigned long registered = range->changes;

	pthread_mutex_lock(&host_lock);
	if (range->entry[domain].cached && host_locked_valid(range->addr, range->len)) {
		hits++;
		stale += range->entry[domain].changes != range->changes;
		pthread_mutex_unlock(&host_lock);
		return;
	}
	range->entry[domain].cached = false;
	misses++;
	pthread_mutex_unlock(&host_lock);
	/* Here libfabric registers. */
	sched_yield();
	pthread_mutex_lock(&host_lock);
	range->entry[domain].changes = registered;
	range->entry[domain].cached = !host_locked_subscribe(range->addr, range->len);
	pthread_mutex_unlock(&host_lock);
}

static void *work(void *context)
{
	struct range *mine = context;
	unsigned int random = (unsigned int)(size_t)context;
	time_t end = time(NULL) + SECONDS;

	while (time(NULL) < end) {
		struct range *range = &mine[rand_r(&random) % RANGES];

		if (rand_r(&random) % 8) {
			look_up(range, rand_r(&random) % DOMAINS);
		} else {
			remap(range->addr + rand_r(&random) % (range->len / PAGE) * PAGE, PAGE);
			range->changes++;
		}
	}
	return NULL;
}

static void no_hit_is_stale(void)
{
	pthread_t threads[THREADS];

	for (int n = 0; n < THREADS * RANGES; n++) {
		struct range *range = &ranges[n];

		range->len = (size_t)(1 + n % 4) * PAGE;
		range->addr = map(range->len);
	}
	host_notified = drop;
	for (int n = 0; n < THREADS; n++)
		if (pthread_create(&threads[n], NULL, work, &ranges[n * RANGES]))
			err(1, "no thread");
	for (int n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
	host_notified = NULL;
	printf("# %lu hits, %lu misses, libfabric was told %lu times\n", hits, misses,
	       host_notifications);
	EXPECT_EQ(stale, 0);
	/* Or the test shows nothing. */
	EXPECT(hits > misses / 10);
	EXPECT(misses > 100);
}

int main(void)
{
	PLAN(1);
	host_load();
	RUN(no_hit_is_stale);
	return tap_any_failed;
}
