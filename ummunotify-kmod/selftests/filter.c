// SPDX-License-Identifier: GPL-2.0
/* FILTER: regions that ignore kinds of events, and none but these. */
#include "feature.h"

#define COOKIE	8
#define FORKS	(KIND(PROTECTION_VMA) | KIND(PROTECTION_PAGE))
#define FILTERS	32

static bool filter_open(struct dev *d)
{
	return dev_open_with(d, FEATURE(FILTER) | FEATURE(KINDS), 0);
}

TEST(only_some_kinds_can_be_ignored)
{
	char *p = area(1);
	struct dev d;
	__u32 mask;

	ASSERT(filter_open(&d));
	for (mask = 0; mask < 256; mask++) {
		EXPECT_EQ(watch_flags(d.fd, p, PAGE, COOKIE, mask, 0),
			  mask & ~UMMUNOTIFY_KINDS_FILTERABLE ? -EINVAL : 0);
		EXPECT_EQ(unwatch(d.fd, COOKIE),
			  mask & ~UMMUNOTIFY_KINDS_FILTERABLE ? -EINVAL : 0);
	}
}

/* Pinned pages are copied for the child: for its parent nothing changes. */
TEST(fork_can_be_ignored)
{
	char *p = area(4), *q = area(4);
	struct dev d;
	__u64 gen;

	ASSERT(filter_open(&d));
	ASSERT_EQ(watch_flags(d.fd, p, 4 * PAGE, 1, FORKS, 0), 0);
	ASSERT_EQ(watch_flags(d.fd, q, 4 * PAGE, 2, KIND(PROTECTION_PAGE), 0),
		  0);
	PIN(p, 4 * PAGE);
	ASSERT_EQ(*d.gen, 0);
	ASSERT(fork_once());
	memset(p, 2, 4 * PAGE);
	EXPECT_EQ(*d.gen, 0);
	EXPECT_QUIET(&d);

	/* Beside it, one that is told. */
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	ASSERT(fork_once());
	EXPECT_EQ(*d.gen, 1);
	EXPECT_ONLY_KINDS(&d, COOKIE, KIND(PROTECTION_PAGE));

	/* And they are watched all the same. */
	gen = *d.gen;
	munmap(p + PAGE, PAGE);
	EXPECT_EQ(*d.gen, gen + 1);
	EXPECT_ONLY_HINT_KINDS(&d, 1, p + PAGE, p + 2 * PAGE, KIND(UNMAP));
}

TEST(fork_is_an_event_otherwise)
{
	static const __u32 features[] = { 0, FEATURE(KINDS), FEATURE(FILTER) };
	char *p = area(1);
	struct dev d;
	unsigned int i;

	/* Not granted, or granted but not asked for. */
	for (i = 0; i < ARRAY_LEN(features); i++) {
		ASSERT(dev_open_with(&d, features[i], 0));
		ASSERT_EQ(watch_flags(d.fd, p, PAGE, COOKIE,
				      features[i] & FEATURE(FILTER) ? 0 : FORKS,
				      0), 0);
		ASSERT(fork_once());
		EXPECT_EQ(*d.gen, 1);
		EXPECT_ONLY(&d, COOKIE);
		dev_close(&d);
	}
}

TEST(mprotect_can_be_ignored)
{
	char *p = area(1);
	struct dev d;

	ASSERT(filter_open(&d));
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 1, KIND(PROTECTION_VMA), 0), 0);
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 2, KIND(PROTECTION_PAGE), 0), 0);
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
	EXPECT_ONLY_KINDS(&d, 2, KIND(PROTECTION_VMA));
	/* Reading does not forget the filter, nor does ignoring disarm. */
	ASSERT(hit(p));
	EXPECT_EQ(drain(d.fd), 2);
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
	EXPECT_ONLY_KINDS(&d, 2, KIND(PROTECTION_VMA));
}

TEST(soft_dirty_can_be_ignored)
{
	char *p = area(1);
	struct dev d;
	__u64 gen;

	ASSERT(filter_open(&d));
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 1, KIND(SOFT_DIRTY), 0), 0);
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 2, FORKS, 0), 0);
	/* Only referenced bits: no event for anybody. */
	ASSERT(clear_refs("1"));
	EXPECT_EQ(*d.gen, 0);
	EXPECT_QUIET(&d);
	if (!clear_refs("4"))
		SKIP("this kernel has no soft-dirty bits");
	gen = *d.gen;
	if (!gen)
		SKIP("soft-dirty bits raise no event");
	EXPECT_ONLY_KINDS(&d, 2, KIND(SOFT_DIRTY));
	p[0] = 2;
	EXPECT_EQ(*d.gen, gen);
	EXPECT_QUIET(&d);
}

