// SPDX-License-Identifier: GPL-2.0
/* The mapped counter: what it shows, and that nobody can write to it. */
#include "util.h"

#define COOKIE 5

static long try_mmap(int fd, size_t len, int prot, int flags, off_t off)
{
	void *p = mmap(NULL, len, prot, flags, fd, off);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, len);
	return 0;
}

static void hit(char *p)
{
	EXPECT_EQ(madvise(p, PAGE, MADV_DONTNEED), 0);
}

TEST(only_one_page_at_offset_zero)
{
	struct dev d;

	ASSERT(dev_open(&d));
	EXPECT_EQ(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, 0), 0);
	EXPECT_EQ(try_mmap(d.fd, 1, PROT_READ, MAP_SHARED, 0), 0);
	EXPECT_EQ(try_mmap(d.fd, 2 * PAGE, PROT_READ, MAP_SHARED, 0), -EINVAL);
	EXPECT_EQ(try_mmap(d.fd, 1 << 20, PROT_READ, MAP_SHARED, 0), -EINVAL);
	EXPECT_EQ(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, PAGE), -EINVAL);
	EXPECT_EQ(try_mmap(d.fd, PAGE, PROT_READ, MAP_SHARED, 1L << 40),
		  -EINVAL);
}

TEST(no_writable_mapping)
{
	struct dev d;

	ASSERT(dev_open(&d));
	EXPECT_LT(try_mmap(d.fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, 0),
		  0);
	EXPECT_LT(try_mmap(d.fd, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0),
		  0);
	EXPECT_LT(try_mmap(d.fd, PAGE, PROT_WRITE, MAP_SHARED, 0), 0);
	EXPECT_LT(try_mmap(d.fd, PAGE, PROT_WRITE, MAP_PRIVATE, 0), 0);
}

/*
 * A private page of one's own is a counter that never moves again, so that
 * must not come about either.
 */
static void stays_read_only(int flags)
{
	volatile __u64 *gen;
	__u64 value = 0x1234;
	struct dev d;
	char *p = area(1);
	int mem;

	ASSERT(dev_open(&d));
	gen = mmap(NULL, PAGE, PROT_READ, flags, d.fd, 0);
	ASSERT(gen != MAP_FAILED);
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	hit(p);
	EXPECT_EQ(*gen, 1);

	EXPECT_EQ(ret_errno(mprotect((void *)gen, PAGE,
				     PROT_READ | PROT_WRITE)), -EACCES);
	EXPECT_EQ(ret_errno(mprotect((void *)gen, PAGE, PROT_WRITE)), -EACCES);

	mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	ASSERT_GE(mem, 0);
	EXPECT_EQ(pwrite(mem, &value, sizeof(value), addr(gen)), -1);
	EXPECT_EQ(*gen, 1);
	EXPECT_EQ(*d.gen, 1);

	EXPECT_EQ(drain(d.fd), 1);
	hit(p);
	EXPECT_EQ(*gen, 2);
	EXPECT_EQ(*d.gen, 2);
}

TEST(a_shared_mapping_stays_read_only)
{
	stays_read_only(MAP_SHARED);
}

TEST(a_private_mapping_stays_read_only)
{
	stays_read_only(MAP_PRIVATE);
}

TEST(a_mapping_does_not_grow)
{
	struct dev d;

	ASSERT(dev_open(&d));
	EXPECT_EQ(*d.gen, 0);
	EXPECT(mremap((void *)d.gen, PAGE, 2 * PAGE, MREMAP_MAYMOVE) ==
	       MAP_FAILED);
	EXPECT(mremap((void *)d.gen, PAGE, 2 * PAGE, 0) == MAP_FAILED);
	EXPECT_EQ(*d.gen, 0);
}

/* Neither what the kernel left in the page, nor anything undocumented. */
TEST(the_rest_of_the_page_is_zero)
{
	struct dev d;
	unsigned int i;
	char *p = area(1);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	hit(p);
	for (i = 1; i < PAGE / sizeof(*d.gen); i++)
		EXPECT_EQ(d.gen[i], 0);
}

