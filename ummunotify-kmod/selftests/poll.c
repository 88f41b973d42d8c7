// SPDX-License-Identifier: GPL-2.0
/* poll(), select(), epoll, SIGIO and blocked reads: who is woken, and when. */
#include "util.h"

#include <sys/epoll.h>
#include <sys/select.h>

#define COOKIE 3

static bool scene_init(struct dev *d, char **p)
{
	*p = area(1);
	return *p && dev_open(d) && !watch(d->fd, *p, PAGE, COOKIE);
}

static void hit(char *p)
{
	EXPECT_EQ(madvise(p, PAGE, MADV_DONTNEED), 0);
}

/* INVAL, then LAST alone: both are something to read. */
TEST(poll_is_readable_until_last_was_read)
{
	struct ummunotify_event ev;
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	EXPECT_EQ(poll_now(d.fd), 0);
	hit(p);
	EXPECT_EQ(poll_now(d.fd), POLLIN | POLLRDNORM);
	EXPECT_EQ(read_events(d.fd, &ev, 1), 1);
	EXPECT_INVAL(ev, COOKIE);
	EXPECT_EQ(poll_now(d.fd), POLLIN | POLLRDNORM);
	EXPECT_EQ(read_events(d.fd, &ev, 1), 1);
	EXPECT_LAST(ev, 1);
	EXPECT_EQ(poll_now(d.fd), 0);
}

TEST(select_is_readable)
{
	struct timeval none = { 0 };
	struct dev d;
	fd_set set;
	char *p;

	ASSERT(scene_init(&d, &p));
	FD_ZERO(&set);
	FD_SET(d.fd, &set);
	EXPECT_EQ(select(d.fd + 1, &set, NULL, NULL, &none), 0);
	hit(p);
	FD_SET(d.fd, &set);
	EXPECT_EQ(select(d.fd + 1, &set, NULL, NULL, &none), 1);
	EXPECT(FD_ISSET(d.fd, &set));
	EXPECT_EQ(drain(d.fd), 1);
	EXPECT_EQ(select(d.fd + 1, &set, NULL, NULL, &none), 0);
}

TEST(epoll_level_and_edge)
{
	struct epoll_event level = { .events = EPOLLIN };
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET };
	struct epoll_event got;
	int lfd = epoll_create1(EPOLL_CLOEXEC);
	int efd = epoll_create1(EPOLL_CLOEXEC);
	struct dev d;
	char *p;
	int i;

	ASSERT(scene_init(&d, &p));
	ASSERT_EQ(epoll_ctl(lfd, EPOLL_CTL_ADD, d.fd, &level), 0);
	ASSERT_EQ(epoll_ctl(efd, EPOLL_CTL_ADD, d.fd, &edge), 0);
	EXPECT_EQ(epoll_wait(lfd, &got, 1, 0), 0);
	EXPECT_EQ(epoll_wait(efd, &got, 1, 0), 0);
	for (i = 0; i < 3; i++) {
		hit(p);
		EXPECT_EQ(epoll_wait(lfd, &got, 1, 1000), 1);
		EXPECT_EQ(got.events, EPOLLIN);
		EXPECT_EQ(epoll_wait(lfd, &got, 1, 1000), 1);
		/* Every new event is an edge, be the old ones read or not. */
		EXPECT_EQ(epoll_wait(efd, &got, 1, 1000), 1);
		EXPECT_EQ(epoll_wait(efd, &got, 1, 0), 0);
		EXPECT_EQ(drain(d.fd), 1);
		EXPECT_EQ(epoll_wait(lfd, &got, 1, 0), 0);
	}
}

struct waiter {
	int fd;
	long ret;
	bool done;
};

