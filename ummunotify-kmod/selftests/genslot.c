// SPDX-License-Identifier: GPL-2.0
/* GENSLOT: a generation for each region, in a mapping of its own. */
#include "feature.h"

#define COOKIE	9
#define SLOT	UMMUNOTIFY_REGISTER_SLOT
#define SLOTS	(2 * SLOTS_PER_PAGE)

static bool slots_open(struct dev *d, const volatile __u64 **slots)
{
	*slots = NULL;
	if (!dev_open_with(d, FEATURE(GENSLOT) | FEATURE(BATCH), SLOTS))
		return false;
	*slots = map_slots(d->fd, SLOTS);
	return *slots;
}

static long try_mmap(int fd, size_t len, int prot, int flags, off_t off)
{
	void *p = mmap(NULL, len, prot, flags, fd, off);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, len);
	return 0;
}

TEST(what_can_be_mapped)
{
	struct dev d;
	const volatile __u64 *slots;
	unsigned int i;

	ASSERT(slots_open(&d, &slots));
	EXPECT_EQ(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, PAGE), 0);
	EXPECT_EQ(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, 2 * PAGE), 0);
	EXPECT_EQ(try_mmap(d.fd, 1, PROT_READ, MAP_SHARED, 2 * PAGE), 0);
	EXPECT_EQ(try_mmap(d.fd, 2 * PAGE, PROT_READ, MAP_PRIVATE, PAGE), 0);
	EXPECT_EQ(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, 0), 0);
	/* Not both at once, nor beyond. */
	EXPECT_EQ(try_mmap(d.fd, 2 * PAGE, PROT_READ, MAP_SHARED, 0), -EINVAL);
	EXPECT_EQ(try_mmap(d.fd, 3 * PAGE, PROT_READ, MAP_SHARED, PAGE),
		  -EINVAL);
	EXPECT_EQ(try_mmap(d.fd, 2 * PAGE, PROT_READ, MAP_SHARED, 2 * PAGE),
		  -EINVAL);
	EXPECT_EQ(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, 3 * PAGE),
		  -EINVAL);
	EXPECT_EQ(try_mmap(d.fd, 1UL << 40, PROT_READ, MAP_SHARED, PAGE),
		  -EINVAL);
	for (i = 32; i < 63; i++)
		EXPECT_LT(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, 1L << i),
			  0);
	/* Nothing of the kernel's in it. */
	for (i = 0; i < SLOTS; i++)
		EXPECT_EQ(slots[i], 0);
}

TEST(not_granted_no_mapping)
{
	struct dev d;

	ASSERT(dev_open(&d));
	EXPECT_EQ(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, PAGE), -EINVAL);
	ASSERT(dev_open_with(&d, ALL_FEATURES & ~FEATURE(GENSLOT), 0));
	EXPECT_EQ(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, PAGE), -EINVAL);
}

/* Who could write to it could hide a change from himself, or from others. */
TEST(it_is_read_only)
{
	static const int flags[] = { MAP_SHARED, MAP_PRIVATE };
	const volatile __u64 *slots;
	__u64 value = 0x1234;
	char *p = area(1);
	unsigned int i;
	struct dev d;
	int mem;

	ASSERT(slots_open(&d, &slots));
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, COOKIE, SLOT, 1), 0);
	mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	ASSERT_GE(mem, 0);
	for (i = 0; i < ARRAY_LEN(flags); i++) {
		__u64 before = slots[1];

		EXPECT_LT(try_mmap(d.fd, PAGE, PROT_READ | PROT_WRITE, flags[i],
				   PAGE), 0);
		EXPECT_LT(try_mmap(d.fd, PAGE, PROT_WRITE, flags[i], PAGE), 0);
		slots = mmap(NULL, 2 * PAGE, PROT_READ, flags[i], d.fd, PAGE);
		ASSERT(slots != MAP_FAILED);
		EXPECT_EQ(slots[1], before);
		EXPECT_EQ(ret_errno(mprotect((void *)slots, PAGE, PROT_READ |
					     PROT_WRITE)), -EACCES);
		EXPECT_EQ(ret_errno(mprotect((void *)slots, PAGE, PROT_WRITE)),
			  -EACCES);
		EXPECT_EQ(pwrite(mem, &value, sizeof(value), addr(slots)), -1);
		EXPECT_EQ(slots[0], 0);
		EXPECT(mremap((void *)slots, 2 * PAGE, 3 * PAGE,
			      MREMAP_MAYMOVE) == MAP_FAILED);
		/* Still the kernel's page and no copy. */
		ASSERT(hit(p));
		EXPECT_GT(slots[1], before);
		EXPECT_EQ(drain(d.fd), 1);
	}
}