/* One region for each mask, on a page of its own, cookie and mask the same. */
static bool watch_masks(struct dev *d, char *p)
{
	__u32 i;

	for (i = 0; i < FILTERS; i++)
		if (watch_flags(d->fd, p + i * PAGE, PAGE, i << 2, i << 2, 0))
			return false;
	return true;
}

/* Those were hit, once each, that do not ignore the kind, and no others. */
static void expect_masks(struct dev *d, char *p, __u32 kind)
{
	struct ummunotify_event ev[FILTERS + 2];
	bool seen[FILTERS] = { false };
	__u32 mask;
	long n, i;

	n = read_events(d->fd, ev, ARRAY_LEN(ev));
	ASSERT_GT(n, 0);
	EXPECT_LAST(ev[n - 1], *d->gen);
	for (i = 0; i < n - 1; i++) {
		mask = ev[i].user_cookie_counter;
		ASSERT(mask < FILTERS << 2);
		EXPECT_EQ(mask & kind, 0);
		EXPECT_EQ(ev[i].flags, UMMUNOTIFY_EVENT_FLAG_HINT |
			  kind << UMMUNOTIFY_EVENT_KINDS_SHIFT);
		EXPECT_EQ(ev[i].hint_start, p + (mask >> 2) * PAGE);
		EXPECT_EQ(ev[i].hint_end, p + ((mask >> 2) + 1) * PAGE);
		EXPECT(!seen[mask >> 2]);
		seen[mask >> 2] = true;
	}
	EXPECT_EQ(n - 1, kind & UMMUNOTIFY_KINDS_FILTERABLE ? FILTERS / 2 :
		  FILTERS);
}

/* A driver that tells the wrong tree's regions, or misses a tree, fails. */
TEST(all_masks_side_by_side)
{
	char *p = area(FILTERS);
	struct dev d;
	int round;

	ASSERT(filter_open(&d));
	ASSERT(settle());
	ASSERT(watch_masks(&d, p));
	for (round = 0; round < 2; round++) {
		__u64 gen = *d.gen;

		ASSERT_EQ(mprotect(p, FILTERS * PAGE, PROT_READ), 0);
		EXPECT_EQ(*d.gen, gen + 1);
		expect_masks(&d, p, KIND(PROTECTION_VMA));
		ASSERT_EQ(mprotect(p, FILTERS * PAGE, PROT_READ | PROT_WRITE),
			  0);
		expect_masks(&d, p, KIND(PROTECTION_VMA));
		ASSERT(fork_once());
		expect_masks(&d, p, KIND(PROTECTION_PAGE));
		gen = *d.gen;
		if (clear_refs("4") && *d.gen != gen)
			expect_masks(&d, p, KIND(SOFT_DIRTY));
		ASSERT_EQ(madvise(p, FILTERS * PAGE, MADV_DONTNEED), 0);
		expect_masks(&d, p, KIND(CLEAR));
		memset(p, 1, FILTERS * PAGE);
		EXPECT_QUIET(&d);
	}
	ASSERT_EQ(munmap(p, FILTERS * PAGE), 0);
	expect_masks(&d, p, KIND(UNMAP));
}

/* On one page there is nothing but the mask to tell them apart. */
TEST(all_masks_on_one_page)
{
	struct ummunotify_event ev[FILTERS + 1];
	char *p = area(1);
	struct dev d;
	__u32 i;
	long n;

	ASSERT(filter_open(&d));
	for (i = 0; i < FILTERS; i++)
		ASSERT_EQ(watch_flags(d.fd, p, PAGE, i << 2, i << 2, 0), 0);
	/* Two kinds: whoever ignores both hears nothing. */
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
	ASSERT(fork_once());
	n = read_events(d.fd, ev, ARRAY_LEN(ev));
	EXPECT_EQ(n - 1, FILTERS * 3 / 4);
	for (i = 0; (long)i < n - 1; i++)
		EXPECT_EQ(kinds_of(&ev[i]),
			  FORKS & ~ev[i].user_cookie_counter);
	ASSERT_EQ(munmap(p, PAGE), 0);
	EXPECT_EQ(drain(d.fd), FILTERS);
}