static void *poll_waiter(void *arg)
{
	struct waiter *w = arg;
	struct pollfd p = { .fd = w->fd, .events = POLLIN };

	/* No time limit, at whose end poll() would look by itself. */
	w->ret = poll(&p, 1, -1) == 1 ? p.revents : -1;
	__atomic_store_n(&w->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void *read_waiter(void *arg)
{
	struct waiter *w = arg;
	struct ummunotify_event ev[2];

	w->ret = read_events(w->fd, ev, 2);
	if (ev[0].type != UMMUNOTIFY_EVENT_TYPE_INVAL ||
	    ev[0].user_cookie_counter != COOKIE)
		w->ret = -EILSEQ;
	__atomic_store_n(&w->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

/* A hit elsewhere wakes nobody for good, a hit here does. */
static void wakes(void *(*run)(void *), long want)
{
	struct waiter w = { 0 };
	struct dev d;
	pthread_t t;
	char *p = area(1), *q = area(1);

	ASSERT(dev_open_flags(&d, 0));
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	w.fd = d.fd;
	ASSERT_EQ(pthread_create(&t, NULL, run, &w), 0);
	hit(q);
	sleep_ms(100);
	EXPECT(!__atomic_load_n(&w.done, __ATOMIC_SEQ_CST));
	hit(p);
	pthread_join(t, NULL);
	EXPECT_EQ(w.ret, want);
}

TEST(a_hit_wakes_poll)
{
	wakes(poll_waiter, POLLIN);
}

TEST(a_hit_wakes_a_blocked_read)
{
	wakes(read_waiter, 2);
}

/* The wake-up must come for every event, not for the first only. */
TEST(every_hit_wakes_a_blocked_read)
{
	struct waiter w;
	struct dev d;
	pthread_t t;
	char *p = area(1);
	int i;

	ASSERT(dev_open_flags(&d, 0));
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	w.fd = d.fd;
	for (i = 0; i < 50; i++) {
		w.done = false;
		ASSERT_EQ(pthread_create(&t, NULL, read_waiter, &w), 0);
		/* Before it sleeps, while it falls asleep, and after. */
		sleep_ms(i % 10);
		hit(p);
		pthread_join(t, NULL);
		ASSERT_EQ(w.ret, 2);
	}
}

static volatile sig_atomic_t signals;

static void on_sigio(int sig)
{
	(void)sig;
	signals++;
}

TEST(sigio)
{
	struct sigaction sa = { .sa_handler = on_sigio };
	struct dev d;
	char *p;
	int flags, i;

	ASSERT_EQ(sigaction(SIGIO, &sa, NULL), 0);
	ASSERT(scene_init(&d, &p));
	flags = fcntl(d.fd, F_GETFL);

	/* Not asked for. */
	hit(p);
	EXPECT_EQ(drain(d.fd), 1);
	EXPECT_EQ(signals, 0);

	ASSERT_EQ(fcntl(d.fd, F_SETOWN, getpid()), 0);
	ASSERT_EQ(fcntl(d.fd, F_SETFL, flags | O_ASYNC), 0);
	for (i = 1; i <= 5; i++) {
		hit(p);
		/* Sent by the hit itself, so it is here already. */
		EXPECT_EQ(signals, i);
		EXPECT_EQ(drain(d.fd), 1);
	}

	/* No longer asked for. */
	ASSERT_EQ(fcntl(d.fd, F_SETFL, flags), 0);
	hit(p);
	EXPECT_EQ(signals, 5);
	EXPECT_EQ(drain(d.fd), 1);

	/* Closing a file that still asks is no harm. */
	ASSERT_EQ(fcntl(d.fd, F_SETFL, flags | O_ASYNC), 0);
	munmap((void *)d.gen, PAGE);
	close(d.fd);
	hit(p);
	EXPECT_EQ(signals, 5);
}

/* The other file of this process has nothing to say. */
TEST(sigio_names_the_file_that_was_hit)
{
	struct sigaction sa = { .sa_handler = on_sigio };
	struct dev a, b;
	char *p, *q;

	ASSERT_EQ(sigaction(SIGIO, &sa, NULL), 0);
	ASSERT(scene_init(&a, &p));
	ASSERT(scene_init(&b, &q));
	ASSERT_EQ(fcntl(a.fd, F_SETOWN, getpid()), 0);
	ASSERT_EQ(fcntl(a.fd, F_SETFL, O_NONBLOCK | O_ASYNC), 0);
	hit(q);
	EXPECT_EQ(signals, 0);
	hit(p);
	EXPECT_EQ(signals, 1);
}