TEST(a_slot_moves_for_its_region_only)
{
	const volatile __u64 *slots;
	char *p = area(64);
	__u64 seen[64], gen;
	unsigned int seed = 5, i, round;
	struct dev d;

	ASSERT(slots_open(&d, &slots));
	/* Over both pages. */
	for (i = 0; i < 64; i++)
		ASSERT_EQ(watch_flags(d.fd, p + i * PAGE, PAGE, i, SLOT,
				      i * 16 + 7), 0);
	for (i = 0; i < SLOTS; i++)
		EXPECT_EQ(slots[i], 0);
	for (round = 0; round < 100; round++) {
		size_t from = rand_r(&seed) % 64;
		size_t n = 1 + rand_r(&seed) % (64 - from);

		for (i = 0; i < 64; i++)
			seen[i] = slots[i * 16 + 7];
		gen = *d.gen;
		ASSERT_EQ(madvise(p + from * PAGE, n * PAGE, MADV_DONTNEED), 0);
		/* The one counter moves as ever, once for each hold of the lock. */
		EXPECT_GT(*d.gen, gen);
		EXPECT_LT(*d.gen, gen + 1 + n);
		for (i = 0; i < 64; i++) {
			if (i >= from && i < from + n)
				EXPECT_GT(slots[i * 16 + 7], seen[i]);
			else
				EXPECT_EQ(slots[i * 16 + 7], seen[i]);
		}
		EXPECT_EQ(drain(d.fd), n);
	}
	for (i = 0; i < SLOTS; i++)
		if (i % 16 != 7)
			EXPECT_EQ(slots[i], 0);
}

TEST(other_memory_leaves_it)
{
	const volatile __u64 *slots;
	char *p = area(3), *q = area(1);
	struct dev d;
	__u64 before;

	ASSERT(slots_open(&d, &slots));
	ASSERT_EQ(watch_flags(d.fd, p + PAGE, PAGE, 1, SLOT, 0), 0);
	ASSERT_EQ(watch(d.fd, q, PAGE, 2), 0);
	ASSERT_EQ(munmap(p, PAGE), 0);
	ASSERT_EQ(munmap(p + 2 * PAGE, PAGE), 0);
	/* A region without a slot moves none. */
	ASSERT(hit(q));
	EXPECT_EQ(*d.gen, 1);
	EXPECT_EQ(slots[0], 0);
	EXPECT_EQ(drain(d.fd), 1);
	ASSERT(hit(p + PAGE));
	before = slots[0];
	EXPECT_GT(before, 0);
	/* Nor does anything but a change. */
	EXPECT_EQ(drain(d.fd), 1);
	EXPECT_EQ(unwatch(d.fd, 1), 0);
	ASSERT(hit(p + PAGE));
	EXPECT_EQ(slots[0], before);
}

TEST(slots_beyond_the_last_are_refused)
{
	const volatile __u64 *slots;
	char *p = area(1);
	struct dev d;

	ASSERT(slots_open(&d, &slots));
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, 1, SLOT, SLOTS), -EINVAL);
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, 1, SLOT, SLOTS + 1), -EINVAL);
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, 1, SLOT, 1u << 31), -EINVAL);
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, 1, SLOT, ~0u), -EINVAL);
	EXPECT_EQ(unwatch(d.fd, 1), -EINVAL);
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, 1, SLOT, SLOTS - 1), 0);
	/* Without the flag the number is none. */
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, 2, 0, ~0u), 0);
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, 3, 0, 5), 0);
	ASSERT(hit(p));
	EXPECT_GT(slots[SLOTS - 1], 0);
	EXPECT_EQ(slots[5], 0);
}

