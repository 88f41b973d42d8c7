/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of the negotiated features share. */
#ifndef FEATURE_H
#define FEATURE_H

#include "hold.h"

#include <sys/uio.h>
#include <linux/io_uring.h>

#define FEATURE(name)	UMMUNOTIFY_FEATURE_##name
#define KIND(name)	UMMUNOTIFY_KIND_##name

#define ALL_FEATURES	0x7ffu
#define SLOTS_PER_PAGE	(PAGE / sizeof(__u64))

static inline long negotiate(int fd, struct ummunotify_negotiate *n)
{
	return ret_errno(ioctl(fd, UMMUNOTIFY_NEGOTIATE, n));
}

/* True if everything that was wanted was granted. */
static inline bool dev_negotiate(struct dev *d, __u32 features, __u32 slots)
{
	struct ummunotify_negotiate n = {
		.size = sizeof(n), .features = features, .slots = slots,
	};

	return !negotiate(d->fd, &n) && n.features == features &&
	       n.slots >= slots;
}

/* Opens the device; the same. */
static inline bool dev_open_with(struct dev *d, __u32 features, __u32 slots)
{
	return dev_open(d) && dev_negotiate(d, features, slots);
}

/* The mapping would keep the file open. */
static inline void dev_close(struct dev *d)
{
	munmap((void *)d->gen, PAGE);
	close(d->fd);
}

static inline long watch_flags(int fd, const volatile void *p, size_t len,
			       __u64 cookie, __u32 flags, __u32 slot)
{
	struct ummunotify_register_ioctl r = {
		.start = addr(p), .end = addr(p) + len, .user_cookie = cookie,
		.flags = flags, .reserved = slot,
	};

	return ret_errno(ioctl(fd, UMMUNOTIFY_REGISTER_REGION, &r));
}

static inline const volatile __u64 *map_slots(int fd, __u32 slots)
{
	void *p = mmap(NULL, slots * sizeof(__u64), PROT_READ, MAP_SHARED, fd,
		       PAGE);

	return p == MAP_FAILED ? NULL : p;
}

static inline const volatile struct ummunotify_stats *stats_of(struct dev *d)
{
	return (const volatile void *)((const volatile char *)d->gen +
				       UMMUNOTIFY_STATS_AT);
}

static inline long note(int fd, __u64 cookie)
{
	return ret_errno(ioctl(fd, UMMUNOTIFY_NOTE, &cookie));
}

static inline long verify(int fd, __u64 cookie)
{
	return ret_errno(ioctl(fd, UMMUNOTIFY_VERIFY, &cookie));
}

static inline long batch(int fd, unsigned int cmd, const void *entries,
			 __u32 count, struct ummunotify_batch *b)
{
	*b = (struct ummunotify_batch){
		.size = sizeof(*b), .count = count, .entries = addr(entries),
		.done = 0xdead, .error = 0xdead,
	};
	return ret_errno(ioctl(fd, cmd, b));
}

static inline long unwatch_all(int fd)
{
	return ret_errno(ioctl(fd, UMMUNOTIFY_UNREGISTER_ALL, 0));
}

/* Registers many neighbours of a page each, cookies from 0; true if all are. */
static inline bool watch_pages(int fd, const char *p, __u32 n, __u32 flags)
{
	struct ummunotify_register_ioctl *r = calloc(n, sizeof(*r));
	struct ummunotify_batch b;
	__u32 i, count;
	bool ok = r;

	for (i = 0; ok && i < n; i++) {
		r[i].start = addr(p) + i * PAGE;
		r[i].end = r[i].start + PAGE;
		r[i].user_cookie = i;
		r[i].flags = flags;
	}
	for (i = 0; ok && i < n; i += count) {
		count = n - i < 65536 ? n - i : 65536;
		ok = !batch(fd, UMMUNOTIFY_REGISTER_BATCH, &r[i], count, &b) &&
		     b.done == count && !b.error;
	}
	free(r);
	return ok;
}

static inline __u32 kinds_of(const struct ummunotify_event *ev)
{
	return ev->flags >> UMMUNOTIFY_EVENT_KINDS_SHIFT;
}

