// SPDX-License-Identifier: GPL-2.0
/* ONESHOT, NOWAKE and DELIVERED. */
#include "feature.h"

#define COOKIE	13
#define ONESHOT	UMMUNOTIFY_REGISTER_ONESHOT
#define NOWAKE	UMMUNOTIFY_REGISTER_NOWAKE

static bool oneshot_init(struct dev *d, char **p)
{
	*p = area(3);
	return *p && dev_open_with(d, FEATURE(ONESHOT) | FEATURE(STATS) |
				   FEATURE(DELIVERED), 0) &&
	       !watch_flags(d->fd, *p, 3 * PAGE, COOKIE, ONESHOT, 0);
}

TEST(one_event_and_it_is_forgotten)
{
	struct dev d;
	char *p;
	int i;

	ASSERT(oneshot_init(&d, &p));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(stats_of(&d)->regions, 1);
		ASSERT(hit(p + PAGE));
		EXPECT_EQ(stats_of(&d)->regions, 1);
		EXPECT_ONLY_HINT(&d, COOKIE, p + PAGE, p + 2 * PAGE);
		EXPECT_EQ(stats_of(&d)->regions, 0);
		EXPECT_EQ(stats_of(&d)->delivered, i + 1);
		/* No second event, and the cookie is free. */
		ASSERT(hit(p));
		EXPECT_QUIET(&d);
		EXPECT_EQ(*d.gen, i + 1);
		EXPECT_EQ(unwatch(d.fd, COOKIE), -EINVAL);
		EXPECT_EQ(watch_flags(d.fd, p, 3 * PAGE, COOKIE, ONESHOT, 0),
			  0);
	}
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
}

TEST(hit_twice_is_one_event)
{
	struct ummunotify_event ev[2];
	struct dev d;
	char *p;

	ASSERT(oneshot_init(&d, &p));
	ASSERT(hit(p));
	ASSERT(hit(p + PAGE));
	ASSERT(hit(p + PAGE));
	/* Read one by one: forgotten with its event, not with LAST. */
	EXPECT_EQ(read_events(d.fd, ev, 1), 1);
	EXPECT_NO_HINT(ev[0], COOKIE, p, p + 3 * PAGE);
	EXPECT_EQ(unwatch(d.fd, COOKIE), -EINVAL);
	EXPECT_EQ(read_events(d.fd, ev, 2), 1);
	EXPECT_LAST(ev[0], *d.gen);
}

TEST(a_failed_read_keeps_it)
{
	struct ummunotify_event *bad;
	struct dev d;
	char *p;
	int i;

	ASSERT(oneshot_init(&d, &p));
	bad = (void *)(area(1) - PAGE);
	ASSERT(hit(p));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(read_events(d.fd, bad, 2), -EFAULT);
		EXPECT_EQ(stats_of(&d)->regions, 1);
		EXPECT_EQ(watch(d.fd, p, PAGE, COOKIE), -EINVAL);
	}
	EXPECT_ONLY(&d, COOKIE);
	EXPECT_EQ(stats_of(&d)->delivered, 1);
	EXPECT_EQ(unwatch(d.fd, COOKIE), -EINVAL);

	/* Also hit again, and unregistered, in between. */
	EXPECT_EQ(watch_flags(d.fd, p, 3 * PAGE, COOKIE, ONESHOT, 0), 0);
	ASSERT(hit(p));
	EXPECT_EQ(read_events(d.fd, bad, 2), -EFAULT);
	ASSERT(hit(p + PAGE));
	EXPECT_EQ(read_events(d.fd, bad, 2), -EFAULT);
	ASSERT(hit(p + PAGE));
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
	EXPECT_EQ(stats_of(&d)->regions, 0);
	EXPECT_EQ(drain(d.fd), 0);
}

TEST(unregister_before_the_event_is_read)
{
	struct dev d;
	char *p;

	ASSERT(oneshot_init(&d, &p));
	ASSERT(hit(p));
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
	EXPECT_EQ(drain(d.fd), 0);
	EXPECT_EQ(stats_of(&d)->regions, 0);
}

/* Side by side: only those that asked for it are forgotten. */
TEST(among_others)
{
	char *p = area(1);
	struct dev d;
	int i;

	ASSERT(dev_open_with(&d, FEATURE(ONESHOT) | FEATURE(STATS), 0));
	for (i = 0; i < 300; i++)
		ASSERT_EQ(watch_flags(d.fd, p, PAGE, i, i % 3 ? 0 : ONESHOT, 0),
			  0);
	ASSERT(hit(p));
	EXPECT_EQ(drain(d.fd), 300);
	EXPECT_EQ(stats_of(&d)->regions, 200);
	ASSERT(hit(p));
	EXPECT_EQ(drain(d.fd), 200);
	for (i = 0; i < 300; i++)
		EXPECT_EQ(unwatch(d.fd, i), i % 3 ? 0 : -EINVAL);
}

static struct {
	struct dev d;
	char *p;
	bool stop;
} churn;