/* A cache entry may be dropped and made again: an old value never comes back. */
TEST(a_slot_never_goes_back)
{
	const volatile __u64 *slots;
	unsigned int seed = 11, i;
	char *p = area(4);
	__u64 last = 0, now;
	bool there = false;
	struct dev d;

	ASSERT(slots_open(&d, &slots));
	for (i = 0; i < 500; i++) {
		size_t page = rand_r(&seed) % 4;

		switch (rand_r(&seed) % 4) {
		case 0:
			if (!there)
				EXPECT_EQ(watch_flags(d.fd, p + page * PAGE,
						      PAGE, 1, SLOT, 3), 0);
			there = true;
			break;
		case 1:
			if (there)
				EXPECT_EQ(unwatch(d.fd, 1), 0);
			there = false;
			break;
		case 2:
			while (drain(d.fd) >= 0)
				;
			break;
		default:
			ASSERT_EQ(madvise(p, 4 * PAGE, MADV_DONTNEED), 0);
			now = slots[3];
			EXPECT_GE(now, last);
			last = now;
			continue;
		}
		/* Only a change moves it. */
		EXPECT_EQ(slots[3], last);
	}
	EXPECT_GT(last, 10);
	EXPECT_EQ(unwatch_all(d.fd), 0);
	EXPECT_EQ(slots[3], last);
}

TEST(two_regions_share_a_slot)
{
	const volatile __u64 *slots;
	char *p = area(1), *q = area(1);
	struct dev d;
	__u64 now;

	ASSERT(slots_open(&d, &slots));
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 1, SLOT, 2), 0);
	ASSERT_EQ(watch_flags(d.fd, q, PAGE, 2, SLOT, 2), 0);
	ASSERT(hit(p));
	now = slots[2];
	EXPECT_GT(now, 0);
	ASSERT(hit(q));
	EXPECT_GT(slots[2], now);
	now = slots[2];
	EXPECT_EQ(unwatch(d.fd, 1), 0);
	EXPECT_EQ(drain(d.fd), 1);
	ASSERT(hit(q));
	EXPECT_GT(slots[2], now);
}

/* Ignored is not a change: the slot stands still, and so does the counter. */
TEST(what_is_ignored_leaves_it)
{
	const volatile __u64 *slots;
	char *p = area(1);
	struct dev d;

	ASSERT(dev_open_with(&d, FEATURE(GENSLOT) | FEATURE(FILTER), 1));
	slots = map_slots(d.fd, 1);
	ASSERT(slots);
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 1, SLOT | KIND(PROTECTION_VMA), 0),
		  0);
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
	EXPECT_EQ(slots[0], 0);
	EXPECT_EQ(*d.gen, 0);
	ASSERT(hit(p));
	EXPECT_GT(slots[0], 0);
	EXPECT_EQ(*d.gen, 1);
}

/* All is invalid for who is not the owner, also where the page was present. */
TEST(a_child_reads_all_ones)
{
	const volatile __u64 *slots, *private;
	char *p = area(1);
	struct dev d;
	unsigned int i;
	pid_t pid;

	ASSERT(slots_open(&d, &slots));
	private = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, d.fd, PAGE);
	ASSERT(private != MAP_FAILED);
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 1, SLOT, 1), 0);
	EXPECT_EQ(slots[0] + slots[SLOTS - 1] + private[0], 0);
	pid = fork();
	if (!pid) {
		for (i = 0; i < SLOTS; i++) {
			EXPECT_EQ(slots[i], ALL_ONES);
			EXPECT_EQ(private[i], ALL_ONES);
		}
		EXPECT_EQ(*d.gen, ALL_ONES);
		pid = fork();
		if (!pid) {
			EXPECT_EQ(slots[0], ALL_ONES);
			child_exit();
		}
		EXPECT_CHILD_OK(pid);
		child_exit();
	}
	EXPECT_CHILD_OK(pid);
	EXPECT_EQ(slots[0], 0);
	EXPECT_EQ(slots[1], 1);
}

