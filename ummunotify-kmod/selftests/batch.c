// SPDX-License-Identifier: GPL-2.0
/* REGISTER_BATCH, UNREGISTER_BATCH and UNREGISTER_ALL. */
#include "feature.h"

#define REGISTER	UMMUNOTIFY_REGISTER_BATCH
#define UNREGISTER	UMMUNOTIFY_UNREGISTER_BATCH
#define MANY		1000

static struct ummunotify_register_ioctl r[MANY];
static __u64 cookies[MANY];

static __u32 fill(const char *p)
{
	__u32 i;

	for (i = 0; i < MANY; i++) {
		r[i] = (struct ummunotify_register_ioctl){
			.start = addr(p) + i * PAGE,
			.end = addr(p) + (i + 1) * PAGE,
			.user_cookie = i + 1,
		};
		cookies[i] = i + 1;
	}
	return MANY;
}

static bool batch_open(struct dev *d)
{
	return dev_open_with(d, FEATURE(BATCH) | FEATURE(STATS), 0);
}

#define EXPECT_BATCH(fd, cmd, entries_, count_, done_, error_) do {	\
	struct ummunotify_batch b_;					\
									\
	EXPECT_EQ(batch(fd, cmd, entries_, count_, &b_), 0);		\
	EXPECT_EQ(b_.done, done_);					\
	EXPECT_EQ(b_.error, error_);					\
	EXPECT_EQ(b_.count, count_);					\
} while (0)

TEST(all_of_it)
{
	char *p = area(MANY);
	struct dev d;

	ASSERT(batch_open(&d));
	fill(p);
	EXPECT_BATCH(d.fd, REGISTER, r, MANY, MANY, 0);
	EXPECT_EQ(stats_of(&d)->regions, MANY);
	EXPECT_EQ(*d.gen, 0);
	/* Every one of them is watched, where it should be. */
	ASSERT(hit(p + 777 * PAGE));
	EXPECT_ONLY_HINT(&d, 778, p + 777 * PAGE, p + 778 * PAGE);
	ASSERT_EQ(madvise(p, MANY * PAGE, MADV_DONTNEED), 0);
	EXPECT_EQ(drain(d.fd), MANY);
	EXPECT_BATCH(d.fd, UNREGISTER, cookies, MANY, MANY, 0);
	EXPECT_EQ(stats_of(&d)->regions, 0);
	ASSERT_EQ(munmap(p, MANY * PAGE), 0);
	EXPECT_QUIET(&d);
}

TEST(nothing_is_a_batch_too)
{
	struct dev d;

	ASSERT(batch_open(&d));
	EXPECT_BATCH(d.fd, REGISTER, NULL, 0, 0, 0);
	EXPECT_BATCH(d.fd, UNREGISTER, NULL, 0, 0, 0);
	EXPECT_EQ(unwatch_all(d.fd), 0);
	EXPECT_EQ(stats_of(&d)->regions, 0);
}

/* What stands before the error is done, and nothing after it. */
TEST(an_error_in_the_middle)
{
	static const __u32 at[] = { 0, 1, 127, 128, 129, 500, MANY - 1 };
	char *p = area(MANY);
	unsigned int i;
	struct dev d;

	for (i = 0; i < ARRAY_LEN(at); i++) {
		__u32 n = at[i];

		ASSERT(batch_open(&d));
		fill(p);
		r[n].end = r[n].start - 1;
		EXPECT_BATCH(d.fd, REGISTER, r, MANY, n, EINVAL);
		EXPECT_EQ(stats_of(&d)->regions, n);
		if (n)
			EXPECT_EQ(unwatch(d.fd, n), 0);
		EXPECT_EQ(unwatch(d.fd, n + 1), -EINVAL);
		if (n + 1 < MANY)
			EXPECT_EQ(unwatch(d.fd, n + 2), -EINVAL);
		if (n)
			EXPECT_EQ(watch(d.fd, p, PAGE, n), 0);

		/* From there it goes on. */
		fill(p);
		EXPECT_BATCH(d.fd, REGISTER, r + n, MANY - n, MANY - n, 0);
		EXPECT_EQ(stats_of(&d)->regions, MANY);

		cookies[n] = 0xdead;
		EXPECT_BATCH(d.fd, UNREGISTER, cookies, MANY, n, EINVAL);
		EXPECT_EQ(stats_of(&d)->regions, MANY - n);
		dev_close(&d);
	}
}