static void *churn_hit(void *arg)
{
	while (!__atomic_load_n(&churn.stop, __ATOMIC_SEQ_CST))
		hit(churn.p);
	return arg;
}

static void *churn_read(void *arg)
{
	while (!__atomic_load_n(&churn.stop, __ATOMIC_SEQ_CST))
		drain(churn.d.fd);
	return arg;
}

/* UNREGISTER races the reader that forgets the region: it goes once. */
TEST(unregister_races_read)
{
	long until = now_ms() + 2000, ret, gone = 0, rounds = 0;
	pthread_t t[2];

	churn.p = area(1);
	ASSERT(dev_open_with(&churn.d, FEATURE(ONESHOT) | FEATURE(STATS), 0));
	ASSERT_EQ(pthread_create(&t[0], NULL, churn_hit, NULL), 0);
	ASSERT_EQ(pthread_create(&t[1], NULL, churn_read, NULL), 0);
	while (now_ms() < until) {
		ASSERT_EQ(watch_flags(churn.d.fd, churn.p, PAGE, COOKIE,
				      ONESHOT, 0), 0);
		if (rounds++ & 1)
			WAIT_FOR(!stats_of(&churn.d)->regions, 1);
		ret = unwatch(churn.d.fd, COOKIE);
		EXPECT(!ret || ret == -EINVAL);
		gone += ret == -EINVAL;
		EXPECT_EQ(stats_of(&churn.d)->regions, 0);
	}
	__atomic_store_n(&churn.stop, true, __ATOMIC_SEQ_CST);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	EXPECT_GT(gone, 0);
	EXPECT_GT(rounds, 10);
}

struct waiter {
	pthread_t thread;
	int fd;
	pid_t tid;
	bool done;
};

static void *poll_waiter(void *arg)
{
	struct waiter *w = arg;
	struct pollfd p = { .fd = w->fd, .events = POLLIN };

	__atomic_store_n(&w->tid, gettid(), __ATOMIC_SEQ_CST);
	poll(&p, 1, -1);
	__atomic_store_n(&w->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static bool is_asleep(struct waiter *w)
{
	pid_t tid = __atomic_load_n(&w->tid, __ATOMIC_SEQ_CST);
	char path[64], state = 0;
	FILE *f;

	if (!tid)
		return false;
	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	f = fopen(path, "re");
	if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	if (f)
		fclose(f);
	return state == 'S';
}

/* Once it waits, only a wake-up makes it look. */
static bool waiter_start(struct waiter *w, int fd)
{
	w->fd = fd;
	return !pthread_create(&w->thread, NULL, poll_waiter, w) &&
	       WAIT_FOR(is_asleep(w), 10000);
}

static bool woken(struct waiter *w)
{
	return __atomic_load_n(&w->done, __ATOMIC_SEQ_CST);
}

static volatile sig_atomic_t signals;

static void on_sigio(int sig)
{
	(void)sig;
	signals++;
}

static bool want_signals(int fd)
{
	struct sigaction sa = { .sa_handler = on_sigio };

	return !sigaction(SIGIO, &sa, NULL) && !fcntl(fd, F_SETOWN, getpid()) &&
	       !fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC);
}

/* It wakes nobody; who looks finds it all the same. */
static void wakes(__u32 features, bool wanted)
{
	struct waiter w = { 0 };
	char *p = area(1), *q = area(1);
	struct dev d;

	signals = 0;
	ASSERT(dev_open_with(&d, features, 0));
	ASSERT(want_signals(d.fd));
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 1, NOWAKE, 0), 0);
	ASSERT_EQ(watch_flags(d.fd, q, PAGE, 2, 0, 0), 0);
	ASSERT(waiter_start(&w, d.fd));
	ASSERT(hit(p));
	EXPECT_EQ(*d.gen, 1);
	EXPECT_EQ(WAIT_FOR(woken(&w), wanted ? 5000 : 200), wanted);
	EXPECT_EQ(signals > 0, wanted);
	EXPECT_EQ(poll_now(d.fd), POLLIN | POLLRDNORM);
	/* Whoever is not silent wakes. */
	signals = 0;
	ASSERT(hit(q));
	EXPECT(WAIT_FOR(woken(&w), 5000));
	EXPECT(WAIT_FOR(signals, 5000));
	EXPECT_EQ(drain(d.fd), 2);
	pthread_join(w.thread, NULL);

	/* In one operation with others too. */
	signals = 0;
	ASSERT_EQ(munmap(p, PAGE), 0);
	EXPECT_EQ(signals > 0, wanted);
	ASSERT(hit(q));
	EXPECT(WAIT_FOR(signals, 5000));
	dev_close(&d);
}

TEST(nowake_wakes_nobody)
{
	wakes(FEATURE(NOWAKE), false);
}

TEST(nowake_that_was_not_granted_wakes)
{
	wakes(FEATURE(ONESHOT) | FEATURE(KINDS), true);
}

