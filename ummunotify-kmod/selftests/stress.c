// SPDX-License-Identifier: GPL-2.0
/* Many regions and many threads. */
#include "util.h"

#include <semaphore.h>

static void *map_at(char *p, size_t len)
{
	p = mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
		 MAP_FIXED, -1, 0);
	if (p != MAP_FAILED)
		memset(p, 1, len);
	return p;
}

static bool flag(bool *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static void flag_set(bool *p)
{
	__atomic_store_n(p, true, __ATOMIC_SEQ_CST);
}

/* One thread watches and reads, the other maps and unmaps, turn by turn. */
struct turns {
	struct dev d;
	char *p;
	sem_t armed, unmapped;
	int rounds;
};

static void *turns_watcher(void *arg)
{
	struct turns *t = arg;
	struct ummunotify_event ev[2];
	int i;

	for (i = 0; i < t->rounds; i++) {
		EXPECT_EQ(watch(t->d.fd, t->p, PAGE, i), 0);
		sem_post(&t->armed);
		while (sem_wait(&t->unmapped))
			;
		EXPECT_EQ(read_events(t->d.fd, ev, 2), 2);
		EXPECT_HINT(ev[0], (__u64)i, t->p, t->p + PAGE);
		EXPECT_LAST(ev[1], *t->d.gen);
		EXPECT_EQ(unwatch(t->d.fd, i), 0);
	}
	return NULL;
}

TEST(after_munmap_the_counter_has_moved)
{
	struct turns t = { .rounds = 400 };
	pthread_t thread;
	__u64 gen;
	int i;

	ASSERT(dev_open(&t.d));
	t.p = area(1);
	sem_init(&t.armed, 0, 0);
	sem_init(&t.unmapped, 0, 0);
	ASSERT_EQ(pthread_create(&thread, NULL, turns_watcher, &t), 0);
	for (i = 0; i < t.rounds; i++) {
		while (sem_wait(&t.armed))
			;
		gen = *t.d.gen;
		munmap(t.p, PAGE);
		EXPECT_EQ(*t.d.gen, gen + 1);
		/* Not watched any more once the other has taken its turn. */
		sem_post(&t.unmapped);
		if (i + 1 < t.rounds)
			ASSERT(map_at(t.p, PAGE) == t.p);
	}
	pthread_join(thread, NULL);
}

/*
 * What a cache does: while the counter is what LAST brought, nothing changed.
 * So after a munmap it must be something else, however the two interleave.
 */
struct cache {
	struct dev d;
	__u64 seen;
	bool stop;
};

static void *cache_reader(void *arg)
{
	struct cache *c = arg;
	struct ummunotify_event ev[2];
	long n;

	while (!flag(&c->stop)) {
		n = read_events(c->d.fd, ev, 2);
		if (n > 0 && ev[n - 1].type == UMMUNOTIFY_EVENT_TYPE_LAST)
			__atomic_store_n(&c->seen,
					 ev[n - 1].user_cookie_counter,
					 __ATOMIC_SEQ_CST);
	}
	return NULL;
}

TEST(a_munmap_is_never_overlooked)
{
	struct cache c = { 0 };
	char *p = area(4);
	pthread_t thread;
	__u64 seen;
	int i;

	ASSERT(dev_open(&c.d));
	ASSERT_EQ(watch(c.d.fd, p, PAGE, 1), 0);
	ASSERT_EQ(watch(c.d.fd, p, 4 * PAGE, 2), 0);
	ASSERT_EQ(pthread_create(&thread, NULL, cache_reader, &c), 0);
	for (i = 0; i < 2000; i++) {
		seen = __atomic_load_n(&c.seen, __ATOMIC_SEQ_CST);
		munmap(p, PAGE);
		ASSERT_NE(*c.d.gen, seen);
		ASSERT(map_at(p, PAGE) == p);
	}
	flag_set(&c.stop);
	pthread_join(thread, NULL);
	while (drain(c.d.fd) >= 0)
		;
	EXPECT_EQ(poll_now(c.d.fd), 0);
}

/* All threads want the same cookie: one gets it, and one gives it back. */
#define RIVALS 4
struct rivals {
	struct dev d;
	char *p;
	pthread_barrier_t barrier;
	int won;
};

static void *rival(void *arg)
{
	struct rivals *r = arg;
	int i;

	for (i = 0; i < 200; i++) {
		pthread_barrier_wait(&r->barrier);
		if (!watch(r->d.fd, r->p, PAGE, 1))
			__atomic_fetch_add(&r->won, 1, __ATOMIC_SEQ_CST);
		pthread_barrier_wait(&r->barrier);
		EXPECT_EQ(__atomic_load_n(&r->won, __ATOMIC_SEQ_CST), 1);
		pthread_barrier_wait(&r->barrier);
		if (!unwatch(r->d.fd, 1))
			__atomic_fetch_sub(&r->won, 1, __ATOMIC_SEQ_CST);
		pthread_barrier_wait(&r->barrier);
		EXPECT_EQ(__atomic_load_n(&r->won, __ATOMIC_SEQ_CST), 0);
	}
	return NULL;
}

TEST(one_thread_wins_a_cookie)
{
	pthread_t thread[RIVALS];
	struct rivals r = { 0 };
	int i;

	ASSERT(dev_open(&r.d));
	r.p = area(1);
	pthread_barrier_init(&r.barrier, NULL, RIVALS);
	for (i = 0; i < RIVALS; i++)
		ASSERT_EQ(pthread_create(&thread[i], NULL, rival, &r), 0);
	for (i = 0; i < RIVALS; i++)
		pthread_join(thread[i], NULL);
}

/* Everything at once on one file; in the end it must still be in order. */
struct churn {
	struct dev d;
	char *p;
	bool stop;
	int next_id;
};

#define CHURN_PAGES 32

static void *churn_regions(void *arg)
{
	struct churn *c = arg;
	__u64 base = 1000 * (1 + __atomic_fetch_add(&c->next_id, 1,
						    __ATOMIC_SEQ_CST));
	unsigned int i;

	for (i = 0; i < 3000; i++) {
		__u64 cookie = base + i % 16;

		if (i >= 16)
			EXPECT_EQ(unwatch(c->d.fd, cookie), 0);
		EXPECT_EQ(watch(c->d.fd, c->p + i * 7 % CHURN_PAGES * PAGE,
				(1 + i % 3) * PAGE, cookie), 0);
	}
	for (i = 0; i < 16; i++)
		EXPECT_EQ(unwatch(c->d.fd, base + i), 0);
	return NULL;
}

static void *churn_reader(void *arg)
{
	struct churn *c = arg;
	struct ummunotify_event ev[5];
	long n, i;

	while (!flag(&c->stop)) {
		n = read_events(c->d.fd, ev, 5);
		for (i = 0; i < n; i++) {
			if (ev[i].type == UMMUNOTIFY_EVENT_TYPE_LAST)
				EXPECT_EQ(i, n - 1);
			else
				EXPECT(ev[i].user_cookie_counter - 1000 < 1016);
		}
		if (n < 0)
			EXPECT_EQ(n, -EAGAIN);
	}
	return NULL;
}

static void *churn_memory(void *arg)
{
	struct churn *c = arg;
	unsigned int i;

	for (i = 0; !flag(&c->stop); i++) {
		char *p = c->p + i * 5 % CHURN_PAGES * PAGE;

		munmap(p, PAGE);
		EXPECT(map_at(p, PAGE) == p);
	}
	return NULL;
}

TEST_TIMEOUT(threads_register_read_and_unmap, 120)
{
	struct churn c = { 0 };
	pthread_t region[2], other[3];
	int i;

	ASSERT(dev_open(&c.d));
	c.p = area(CHURN_PAGES + 2);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(pthread_create(&other[i], NULL, i ? churn_reader
					 : churn_memory, &c), 0);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(pthread_create(&region[i], NULL, churn_regions, &c),
			  0);
	for (i = 0; i < 2; i++)
		pthread_join(region[i], NULL);
	flag_set(&c.stop);
	for (i = 0; i < 3; i++)
		pthread_join(other[i], NULL);

	/* No region is left: at most a LAST. */
	EXPECT_LT(drain(c.d.fd), 1);
	munmap(c.p, CHURN_PAGES * PAGE);
	EXPECT_QUIET(&c.d);
}

/* A walk over what was just freed is found by poisoning, or by luck. */
TEST_TIMEOUT(close_with_many_regions, 120)
{
	struct dev d;
	char *p = area(400);
	int i, round;

	for (round = 0; round < 20; round++) {
		ASSERT(dev_open(&d));
		for (i = 0; i < 2000; i++)
			ASSERT_EQ(watch(d.fd, p + i % 400 * PAGE, PAGE, i), 0);
		/* Some are invalid, some were read, most are neither. */
		ASSERT_EQ(madvise(p, 100 * PAGE, MADV_DONTNEED), 0);
		if (round & 1) {
			struct ummunotify_event ev[READ_MAX];

			EXPECT_EQ(read_events(d.fd, ev, READ_MAX), READ_MAX);
		}
		munmap((void *)d.gen, PAGE);
		ASSERT_EQ(close(d.fd), 0);
		/* And nobody is told of this. */
		ASSERT_EQ(madvise(p, 400 * PAGE, MADV_DONTNEED), 0);
	}
}

TEST_TIMEOUT(close_races_munmap, 120)
{
	struct churn c = { 0 };
	pthread_t thread;
	struct dev d;
	int i, round;

	c.p = area(CHURN_PAGES);
	ASSERT_EQ(pthread_create(&thread, NULL, churn_memory, &c), 0);
	for (round = 0; round < 200; round++) {
		ASSERT(dev_open(&d));
		for (i = 0; i < 100; i++)
			ASSERT_EQ(watch(d.fd, c.p + i % CHURN_PAGES * PAGE,
					PAGE, i), 0);
		munmap((void *)d.gen, PAGE);
		ASSERT_EQ(close(d.fd), 0);
	}
	flag_set(&c.stop);
	pthread_join(thread, NULL);
}

/*
 * With a list to walk for each, this is 10^10 steps, and the time limit ends
 * it.  Cookies come in one order and go in another.
 */
#define HUNDRED_K 100000UL
TEST_TIMEOUT(a_hundred_thousand_regions, 120)
{
	const __u64 spread = 0x9e3779b97f4a7c15;
	PARAM(max);
	struct dev d;
	char *p = area(1);
	__u64 i;

	if (!param_set(&max, "max_regions", "200000"))
		SKIP("max_regions cannot be written");
	ASSERT(dev_open(&d));
	for (i = 0; i < HUNDRED_K; i++)
		ASSERT_EQ(watch_range(d.fd, i * PAGE, i * PAGE + (1 << 20),
				      i * spread), 0);
	ASSERT_EQ(watch(d.fd, p, PAGE, 1), 0);
	munmap(p, PAGE);
	EXPECT_ONLY(&d, 1);
	for (i = HUNDRED_K; i-- > 0;)
		ASSERT_EQ(unwatch(d.fd, i * 7919 % HUNDRED_K * spread), 0);
	EXPECT_EQ(unwatch(d.fd, 0), -EINVAL);
}

/* Everything overlaps everything: all are hit by a page. */
TEST_TIMEOUT(ten_thousand_regions_of_one_page, 120)
{
	struct dev d;
	char *p = area(1);
	int i, round;

	ASSERT(dev_open(&d));
	for (i = 0; i < 10000; i++)
		ASSERT_EQ(watch(d.fd, p, PAGE, i), 0);
	for (round = 0; round < 3; round++) {
		/* Most of these find all regions invalid already. */
		for (i = 0; i < 1000; i++)
			ASSERT_EQ(madvise(p, PAGE, MADV_DONTNEED), 0);
		EXPECT_EQ(drain(d.fd), 10000);
		EXPECT_QUIET(&d);
	}
	for (i = 0; i < 10000; i++)
		ASSERT_EQ(unwatch(d.fd, i), 0);
}

/*
 * Once nothing more can be learnt of a region it is not looked at until its
 * event is read: one that is looked at moves the counter.
 */
TEST_TIMEOUT(regions_that_were_hit_are_left_alone, 120)
{
	const int n = 20000;
	struct gate go, done;
	struct dev d;
	__u64 gen = 0;
	pid_t other;
	int i, file;
	char *p;

	ASSERT(dev_open(&d));
	ASSERT(gate_init(&go) && gate_init(&done));
	file = memfd_create("page", MFD_CLOEXEC);
	ASSERT_EQ(ftruncate(file, PAGE), 0);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	ASSERT(p != MAP_FAILED);
	other = fork();
	if (!other) {
		for (i = 0; i < 4; i++) {
			gate_wait(&go);
			EXPECT_EQ(ftruncate(file, 0), 0);
			EXPECT_EQ(ftruncate(file, PAGE), 0);
			gate_open(&done);
		}
		child_exit();
	}
	for (i = 0; i < n; i++)
		ASSERT_EQ(watch(d.fd, p, PAGE, i), 0);
	for (i = 0; i < 4; i++) {
		*(volatile char *)p = 1;
		gate_open(&go);
		gate_wait(&done);
		/* The first hit, and the one that takes the hints away. */
		if (i < 2)
			EXPECT_GT(*d.gen, 0);
		else
			EXPECT_EQ(*d.gen, gen);
		gen = *d.gen;
	}
	EXPECT_EQ(drain(d.fd), n);
	EXPECT_CHILD_OK(other);
}

/* Events are read and regions dropped while a large munmap marks them. */
static void *large_munmap(void *arg)
{
	struct churn *c = arg;

	EXPECT_EQ(munmap(c->p, 10000 * PAGE), 0);
	flag_set(&c->stop);
	return NULL;
}

TEST_TIMEOUT(read_and_unregister_during_a_large_munmap, 120)
{
	static unsigned char gone[10000];
	struct ummunotify_event ev[READ_MAX];
	struct churn c = { 0 };
	pthread_t thread;
	long n, i, total = 0;
	bool stopped;

	ASSERT(dev_open(&c.d));
	c.p = area(10000);
	for (i = 0; i < 10000; i++)
		ASSERT_EQ(watch(c.d.fd, c.p + i * PAGE, PAGE, i), 0);
	ASSERT_EQ(pthread_create(&thread, NULL, large_munmap, &c), 0);
	ASSERT(WAIT_FOR(*c.d.gen, 20000));
	do {
		stopped = flag(&c.stop);
		n = read_events(c.d.fd, ev, READ_MAX);
		for (i = 0; i < n; i++) {
			__u64 cookie = ev[i].user_cookie_counter;

			if (ev[i].type == UMMUNOTIFY_EVENT_TYPE_LAST)
				break;
			/* No event comes twice, nor after UNREGISTER. */
			ASSERT(cookie < 10000);
			ASSERT_EQ(gone[cookie], 0);
			gone[cookie] = 1;
			EXPECT_EQ(unwatch(c.d.fd, cookie), 0);
			total++;
		}
		/* As many that were perhaps hit, and were not read. */
		while (i-- > 0) {
			__u64 cookie = 9999 - ev[i].user_cookie_counter;

			if (gone[cookie])
				continue;
			gone[cookie] = 1;
			EXPECT_EQ(unwatch(c.d.fd, cookie), 0);
			total++;
		}
	} while (!stopped || n > 0);
	pthread_join(thread, NULL);
	EXPECT_EQ(total, 10000);
	EXPECT_QUIET(&c.d);
}
