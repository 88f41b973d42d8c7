/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of /dev/ummunotify share. */
#ifndef UTIL_H
#define UTIL_H

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>

#include <linux/ummunotify.h>

#define DEVICE		"/dev/ummunotify"
#define PAGE		((unsigned long)sysconf(_SC_PAGESIZE))
#define ALL_ONES	(~(__u64)0)
#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

/* A huge page's size: 2 MiB where pages have 4 KiB, 32 MiB where they have 16. */
static inline size_t huge_page_size(void)
{
	static size_t size;

	if (!size) {
		const char *path =
			"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
		FILE *file = fopen(path, "r");

		/* Real-time kernels have no transparent ones, and do not tell. */
		if (!file || fscanf(file, "%zu", &size) != 1)
			size = PAGE * (PAGE / sizeof(__u64));
		if (file)
			fclose(file);
	}
	return size;
}

/* For mmap(): huge pages of that size. */
#define HUGE_FLAGS	(MAP_HUGETLB | __builtin_ctzl(huge_page_size()) << 26)

/* At most so many events come from one read(). */
#define READ_MAX	(4096 / sizeof(struct ummunotify_event))

/* An open device and its mapped counter. */
struct dev {
	int fd;
	const volatile __u64 *gen;
};

static inline long ret_errno(long ret)
{
	return ret < 0 ? -errno : ret;
}

static inline __u64 addr(const volatile void *p)
{
	return (__u64)(uintptr_t)p;
}

static inline const volatile __u64 *map_gen(int fd)
{
	void *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

static inline bool dev_open_flags(struct dev *d, int flags)
{
	d->gen = NULL;
	d->fd = open(DEVICE, O_RDONLY | flags);
	if (d->fd >= 0)
		d->gen = map_gen(d->fd);
	return d->gen;
}

static inline bool dev_open(struct dev *d)
{
	return dev_open_flags(d, O_NONBLOCK | O_CLOEXEC);
}

/* These return 0 (or a count), or -errno. */
static inline long watch_range(int fd, __u64 start, __u64 end, __u64 cookie)
{
	struct ummunotify_register_ioctl r = {
		.start = start, .end = end, .user_cookie = cookie,
	};

	return ret_errno(ioctl(fd, UMMUNOTIFY_REGISTER_REGION, &r));
}

static inline long watch(int fd, const volatile void *p, size_t len,
			 __u64 cookie)
{
	return watch_range(fd, addr(p), addr(p) + len, cookie);
}

static inline long unwatch(int fd, __u64 cookie)
{
	return ret_errno(ioctl(fd, UMMUNOTIFY_UNREGISTER_REGION, &cookie));
}

static inline long exchange(int fd, __u32 *mask)
{
	return ret_errno(ioctl(fd, UMMUNOTIFY_EXCHANGE_FEATURES, mask));
}

/* Reads up to n events; returns how many came. */
static inline long read_events(int fd, struct ummunotify_event *ev, size_t n)
{
	ssize_t ret = read(fd, ev, n * sizeof(*ev));

	if (ret < 0)
		return -errno;
	return ret % (ssize_t)sizeof(*ev) ? -EILSEQ : ret / (ssize_t)sizeof(*ev);
}

static inline int poll_now(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLRDNORM };

	return poll(&p, 1, 0) < 0 ? -errno : p.revents;
}

/* Reads until LAST; returns how many INVAL events came before, or -errno. */
static inline long drain(int fd)
{
	struct ummunotify_event ev[READ_MAX];
	long invals = 0, n, i;

	for (;;) {
		n = read_events(fd, ev, READ_MAX);
		if (n <= 0)
			return n ? n : -EILSEQ;
		for (i = 0; i < n; i++) {
			if (ev[i].type == UMMUNOTIFY_EVENT_TYPE_LAST)
				return i == n - 1 ? invals : -EILSEQ;
			invals++;
		}
	}
}

/*
 * Fresh private memory, written to, with a gap of no access on both sides and
 * without huge pages: what happens to it raises events over its own pages and
 * no others.
 */
static inline char *area(size_t pages)
{
	char *p = mmap(NULL, (pages + 2) * PAGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	p = mmap(p + PAGE, pages * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, pages * PAGE, MADV_NOHUGEPAGE);
	memset(p, 1, pages * PAGE);
	return p;
}

#define EXPECT_INVAL(ev, cookie) do {					\
	EXPECT_EQ((ev).type, UMMUNOTIFY_EVENT_TYPE_INVAL);		\
	EXPECT_EQ((ev).user_cookie_counter, cookie);			\
} while (0)