/* That another file's region wakes is no reason to wake readers of this one. */
TEST(nowake_is_of_the_file)
{
	char *p = area(1), *q = area(1);
	struct waiter w = { 0 };
	struct dev d, other;

	ASSERT(dev_open_with(&d, FEATURE(NOWAKE), 0));
	ASSERT(dev_open(&other));
	ASSERT(want_signals(d.fd));
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 1, NOWAKE, 0), 0);
	ASSERT_EQ(watch(d.fd, q, PAGE, 2), 0);
	ASSERT_EQ(watch(other.fd, p, PAGE, 1), 0);
	ASSERT(waiter_start(&w, d.fd));
	ASSERT(hit(p));
	EXPECT_EQ(poll_now(other.fd), POLLIN | POLLRDNORM);
	EXPECT(!WAIT_FOR(woken(&w), 200));
	EXPECT_EQ(signals, 0);
	ASSERT(hit(q));
	EXPECT(WAIT_FOR(woken(&w), 5000));
	pthread_join(w.thread, NULL);
	EXPECT_EQ(drain(d.fd), 2);
	EXPECT_EQ(drain(other.fd), 1);
}

/* Nor does REGISTER that could not wait. */
TEST(doubt_does_not_wake_either)
{
	struct waiter w = { 0 };
	struct job change;
	struct stage s;
	int i;

	ASSERT(stage_init(&s, 1, &change, 1));
	ASSERT(dev_negotiate(&s.d, FEATURE(NOWAKE), 0));
	ASSERT(want_signals(s.d.fd));
	ASSERT(waiter_start(&w, s.d.fd));
	ASSERT(start_and_hold(&s, &change, run_dontneed, s.p, PAGE));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(watch_flags(s.d.fd, s.p, PAGE, i, i ? 0 : NOWAKE, 0),
			  0);
		EXPECT_EQ(held(s.hold), 1);
		EXPECT_EQ(WAIT_FOR(woken(&w), i ? 5000 : 200), i);
		EXPECT_EQ(signals > 0, i);
	}
	EXPECT_EQ(drain(s.d.fd), 2);
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(&change));
	pthread_join(w.thread, NULL);
}

TEST(unregister_says_how_many_were_delivered)
{
	struct ummunotify_event *bad = (void *)(area(1) - PAGE);
	char *p = area(2);
	struct dev d;
	int i, n;

	ASSERT(dev_open_with(&d, FEATURE(DELIVERED) | FEATURE(BATCH) |
			     FEATURE(VERIFY), 0));
	for (n = 0; n < 5; n++) {
		ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
		ASSERT_EQ(watch(d.fd, p + PAGE, PAGE, COOKIE + 1), 0);
		for (i = 0; i < n; i++) {
			ASSERT(hit(p));
			/* Hits are not events, nor is what was not delivered. */
			ASSERT(hit(p));
			EXPECT_EQ(read_events(d.fd, bad, 2), -EFAULT);
			EXPECT_EQ(drain(d.fd), 1);
		}
		ASSERT(hit(p));
		EXPECT_EQ(unwatch(d.fd, COOKIE), n);
		EXPECT_EQ(unwatch(d.fd, COOKIE), -EINVAL);
		EXPECT_EQ(unwatch(d.fd, COOKIE + 1), 0);
		EXPECT_EQ(drain(d.fd), 0);
	}
	/* An event that was taken back was not delivered. */
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	ASSERT(hit(p));
	EXPECT_GE(verify(d.fd, COOKIE), 0);
	EXPECT_EQ(drain(d.fd), 0);
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
}

/* A positive number is no error in a batch. */
TEST(a_batch_of_delivered)
{
	__u64 cookies[] = { 1, 2, 3 };
	struct ummunotify_batch b;
	char *p = area(3);
	struct dev d;

	ASSERT(dev_open_with(&d, FEATURE(DELIVERED) | FEATURE(BATCH), 0));
	ASSERT_EQ(watch(d.fd, p, PAGE, 1), 0);
	ASSERT_EQ(watch(d.fd, p, PAGE, 2), 0);
	ASSERT_EQ(watch(d.fd, p, PAGE, 3), 0);
	ASSERT(hit(p));
	EXPECT_EQ(drain(d.fd), 3);
	EXPECT_EQ(batch(d.fd, UMMUNOTIFY_UNREGISTER_BATCH, cookies, 3, &b), 0);
	EXPECT_EQ(b.done, 3);
	EXPECT_EQ(b.error, 0);
}

/* The test of 2010 takes anything but zero for an error. */
TEST(zero_where_it_was_not_granted)
{
	char *p = area(1);
	struct dev d;
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT(i ? dev_open_with(&d, ALL_FEATURES & ~FEATURE(DELIVERED),
					 1) : dev_open(&d));
		ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
		ASSERT(hit(p));
		EXPECT_EQ(drain(d.fd), 1);
		ASSERT(hit(p));
		EXPECT_EQ(drain(d.fd), 1);
		EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
	}
}