/* The last region of a tree goes, others stay: no kind is lost with it. */
TEST(masks_come_and_go)
{
	char *p = area(FILTERS);
	unsigned int seed = 1;
	struct dev d;
	__u32 i, there = 0;
	int round;

	ASSERT(filter_open(&d));
	for (round = 0; round < 300; round++) {
		i = rand_r(&seed) % FILTERS;
		if (there & 1u << i)
			EXPECT_EQ(unwatch(d.fd, i), 0);
		else
			EXPECT_EQ(watch_flags(d.fd, p + i * PAGE, PAGE, i,
					      i << 2, 0), 0);
		there ^= 1u << i;
		if (!there)
			continue;
		ASSERT_EQ(madvise(p, FILTERS * PAGE, MADV_DONTNEED), 0);
		EXPECT_EQ(drain(d.fd), __builtin_popcount(there));
		ASSERT_EQ(mprotect(p, FILTERS * PAGE, PROT_READ), 0);
		/* Bit 0 of the number is PROTECTION_VMA. */
		if (there & 0x55555555)
			EXPECT_EQ(drain(d.fd),
				  __builtin_popcount(there & 0x55555555));
		else
			EXPECT_QUIET(&d);
		ASSERT_EQ(mprotect(p, FILTERS * PAGE, PROT_READ | PROT_WRITE),
			  0);
		while (drain(d.fd) > 0)
			;
	}
}

/* What is ignored is no second hit either. */
TEST(hints_are_not_spoiled)
{
	char *p = area(3);
	struct dev d;

	ASSERT(filter_open(&d));
	ASSERT_EQ(watch_flags(d.fd, p, 3 * PAGE, COOKIE, FORKS, 0), 0);
	ASSERT(hit(p + PAGE));
	ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ), 0);
	ASSERT(fork_once());
	EXPECT_EQ(*d.gen, 1);
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p + PAGE, p + 2 * PAGE, KIND(CLEAR));

	ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ | PROT_WRITE), 0);
	ASSERT(hit(p + 2 * PAGE));
	EXPECT_EQ(*d.gen, 2);
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p + 2 * PAGE, p + 3 * PAGE,
			       KIND(CLEAR));

	/* But a second hit that counts is. */
	ASSERT(hit(p));
	ASSERT_EQ(mprotect(p, 3 * PAGE, PROT_READ), 0);
	ASSERT(hit(p + PAGE));
	EXPECT_EQ(*d.gen, 4);
	EXPECT_NO_HINT_KINDS(&d, COOKIE, p, p + 3 * PAGE, KIND(CLEAR));
}

/* Files in one address space: each has its own filters. */
TEST(filters_are_of_the_file)
{
	struct dev plain, filtered;
	char *p = area(1);

	ASSERT(dev_open(&plain));
	ASSERT(filter_open(&filtered));
	ASSERT_EQ(watch_flags(plain.fd, p, PAGE, COOKIE,
			      UMMUNOTIFY_KINDS_FILTERABLE, 0), 0);
	ASSERT_EQ(watch_flags(filtered.fd, p, PAGE, COOKIE,
			      UMMUNOTIFY_KINDS_FILTERABLE, 0), 0);
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
	EXPECT_EQ(*filtered.gen, 0);
	EXPECT_QUIET(&filtered);
	EXPECT_ONLY_HINT(&plain, COOKIE, p, p + PAGE);
}

static long run_register_filtered(struct job *j)
{
	return watch_flags(j->fd, j->p, j->len, j->cookie,
			   UMMUNOTIFY_KINDS_FILTERABLE, 0);
}

/* Ignored or not: REGISTER with a filter waits for what moves pages. */
TEST(register_with_a_filter_waits_too)
{
	struct job jobs[2], *change = &jobs[0], *reg = &jobs[1];
	struct stage s;

	ASSERT(stage_init(&s, 1, jobs, 2));
	ASSERT(dev_negotiate(&s.d, FEATURE(FILTER), 0));
	ASSERT(start_and_hold(&s, change, run_munmap, s.p, PAGE));
	reg->cookie = COOKIE;
	job_start(reg, run_register_filtered, s.p, PAGE);
	sleep_ms(200);
	EXPECT(!job_done(reg));
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(reg));
	EXPECT_EQ(reg->ret, 0);
	ASSERT(job_wait(change));
}