TEST(the_counter_counts_hits)
{
	struct dev d;
	char *p = area(1), *q = area(1);
	__u64 i;

	ASSERT(dev_open(&d));
	EXPECT_EQ(*d.gen, 0);
	hit(p);
	EXPECT_EQ(*d.gen, 0);
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	EXPECT_EQ(*d.gen, 0);
	for (i = 1; i <= 10; i++) {
		hit(p);
		EXPECT_EQ(*d.gen, i);
		hit(q);
		EXPECT_EQ(*d.gen, i);
		/* Reading moves nothing. */
		EXPECT_EQ(drain(d.fd), 1);
		EXPECT_EQ(*d.gen, i);
	}
	/* Nor does unregistering. */
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
	EXPECT_EQ(*d.gen, 10);
	munmap(p, PAGE);
	EXPECT_EQ(*d.gen, 10);
}

/* One munmap that hits several regions of a file is one event for it. */
TEST(the_counter_counts_operations)
{
	struct dev d;
	char *p = area(8);
	__u64 i;

	ASSERT(dev_open(&d));
	for (i = 0; i < 8; i++)
		ASSERT_EQ(watch(d.fd, p + i * PAGE, PAGE, i), 0);
	munmap(p, 8 * PAGE);
	EXPECT_EQ(*d.gen, 1);
	EXPECT_EQ(drain(d.fd), 8);
}

/* Portals4 spins until these two agree. */
TEST(last_brings_the_mapped_counter)
{
	struct ummunotify_event ev[9];
	struct dev d;
	char *p = area(8);
	int round, i;
	long n;

	ASSERT(dev_open(&d));
	for (i = 0; i < 8; i++)
		ASSERT_EQ(watch(d.fd, p + i * PAGE, PAGE, i), 0);
	for (round = 0; round < 50; round++) {
		for (i = 0; i <= round % 8; i++)
			hit(p + i * PAGE);
		n = read_events(d.fd, ev, 9);
		EXPECT_EQ(n, round % 8 + 2);
		EXPECT_LAST(ev[n - 1], *d.gen);
	}
}

TEST(all_mappings_show_the_same)
{
	const volatile __u64 *other;
	struct dev d;
	char *p = area(1);
	int dup_fd;

	ASSERT(dev_open(&d));
	dup_fd = dup(d.fd);
	other = map_gen(dup_fd);
	ASSERT(other);
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	hit(p);
	EXPECT_EQ(*d.gen, 1);
	EXPECT_EQ(*other, 1);
	/* One of two descriptors: the file stays open. */
	close(d.fd);
	EXPECT_EQ(drain(dup_fd), 1);
	hit(p);
	EXPECT_EQ(*other, 2);
	EXPECT_EQ(*d.gen, 2);
}

/* The mapping keeps the file: a driver that stops at close() is too early. */
TEST(the_mapping_outlives_the_descriptor)
{
	struct dev d;
	char *p = area(1);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	close(d.fd);
	EXPECT_EQ(*d.gen, 0);
	munmap(p, PAGE);
	EXPECT_EQ(*d.gen, 1);
	munmap((void *)d.gen, PAGE);
}

/* The page may be dropped from the page table; it comes back as it was. */
TEST(a_dropped_page_comes_back)
{
	struct dev d;
	char *p = area(1);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	hit(p);
	EXPECT_EQ(*d.gen, 1);
	madvise((void *)d.gen, PAGE, MADV_DONTNEED);
	EXPECT_EQ(*d.gen, 1);
	EXPECT_EQ(drain(d.fd), 1);
	hit(p);
	EXPECT_EQ(*d.gen, 2);
}

/* It may also be watched, like all memory. */
TEST(the_mapping_itself_can_be_watched)
{
	struct dev d, other;

	ASSERT(dev_open(&d));
	ASSERT(dev_open(&other));
	EXPECT_EQ(*d.gen, 0);
	ASSERT_EQ(watch(other.fd, d.gen, PAGE, COOKIE), 0);
	munmap((void *)d.gen, PAGE);
	EXPECT_EQ(*other.gen, 1);
	EXPECT_ONLY(&other, COOKIE);
}
