// SPDX-License-Identifier: GPL-2.0
/* Several threads at a file: blocked, interrupted and concurrent readers. */
#include "reading.h"

#include <linux/userfaultfd.h>

/* A thread that reads once. */
struct reader {
	pthread_t thread;
	int fd;
	void *buf;
	long ret;
	bool done;
};

static void *reader_run(void *arg)
{
	struct reader *r = arg;

	r->ret = read_events(r->fd, r->buf, READ_MAX);
	__atomic_store_n(&r->done, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static bool reader_done(struct reader *r)
{
	return __atomic_load_n(&r->done, __ATOMIC_SEQ_CST);
}

static void on_signal(int sig)
{
	(void)sig;
}

/* Signal handlers' flags decide whether the read goes on. */
static void read_and_signal(int sa_flags)
{
	struct ummunotify_event ev[READ_MAX];
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = sa_flags };
	struct reader r = { .buf = ev };
	struct dev d;
	char *p = area(1);

	ASSERT_EQ(sigaction(SIGUSR1, &sa, NULL), 0);
	ASSERT(dev_open_flags(&d, 0));
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	r.fd = d.fd;
	ASSERT_EQ(pthread_create(&r.thread, NULL, reader_run, &r), 0);
	sleep_ms(100);
	EXPECT(!reader_done(&r));
	if (sa_flags) {
		pthread_kill(r.thread, SIGUSR1);
		sleep_ms(100);
		EXPECT(!reader_done(&r));
		hit(p);
		pthread_join(r.thread, NULL);
		EXPECT_EQ(r.ret, 2);
		EXPECT_HINT(ev[0], COOKIE, p, p + PAGE);
	} else {
		/* Again and again, should it not have slept yet. */
		while (!reader_done(&r)) {
			pthread_kill(r.thread, SIGUSR1);
			sleep_ms(10);
		}
		pthread_join(r.thread, NULL);
		EXPECT_EQ(r.ret, -EINTR);
	}
}

TEST(a_blocked_read_is_interrupted)
{
	read_and_signal(0);
}

TEST(a_blocked_read_is_restarted)
{
	read_and_signal(SA_RESTART);
}

/* Three readers, one of them with a bad buffer: each event comes once. */
#define SHARED 2000
static unsigned char shared_times[SHARED];
static unsigned int shared_lasts;

static void *shared_reader(void *arg)
{
	int fd = *(int *)arg;
	struct ummunotify_event ev[3];
	long n, i;

	while ((n = read_events(fd, ev, 3)) != -EAGAIN) {
		EXPECT_GT(n, 0);
		for (i = 0; i < n; i++) {
			if (ev[i].type == UMMUNOTIFY_EVENT_TYPE_LAST)
				__atomic_fetch_add(&shared_lasts, 1,
						   __ATOMIC_RELAXED);
			else
				__atomic_fetch_add(&shared_times[
					ev[i].user_cookie_counter % SHARED], 1,
					__ATOMIC_RELAXED);
		}
	}
	return NULL;
}

static void *faulting_reader(void *arg)
{
	int fd = *(int *)arg;
	long n;

	while ((n = read_events(fd, nowhere, 2)) != -EAGAIN)
		EXPECT_EQ(n, -EFAULT);
	return NULL;
}

TEST(readers_share_the_events)
{
	struct dev d;
	char *p = area(400);
	pthread_t t[3];
	int i, round;

	ASSERT(dev_open(&d));
	for (i = 0; i < SHARED; i++)
		ASSERT_EQ(watch(d.fd, p + i % 400 * PAGE, PAGE, i), 0);
	for (round = 0; round < 5; round++) {
		memset(shared_times, 0, sizeof(shared_times));
		shared_lasts = 0;
		ASSERT_EQ(madvise(p, 400 * PAGE, MADV_DONTNEED), 0);
		for (i = 0; i < 3; i++)
			ASSERT_EQ(pthread_create(&t[i], NULL, i ? shared_reader
						 : faulting_reader, &d.fd), 0);
		for (i = 0; i < 3; i++)
			pthread_join(t[i], NULL);
		for (i = 0; i < SHARED; i++)
			ASSERT_EQ(shared_times[i], 1);
		EXPECT_GE(shared_lasts, 1);
	}
}

/*
 * A buffer whose page userfaultfd provides when the test says so: a reader
 * stops in the middle of its copy for as long.
 */
static int uffd_page(char **page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		SKIP("no userfaultfd");
	*page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = addr(*page);
	reg.range.len = PAGE;
	if (ioctl(fd, UFFDIO_API, &api) ||
	    ioctl(fd, UFFDIO_REGISTER, &reg))
		SKIP("no userfaultfd");
	return fd;
}

static void uffd_provide(int fd, char *page)
{
	struct uffdio_zeropage zero = {
		.range = { .start = addr(page), .len = PAGE },
	};

	EXPECT_EQ(ioctl(fd, UFFDIO_ZEROPAGE, &zero), 0);
}

/* Returns once the reader is in its copy. */
static void uffd_wait(int fd)
{
	struct uffd_msg msg;

	EXPECT_EQ(read(fd, &msg, sizeof(msg)), sizeof(msg));
}

TEST(a_hit_during_the_copy_is_a_new_event)
{
	struct reader r = { 0 };
	struct ummunotify_event *ev;
	struct dev d;
	char *p, *page;
	int uffd = uffd_page(&page);

	ASSERT(scene_init(&d, &p, 1));
	r.fd = d.fd;
	r.buf = page;
	hit(p);
	ASSERT_EQ(pthread_create(&r.thread, NULL, reader_run, &r), 0);
	uffd_wait(uffd);
	/* A driver that holds its lock while it copies ends here. */
	hit(p);
	EXPECT_EQ(*d.gen, 2);
	uffd_provide(uffd, page);
	pthread_join(r.thread, NULL);
	EXPECT_GE(r.ret, 1);
	ev = r.buf;
	EXPECT_INVAL(ev[0], 0);
	EXPECT_ONLY(&d, 0);
	EXPECT_QUIET(&d);
}

TEST(unregister_during_the_copy)
{
	struct ummunotify_event ev[4];
	struct reader r = { 0 };
	struct dev d;
	char *p[2], *page;
	int uffd = uffd_page(&page);
	long n, i;

	ASSERT(scene_init(&d, p, 2));
	r.fd = d.fd;
	r.buf = page;
	hit(p[0]);
	hit(p[1]);
	ASSERT_EQ(pthread_create(&r.thread, NULL, reader_run, &r), 0);
	uffd_wait(uffd);
	EXPECT_EQ(unwatch(d.fd, 0), 0);
	EXPECT_EQ(unwatch(d.fd, 0), -EINVAL);
	uffd_provide(uffd, page);
	pthread_join(r.thread, NULL);
	EXPECT_GE(r.ret, 1);
	hit(p[0]);
	hit(p[1]);
	n = read_events(d.fd, ev, 4);
	for (i = 0; i < n; i++) {
		if (ev[i].type == UMMUNOTIFY_EVENT_TYPE_INVAL)
			EXPECT_EQ(ev[i].user_cookie_counter, 1);
	}
	EXPECT_EQ(n, 2);
	EXPECT_EQ(unwatch(d.fd, 1), 0);
}

TEST(a_second_reader_during_the_copy)
{
	struct ummunotify_event second[READ_MAX], *ev;
	struct reader r[2] = { 0 };
	struct dev d;
	char *p, *page;
	int uffd = uffd_page(&page), i, invals = 0;
	long n;

	ASSERT(scene_init(&d, &p, 1));
	r[0].fd = r[1].fd = d.fd;
	r[0].buf = page;
	r[1].buf = second;
	hit(p);
	ASSERT_EQ(pthread_create(&r[0].thread, NULL, reader_run, &r[0]), 0);
	uffd_wait(uffd);
	ASSERT_EQ(pthread_create(&r[1].thread, NULL, reader_run, &r[1]), 0);
	sleep_ms(100);
	uffd_provide(uffd, page);
	for (i = 0; i < 2; i++) {
		pthread_join(r[i].thread, NULL);
		ev = r[i].buf;
		for (n = 0; n < r[i].ret; n++)
			invals += ev[n].type == UMMUNOTIFY_EVENT_TYPE_INVAL;
	}
	EXPECT_EQ(invals, 1);
}
