// SPDX-License-Identifier: GPL-2.0
/* KINDS: events tell what has happened. */
#include "feature.h"

#define COOKIE 12

static bool scene_init(struct dev *d, char **p)
{
	*p = area(3);
	return *p && settle() && dev_open_with(d, FEATURE(KINDS), 0) &&
	       !watch(d->fd, *p, 3 * PAGE, COOKIE);
}

TEST(munmap_is_unmap)
{
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	munmap(p + PAGE, PAGE);
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p + PAGE, p + 2 * PAGE, KIND(UNMAP));
}

TEST(mremap_is_unmap)
{
	struct dev d;
	char *p, *q = area(3);

	ASSERT(scene_init(&d, &p));
	ASSERT(mremap(p, 3 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, q) ==
	       q);
	EXPECT_ONLY_KINDS(&d, COOKIE, KIND(UNMAP));
}

TEST(dontneed_is_clear)
{
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	ASSERT(hit(p));
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p, p + PAGE, KIND(CLEAR));
}

/* What another process does to a file. */
TEST(truncate_is_clear)
{
	int m = memfd_create("shared", MFD_CLOEXEC);
	struct gate go;
	struct dev d;
	pid_t pid;
	char *p;

	ASSERT_EQ(ftruncate(m, PAGE), 0);
	ASSERT(gate_init(&go));
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
	ASSERT(p != MAP_FAILED);
	p[0] = 1;
	pid = fork();
	if (!pid) {
		gate_wait(&go);
		munmap(p, PAGE);
		_exit(!!ftruncate(m, 0));
	}
	ASSERT(dev_open_with(&d, FEATURE(KINDS), 0));
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	gate_open(&go);
	EXPECT_CHILD_OK(pid);
	EXPECT_ONLY_KINDS(&d, COOKIE, KIND(CLEAR));
}

TEST(mprotect_is_protection_vma)
{
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ), 0);
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p, p + 3 * PAGE,
			       KIND(PROTECTION_VMA));
}

TEST(fork_is_protection_page)
{
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	ASSERT(fork_once());
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p, p + 3 * PAGE,
			       KIND(PROTECTION_PAGE));
}

/* The copy that a write makes is another matter than the fork. */
TEST(copy_on_write_is_clear)
{
	struct gate go;
	struct dev d;
	pid_t pid;
	char *p;

	ASSERT(gate_init(&go));
	ASSERT(scene_init(&d, &p));
	pid = fork_child(&go);
	EXPECT_ONLY_KINDS(&d, COOKIE, KIND(PROTECTION_PAGE));
	p[PAGE] = 2;
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p + PAGE, p + 2 * PAGE, KIND(CLEAR));
	gate_open(&go);
	EXPECT_CHILD_OK(pid);
}

TEST(clear_refs_is_soft_dirty)
{
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	if (!clear_refs("4") || !*d.gen)
		SKIP("soft-dirty bits raise no event");
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p, p + 3 * PAGE, KIND(SOFT_DIRTY));
}

TEST(two_kinds)
{
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ), 0);
	ASSERT(hit(p));
	EXPECT_NO_HINT_KINDS(&d, COOKIE, p, p + 3 * PAGE,
			     KIND(PROTECTION_VMA) | KIND(CLEAR));
	/* What was read is over. */
	ASSERT(hit(p));
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p, p + PAGE, KIND(CLEAR));
}

/*
 * A driver that stops looking at a region after its second hit calls it
 * harmless when the third takes the memory away.
 */
TEST(three_kinds)
{
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ), 0);
	ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ | PROT_WRITE), 0);
	ASSERT(fork_once());
	ASSERT(fork_once());
	ASSERT_EQ(munmap(p + PAGE, PAGE), 0);
	EXPECT_NO_HINT_KINDS(&d, COOKIE, p, p + 3 * PAGE,
			     KIND(PROTECTION_VMA) | KIND(PROTECTION_PAGE) |
			     KIND(UNMAP));
	ASSERT_EQ(munmap(p, PAGE), 0);
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p, p + PAGE, KIND(UNMAP));
}