TEST(a_cookie_twice_in_one_batch)
{
	char *p = area(4);
	struct dev d;

	ASSERT(batch_open(&d));
	fill(p);
	r[2].user_cookie = r[0].user_cookie;
	EXPECT_BATCH(d.fd, REGISTER, r, 4, 2, EINVAL);
	cookies[1] = cookies[0];
	EXPECT_BATCH(d.fd, UNREGISTER, cookies, 2, 1, EINVAL);
	EXPECT_EQ(stats_of(&d)->regions, 1);
}

TEST(the_structure_itself)
{
	struct {
		struct ummunotify_batch b;
		__u64 more[2];
	} l = { .b = { .entries = 1 } };
	struct ummunotify_negotiate n = {
		.size = sizeof(n), .features = FEATURE(BATCH),
	};
	struct ummunotify_batch b;
	struct dev d;
	__u32 size;

	ASSERT(dev_open(&d));
	ASSERT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(batch(d.fd, REGISTER, r, n.max_batch + 1, &b), -EINVAL);
	EXPECT_EQ(batch(d.fd, REGISTER, r, ~0u, &b), -EINVAL);
	EXPECT_EQ(batch(d.fd, UNREGISTER, r, n.max_batch + 1, &b), -EINVAL);
	EXPECT_EQ(b.done, 0xdead);
	EXPECT_EQ(ret_errno(ioctl(d.fd, REGISTER, NULL)), -EFAULT);
	for (size = 0; size < sizeof(l.b); size++) {
		l.b.size = size;
		EXPECT_EQ(ret_errno(ioctl(d.fd, REGISTER, &l)), -EINVAL);
	}
	l.b.size = sizeof(l);
	EXPECT_EQ(ret_errno(ioctl(d.fd, REGISTER, &l)), 0);
	EXPECT_EQ(l.b.done + l.b.error, 0);
	l.more[1] = 1;
	EXPECT_EQ(ret_errno(ioctl(d.fd, REGISTER, &l)), -E2BIG);
}

/* Entries that cannot be read: those before them are done. */
TEST(bad_entries)
{
	static const __u32 good[] = { 0, 1, 5, 100 };
	char *p = area(MANY), *q = area(1);
	struct ummunotify_register_ioctl *tail;
	unsigned int i;
	struct dev d;

	ASSERT(batch_open(&d));
	fill(p);
	EXPECT_BATCH(d.fd, REGISTER, NULL, 3, 0, EFAULT);
	EXPECT_BATCH(d.fd, REGISTER, (void *)~0UL, 3, 0, EFAULT);
	EXPECT_BATCH(d.fd, REGISTER, (void *)(~0UL - 31), 3, 0, EFAULT);
	EXPECT_BATCH(d.fd, UNREGISTER, (void *)(1UL << 63), 3, 0, EFAULT);
	EXPECT_EQ(stats_of(&d)->regions, 0);
	for (i = 0; i < ARRAY_LEN(good); i++) {
		/* The area ends after so many, and a gap follows. */
		tail = (void *)(q + PAGE - good[i] * sizeof(*tail));
		memcpy(tail, r, good[i] * sizeof(*tail));
		EXPECT_BATCH(d.fd, REGISTER, tail, good[i] + 2, good[i],
			     EFAULT);
		EXPECT_EQ(stats_of(&d)->regions, good[i]);
		EXPECT_EQ(unwatch_all(d.fd), 0);

		/* And one that is only half there. */
		tail = (void *)(q + PAGE - good[i] * sizeof(*tail) - 16);
		memcpy(tail, r, good[i] * sizeof(*tail));
		EXPECT_BATCH(d.fd, REGISTER, tail, good[i] + 2, good[i],
			     EFAULT);
		EXPECT_EQ(stats_of(&d)->regions, good[i]);
		EXPECT_EQ(unwatch_all(d.fd), 0);
	}
}

