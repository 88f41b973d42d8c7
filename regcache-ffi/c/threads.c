/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Threads that look up, put each other's tickets, put them twice, and invalidate. */
#include <pthread.h>
#include <sched.h>

#include "check.h"

enum { THREADS = 4, ROUNDS = 4000, PLACES = 16, MAILBOXES = 64 };

static struct fake fake;
static struct regcache *cache;
static pthread_key_t key;
static int succeeded, completions, invalidations;

/* Tickets on their way from one thread to another. */
static struct {
	int full;	/* 0 empty, 1 full, 2 being used */
	struct regcache_ticket ticket;
} mailboxes[MAILBOXES];

static void complete(void *context)
{
	(void)context;
	__atomic_add_fetch(&completions, 1, __ATOMIC_RELAXED);
}

static int take(int n, int from, int to)
{
	return __atomic_compare_exchange_n(&mailboxes[n].full, &from, to, 0, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

static void *work(void *seed)
{
	unsigned int random = (unsigned int)(uintptr_t)seed;

	for (int n = 0; n < ROUNDS; n++) {
		struct regcache_ticket ticket;
		int box;

		random = random * 1103515245 + 12345;
		box = (int)(random >> 16) % MAILBOXES;
		EXPECT_EQ(regcache_get(cache, at(random >> 8 & (PLACES - 1)), 1, 0, &ticket), 0);
		EXPECT(((struct payload *)ticket.region->payload)->number == ticket.region->lkey);
		if (take(box, 0, 2)) {
			mailboxes[box].ticket = ticket;
			__atomic_store_n(&mailboxes[box].full, 1, __ATOMIC_RELEASE);
		} else {
			EXPECT_EQ(regcache_put(cache, ticket), 0);
			EXPECT_EQ(regcache_put(cache, ticket), -EINVAL);
		}
		if (take((box + 1) % MAILBOXES, 1, 2)) {
			ticket = mailboxes[(box + 1) % MAILBOXES].ticket;
			__atomic_store_n(&mailboxes[(box + 1) % MAILBOXES].full, 0, __ATOMIC_RELEASE);
			EXPECT(((struct payload *)ticket.region->payload)->fake == &fake);
			EXPECT_EQ(regcache_put(cache, ticket), 0);
		}
		if (n % 100 == 99) {
			__atomic_add_fetch(&invalidations, 1, __ATOMIC_RELAXED);
			EXPECT_EQ(regcache_invalidate(cache, at(random >> 8 & (PLACES - 1)), 1, complete,
						      NULL), 0);
		}
	}
	pthread_setspecific(key, &fake);
	return NULL;
}

/* The last thing that a thread does, when its own memory is gone. */
static void farewell(void *context)
{
	struct regcache_ticket ticket;

	(void)context;
	EXPECT_EQ(regcache_get(cache, at(3), 1, 0, &ticket), 0);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
}

static void run(void)
{
	pthread_t threads[THREADS];

	cache = fake_cache(&fake, 8);
	EXPECT_EQ(pthread_key_create(&key, farewell), 0);
	for (int round = 0; round < 3; round++) {
		for (uintptr_t n = 0; n < THREADS; n++)
			EXPECT_EQ(pthread_create(&threads[n], NULL, work, (void *)(n + 1)), 0);
		for (int n = 0; n < THREADS; n++)
			EXPECT_EQ(pthread_join(threads[n], NULL), 0);
	}
	for (int n = 0; n < MAILBOXES; n++)
		if (mailboxes[n].full)
			EXPECT_EQ(regcache_put(cache, mailboxes[n].ticket), 0);
	EXPECT_EQ(regcache_flush(cache), 0);
	EXPECT_EQ(completions, invalidations);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	EXPECT_EQ(fake.registered, 0);
}

/* Two threads put the same ticket at the same time: one succeeds. */
enum { TIMES = 3000 };
static struct regcache_ticket contested;
static int turn, answered;

static void put_it(void)
{
	if (regcache_put(cache, contested) == 0)
		__atomic_add_fetch(&succeeded, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&answered, 1, __ATOMIC_RELEASE);
}

static void wait_for(int *number, int value)
{
	for (int n = 0; __atomic_load_n(number, __ATOMIC_ACQUIRE) != value; n++)
		if (n > 1000)
			sched_yield();
}

static void *rival(void *context)
{
	(void)context;
	for (int n = 1; n <= TIMES; n++) {
		wait_for(&turn, n);
		put_it();
	}
	return NULL;
}

static void one_of_two_puts_succeeds(void)
{
	pthread_t thread;

	cache = fake_cache(&fake, 8);
	EXPECT_EQ(pthread_create(&thread, NULL, rival, NULL), 0);
	for (int n = 1; n <= TIMES; n++) {
		EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &contested), 0);
		__atomic_store_n(&turn, n, __ATOMIC_RELEASE);
		put_it();
		wait_for(&answered, 2 * n);
	}
	EXPECT_EQ(pthread_join(thread, NULL), 0);
	EXPECT_EQ(succeeded, TIMES);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

int main(void)
{
	PLAN(2);
	RUN(run);
	RUN(one_of_two_puts_succeeds);
	DONE();
}