TEST(parts_of_the_mapping)
{
	const volatile __u64 *slots, *second;
	char *p = area(2);
	struct dev d;
	__u64 now;

	ASSERT(slots_open(&d, &slots));
	second = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, d.fd, 2 * PAGE);
	ASSERT(second != MAP_FAILED);
	ASSERT_EQ(watch_flags(d.fd, p, PAGE, 1, SLOT, 1), 0);
	ASSERT_EQ(watch_flags(d.fd, p + PAGE, PAGE, 2, SLOT,
			      SLOTS_PER_PAGE + 1), 0);
	ASSERT_EQ(munmap((void *)slots, PAGE), 0);
	ASSERT(hit(p));
	EXPECT_EQ(slots[SLOTS_PER_PAGE + 1], 0);
	EXPECT_EQ(second[1], 0);
	ASSERT(hit(p + PAGE));
	EXPECT_GT(slots[SLOTS_PER_PAGE + 1], 0);
	EXPECT_EQ(second[1], slots[SLOTS_PER_PAGE + 1]);
	EXPECT_EQ(drain(d.fd), 2);

	/* Nobody looks at the first page, and yet it is kept. */
	ASSERT(hit(p));
	slots = map_slots(d.fd, SLOTS_PER_PAGE);
	ASSERT(slots);
	now = slots[1];
	EXPECT_GE(now, 2);

	/* The mapping keeps the file. */
	munmap((void *)d.gen, PAGE);
	munmap((void *)second, PAGE);
	EXPECT_EQ(drain(d.fd), 1);
	close(d.fd);
	ASSERT(hit(p));
	EXPECT_GT(slots[1], now);
	/* And a page that was dropped comes back. */
	now = slots[1];
	madvise((void *)slots, PAGE, MADV_DONTNEED);
	EXPECT_EQ(slots[1], now);
}

/* Moved while the old page is still mapped: who loads it in time is warned. */
TEST(a_slot_moves_before_the_page_goes)
{
	const volatile __u64 *slots;
	struct job change;
	struct stage s;

	ASSERT(stage_init(&s, 2, &change, 1));
	ASSERT(dev_negotiate(&s.d, FEATURE(GENSLOT), 1));
	slots = map_slots(s.d.fd, 1);
	ASSERT(slots);
	EXPECT_EQ(slots[0] + slots[1], 0);
	ASSERT_EQ(watch_flags(s.d.fd, s.p, PAGE, 1, SLOT, 0), 0);
	ASSERT_EQ(watch_flags(s.d.fd, s.p + PAGE, PAGE, 2, SLOT, 1), 0);
	ASSERT(start_and_hold(&s, &change, run_munmap, s.p, PAGE));
	EXPECT_EQ(slots[0], 1);
	EXPECT_EQ(slots[1], 0);
	EXPECT_EQ(s.p[0], 1);
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(&change));
}

#define STEPS 2000

static struct {
	char *p;
	unsigned int done;
} steps;

static void *unmapper(void *arg)
{
	unsigned int i;

	(void)arg;
	for (i = 0; i < STEPS; i++) {
		munmap(steps.p + i * PAGE, PAGE);
		__atomic_store_n(&steps.done, i + 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* What another thread has unmapped, the slots have said before. */
TEST(slots_are_ahead_of_munmap)
{
	const volatile __u64 *slots;
	unsigned int seen = 0, late = 0, i;
	pthread_t t;
	struct dev d;

	steps.p = area(STEPS);
	ASSERT(steps.p);
	ASSERT(dev_open_with(&d, FEATURE(GENSLOT), STEPS));
	slots = map_slots(d.fd, STEPS);
	ASSERT(slots);
	for (i = 0; i < STEPS; i++)
		ASSERT_EQ(watch_flags(d.fd, steps.p + i * PAGE, PAGE, i, SLOT,
				      i), 0);
	ASSERT_EQ(pthread_create(&t, NULL, unmapper, NULL), 0);
	while (seen < STEPS) {
		unsigned int done = __atomic_load_n(&steps.done,
						    __ATOMIC_ACQUIRE);

		for (; seen < done; seen++)
			late += !slots[seen];
	}
	pthread_join(t, NULL);
	EXPECT_EQ(late, 0);
	EXPECT_EQ(drain(d.fd), STEPS);
}