#define EXPECT_HINT(ev, cookie, from, to) do {				\
	EXPECT_INVAL(ev, cookie);					\
	EXPECT_EQ((ev).flags, UMMUNOTIFY_EVENT_FLAG_HINT);		\
	EXPECT_EQ((ev).hint_start, from);				\
	EXPECT_EQ((ev).hint_end, to);					\
} while (0)

#define EXPECT_NO_HINT(ev, cookie, from, to) do {			\
	EXPECT_INVAL(ev, cookie);					\
	EXPECT_EQ((ev).flags, 0);					\
	EXPECT_EQ((ev).hint_start, from);				\
	EXPECT_EQ((ev).hint_end, to);					\
} while (0)

#define EXPECT_LAST(ev, counter) do {					\
	EXPECT_EQ((ev).type, UMMUNOTIFY_EVENT_TYPE_LAST);		\
	EXPECT_EQ((ev).user_cookie_counter, counter);			\
} while (0)

/* Nothing was raised since the last LAST. */
#define EXPECT_QUIET(d) do {						\
	struct ummunotify_event ev_[2];					\
									\
	EXPECT_EQ(poll_now((d)->fd), 0);				\
	EXPECT_EQ(read_events((d)->fd, ev_, 2), -EAGAIN);		\
} while (0)

/* The only region that was hit is this one. */
#define EXPECT_ONLY(d, cookie) do {					\
	struct ummunotify_event ev_[3];					\
									\
	EXPECT_EQ(read_events((d)->fd, ev_, 3), 2);			\
	EXPECT_INVAL(ev_[0], cookie);					\
	EXPECT_LAST(ev_[1], *(d)->gen);					\
} while (0)

/* The same, hit exactly once, with an exact hint. */
#define EXPECT_ONLY_HINT(d, cookie, from, to) do {			\
	struct ummunotify_event ev_[3];					\
									\
	EXPECT_EQ(read_events((d)->fd, ev_, 3), 2);			\
	EXPECT_HINT(ev_[0], cookie, from, to);				\
	EXPECT_LAST(ev_[1], *(d)->gen);					\
} while (0)

static inline void sleep_ms(long ms)
{
	struct timespec t = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

static inline long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/*
 * Faults everything in that this process may write to, so that its own copies
 * on write raise no event later, and it takes no page fault while somebody
 * holds the memory map.
 */
static inline bool settle(void)
{
	/* The page with the clock cannot be locked, but it can be touched. */
	now_ms();
	return !mlockall(MCL_CURRENT) && !munlockall();
}

/* Whether the condition came true within so many milliseconds. */
#define WAIT_FOR(cond, ms) ({						\
	long until_ = now_ms() + (ms);					\
	bool ok_;							\
									\
	while (!(ok_ = (cond)) && now_ms() < until_)			\
		sleep_ms(1);						\
	ok_;								\
})

/* One process tells another to go on. */
struct gate {
	int fd[2];
};

static inline bool gate_init(struct gate *g)
{
	return !pipe2(g->fd, O_CLOEXEC);
}

static inline void gate_open(struct gate *g)
{
	char c = 1;

	if (write(g->fd[1], &c, 1) != 1)
		abort();
}

static inline void gate_wait(struct gate *g)
{
	char c;

	if (read(g->fd[0], &c, 1) != 1)
		abort();
}

/* A module parameter that gets its old value back at the end of a scope. */
struct param {
	char path[96];
	char old[32];
};

static inline bool file_set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, value, strlen(value)) == (ssize_t)strlen(value);
	close(fd);
	return ok;
}

/* What a short file says. */
static inline bool file_get(const char *path, char *value, size_t len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = -1;

	if (fd >= 0) {
		n = read(fd, value, len - 1);
		close(fd);
	}
	value[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static inline bool param_set(struct param *p, const char *name,
			     const char *value)
{
	snprintf(p->path, sizeof(p->path),
		 "/sys/module/ummunotify/parameters/%s", name);
	return file_get(p->path, p->old, sizeof(p->old)) &&
	       file_set(p->path, value);
}

static inline void param_restore(struct param *p)
{
	if (p->old[0])
		file_set(p->path, p->old);
}

#define PARAM(var) \
	struct param var __attribute__((cleanup(param_restore))) = { .old = "" }

#endif /* UTIL_H */