/* The only region that was hit is this one, by these kinds. */
#define EXPECT_ONLY_KINDS(d, cookie, kinds) do {			\
	struct ummunotify_event ev_[3] = { 0 };				\
									\
	EXPECT_EQ(read_events((d)->fd, ev_, 3), 2);			\
	EXPECT_INVAL(ev_[0], cookie);					\
	EXPECT_EQ(kinds_of(&ev_[0]), kinds);				\
	EXPECT_LAST(ev_[1], *(d)->gen);					\
	EXPECT_EQ(ev_[1].flags, 0);					\
} while (0)

#define EXPECT_ONLY_EXACT(d, cookie, from, to, flags_, kinds) do {	\
	struct ummunotify_event ev_[3] = { 0 };				\
									\
	EXPECT_EQ(read_events((d)->fd, ev_, 3), 2);			\
	EXPECT_INVAL(ev_[0], cookie);					\
	EXPECT_EQ(ev_[0].flags, (flags_) |				\
		  (kinds) << UMMUNOTIFY_EVENT_KINDS_SHIFT);		\
	EXPECT_EQ(ev_[0].hint_start, from);				\
	EXPECT_EQ(ev_[0].hint_end, to);					\
	EXPECT_LAST(ev_[1], *(d)->gen);					\
} while (0)

#define EXPECT_ONLY_HINT_KINDS(d, cookie, from, to, kinds)		\
	EXPECT_ONLY_EXACT(d, cookie, from, to,				\
			  UMMUNOTIFY_EVENT_FLAG_HINT, kinds)

#define EXPECT_NO_HINT_KINDS(d, cookie, from, to, kinds)		\
	EXPECT_ONLY_EXACT(d, cookie, from, to, 0, kinds)

/*
 * Pins memory for long, as an RDMA driver does: a fixed buffer of an io_uring.
 * The pages are pinned until the descriptor is closed.
 */
static inline int pin(void *p, size_t len)
{
	struct io_uring_params params = { 0 };
	struct iovec iov = { p, len };
	int fd = syscall(SYS_io_uring_setup, 1, &params);

	if (fd < 0)
		return -errno;
	if (syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, &iov,
		    1)) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

#define PIN(p, len) do {						\
	int pin_ = pin(p, len);						\
									\
	if (pin_ == -ENOSYS || pin_ == -EPERM)				\
		SKIP("no io_uring to pin memory with");			\
	ASSERT_GE(pin_, 0);						\
} while (0)

/* A child that lives until the gate opens. */
static inline pid_t fork_child(struct gate *g)
{
	pid_t pid = fork();

	if (!pid) {
		gate_wait(g);
		_exit(0);
	}
	return pid;
}

/* A fork and nothing else. */
static inline bool fork_once(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid > 0 && !child_status(pid);
}

static inline bool clear_refs(const char *what)
{
	return file_set("/proc/self/clear_refs", what);
}

static inline bool hit(char *p)
{
	return !madvise(p, PAGE, MADV_DONTNEED);
}

/* For the rest of the scope. */
#define LIMIT(var, name, value)						\
	PARAM(var);							\
	if (!param_set(&var, name, value))				\
		SKIP(name " cannot be written")

/*
 * A file that is open all the time: with a user's last file, what is counted
 * for him is forgotten.
 */
static inline int balance_begin(void)
{
	return open(DEVICE, O_RDONLY | O_CLOEXEC);
}

/* If this user had anything more than that, this would be too much. */
static inline void expect_balance(int keeper)
{
	char *p = area(1);
	struct dev d;

	ASSERT_GE(keeper, 0);
	LIMIT(files, "max_user_files", "2");
	LIMIT(regions, "max_user_regions", "1");
	LIMIT(mm_regions, "max_mm_regions", "1");
	/* The last of a child's files may be closed a little after its end. */
	ASSERT(WAIT_FOR(dev_open(&d), 3000));
	EXPECT_EQ(ret_errno(open(DEVICE, O_RDONLY | O_CLOEXEC)), -EMFILE);
	EXPECT_EQ(watch(d.fd, p, PAGE, 1), 0);
	EXPECT_EQ(watch(d.fd, p, PAGE, 2), -ENOSPC);
	EXPECT_EQ(unwatch(d.fd, 1), 0);
	EXPECT_EQ(watch(d.fd, p, PAGE, 2), 0);
	dev_close(&d);
	close(keeper);
}

#endif /* FEATURE_H */