/* Each entry has the flags of REGISTER. */
TEST(entries_have_flags)
{
	char *p = area(4);
	struct dev d;

	ASSERT(dev_open_with(&d, FEATURE(BATCH) | FEATURE(FILTER) |
			     FEATURE(STRICT) | FEATURE(STATS), 0));
	fill(p);
	r[1].flags = KIND(PROTECTION_VMA);
	r[3].flags = KIND(UNMAP);
	EXPECT_BATCH(d.fd, REGISTER, r, 4, 3, EINVAL);
	r[3].flags = UMMUNOTIFY_REGISTER_ONESHOT;
	EXPECT_BATCH(d.fd, REGISTER, r + 3, 1, 0, EINVAL);
	ASSERT_EQ(mprotect(p, 4 * PAGE, PROT_READ), 0);
	EXPECT_EQ(drain(d.fd), 2);
}

TEST(unregister_all)
{
	struct ummunotify_event ev[2];
	char *p = area(MANY);
	struct dev d, other;
	int i;

	ASSERT(batch_open(&d));
	ASSERT(batch_open(&other));
	fill(p);
	EXPECT_BATCH(other.fd, REGISTER, r, 3, 3, 0);
	for (i = 0; i < 3; i++) {
		__u64 gen;

		EXPECT_BATCH(d.fd, REGISTER, r, MANY, MANY, 0);
		/* Some with an event, of which some were hit twice. */
		ASSERT_EQ(madvise(p, 300 * PAGE, MADV_DONTNEED), 0);
		ASSERT_EQ(madvise(p, 100 * PAGE, MADV_DONTNEED), 0);
		gen = *d.gen;
		EXPECT_EQ(unwatch_all(d.fd), 0);
		EXPECT_EQ(stats_of(&d)->regions, 0);
		/* The counter moved, and this says up to where. */
		EXPECT_EQ(*d.gen, gen);
		EXPECT_EQ(read_events(d.fd, ev, 2), 1);
		EXPECT_LAST(ev[0], *d.gen);
		EXPECT_QUIET(&d);
		ASSERT_EQ(madvise(p, MANY * PAGE, MADV_DONTNEED), 0);
		EXPECT_QUIET(&d);
		EXPECT_EQ(*d.gen, gen);
		EXPECT_EQ(unwatch(d.fd, 1), -EINVAL);
	}
	/* The other file's are still there. */
	EXPECT_EQ(drain(other.fd), 3);
	EXPECT_EQ(stats_of(&other)->regions, 3);
}

TEST_TIMEOUT(a_hundred_thousand, 120)
{
	const __u32 n = 100000;
	char *p = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		       MAP_NORESERVE, -1, 0);
	struct ummunotify_event ev[2];
	struct dev d;
	__u64 gen;
	int i;

	ASSERT(p != MAP_FAILED);
	ASSERT(batch_open(&d));
	for (i = 0; i < 2; i++) {
		ASSERT(watch_pages(d.fd, p, n, 0));
		EXPECT_EQ(stats_of(&d)->regions, n);
		if (i)
			ASSERT_EQ(munmap(p, n / 2 * PAGE), 0);
		EXPECT_EQ(unwatch_all(d.fd), 0);
		EXPECT_EQ(stats_of(&d)->regions, 0);
		EXPECT_EQ(read_events(d.fd, ev, 2), i ? 1 : -EAGAIN);
	}
	gen = *d.gen;
	EXPECT_GT(gen, 0);
	EXPECT_LAST(ev[0], gen);
	ASSERT_EQ(munmap(p, n * PAGE), 0);
	EXPECT_EQ(*d.gen, gen);
}