/* The same in every order, with regions that come and go in between. */
TEST(kinds_in_any_order)
{
	static const __u32 kinds[] = {
		KIND(PROTECTION_VMA), KIND(PROTECTION_PAGE), KIND(SOFT_DIRTY),
	};
	unsigned int seed = 3, i, n;
	__u32 want, harmless = kinds[0] | kinds[1];
	int toggle = PROT_WRITE;
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	if (clear_refs("4") && *d.gen) {
		EXPECT_EQ(drain(d.fd), 1);
		harmless |= kinds[2];
	}
	for (i = 0; i < 40; i++) {
		want = 0;
		for (n = 1 + rand_r(&seed) % 6; n; n--) {
			__u32 kind = kinds[rand_r(&seed) % 3] & harmless;

			if (kind == KIND(PROTECTION_VMA))
				ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ |
					  (toggle ^= PROT_WRITE)), 0);
			if (kind == KIND(PROTECTION_PAGE))
				ASSERT(fork_once());
			if (kind == KIND(SOFT_DIRTY))
				ASSERT(clear_refs("4"));
			want |= kind;
			EXPECT_EQ(watch(d.fd, p, PAGE, COOKIE + 1), 0);
			EXPECT_EQ(unwatch(d.fd, COOKIE + 1), 0);
		}
		/* Twice, or not at all: both take it out of sight. */
		if (rand_r(&seed) & 1) {
			ASSERT(hit(p));
			ASSERT(hit(p));
			want |= KIND(CLEAR);
		}
		if (want)
			EXPECT_ONLY_KINDS(&d, COOKIE, want);
		EXPECT_QUIET(&d);
	}
}

/* An event that could not be delivered keeps its kinds, and takes new ones. */
TEST(a_failed_read_keeps_the_kinds)
{
	struct ummunotify_event *bad;
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p));
	bad = (void *)(area(1) - PAGE);
	ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ), 0);
	EXPECT_EQ(read_events(d.fd, bad, 2), -EFAULT);
	EXPECT_EQ(read_events(d.fd, bad, 2), -EFAULT);
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p, p + 3 * PAGE,
			       KIND(PROTECTION_VMA));
	ASSERT(fork_once());
	EXPECT_EQ(read_events(d.fd, bad, 2), -EFAULT);
	ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ | PROT_WRITE), 0);
	EXPECT_EQ(read_events(d.fd, bad, 2), -EFAULT);
	ASSERT(hit(p));
	EXPECT_NO_HINT_KINDS(&d, COOKIE, p, p + 3 * PAGE,
			     KIND(CLEAR) | KIND(PROTECTION_PAGE) |
			     KIND(PROTECTION_VMA));
}

TEST(each_region_has_its_own_kinds)
{
	struct ummunotify_event ev[4];
	struct dev d;
	char *p;
	long n, i;

	ASSERT(scene_init(&d, &p));
	ASSERT_EQ(unwatch(d.fd, COOKIE), 0);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(watch(d.fd, p + i * PAGE, PAGE, i), 0);
	ASSERT_EQ(mprotect(p, 2 * PAGE, PROT_READ), 0);
	ASSERT_EQ(madvise(p + PAGE, 2 * PAGE, MADV_DONTNEED), 0);
	n = read_events(d.fd, ev, 4);
	ASSERT_EQ(n, 4);
	for (i = 0; i < 3; i++) {
		static const __u32 want[] = {
			KIND(PROTECTION_VMA),
			KIND(PROTECTION_VMA) | KIND(CLEAR),
			KIND(CLEAR),
		};

		ASSERT(ev[i].user_cookie_counter < 3);
		EXPECT_EQ(kinds_of(&ev[i]), want[ev[i].user_cookie_counter]);
	}
}

TEST(not_granted_is_not_shown)
{
	static const __u32 features[] = {
		0, FEATURE(FILTER) | FEATURE(STATS),
		ALL_FEATURES & ~FEATURE(KINDS),
	};
	char *p = area(3);
	struct dev d;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(features); i++) {
		ASSERT(i ? dev_open_with(&d, features[i],
					 !!(features[i] & FEATURE(GENSLOT))) :
		       dev_open(&d));
		ASSERT_EQ(watch(d.fd, p, 3 * PAGE, COOKIE), 0);
		ASSERT(hit(p));
		EXPECT_ONLY_HINT(&d, COOKIE, p, p + PAGE);
		ASSERT(hit(p));
		ASSERT(fork_once());
		ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
		ASSERT_EQ(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
		EXPECT_EQ(poll_now(d.fd), POLLIN | POLLRDNORM);
		EXPECT_ONLY_EXACT(&d, COOKIE, p, p + 3 * PAGE, 0, 0);
		dev_close(&d);
	}
}

/* REGISTER that could not wait is a kind of its own, not a guess. */
TEST(doubt_is_other)
{
	struct job change;
	struct stage s;

	ASSERT(stage_init(&s, 1, &change, 1));
	ASSERT(dev_negotiate(&s.d, FEATURE(KINDS), 0));
	ASSERT(start_and_hold(&s, &change, run_dontneed, s.p, PAGE));
	EXPECT_EQ(watch(s.d.fd, s.p, PAGE, COOKIE), 0);
	EXPECT_EQ(held(s.hold), 1);
	EXPECT_ONLY_KINDS(&s.d, COOKIE, KIND(OTHER));
	/* Armed by that read in the middle of it: once more, by its name. */
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(&change));
	EXPECT_ONLY_KINDS(&s.d, COOKIE, KIND(CLEAR));
}
