// SPDX-License-Identifier: GPL-2.0
/* Which operations on memory raise events, for which regions. */
#include "util.h"

#include <sys/ipc.h>
#include <sys/shm.h>

#define COOKIE 7

/* A watched area of four pages. */
struct scene {
	struct dev d;
	char *p;
};

#define LEN (4 * PAGE)

static bool scene_init(struct scene *s)
{
	s->p = area(4);
	return s->p && dev_open(&s->d) && !watch(s->d.fd, s->p, LEN, COOKIE) &&
	       !*s->d.gen;
}

/* The region was hit, the counter moved, and there is a LAST. */
#define EXPECT_HIT(s) do {						\
	EXPECT_GT(*(s)->d.gen, 0);					\
	EXPECT_ONLY(&(s)->d, COOKIE);					\
} while (0)

/* One event only, so the hint is exact and the counter is 1. */
#define EXPECT_HIT_AT(s, from, to) do {					\
	EXPECT_EQ(*(s)->d.gen, 1);					\
	EXPECT_ONLY_HINT(&(s)->d, COOKIE, from, to);			\
} while (0)

TEST(munmap_of_the_whole)
{
	struct scene s;

	ASSERT(scene_init(&s));
	ASSERT_EQ(munmap(s.p, LEN), 0);
	EXPECT_HIT_AT(&s, s.p, s.p + LEN);
}

TEST(munmap_of_the_head)
{
	struct scene s;

	ASSERT(scene_init(&s));
	ASSERT_EQ(munmap(s.p, PAGE), 0);
	EXPECT_HIT_AT(&s, s.p, s.p + PAGE);
}

TEST(munmap_of_the_middle)
{
	struct scene s;

	ASSERT(scene_init(&s));
	ASSERT_EQ(munmap(s.p + PAGE, 2 * PAGE), 0);
	EXPECT_HIT_AT(&s, s.p + PAGE, s.p + 3 * PAGE);
}

TEST(munmap_of_the_tail)
{
	struct scene s;

	ASSERT(scene_init(&s));
	ASSERT_EQ(munmap(s.p + 3 * PAGE, PAGE), 0);
	EXPECT_HIT_AT(&s, s.p + 3 * PAGE, s.p + LEN);
}

/* The hint is clipped to the region. */
TEST(munmap_of_more_than_the_region)
{
	struct dev d;
	char *p = area(6);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p + 2 * PAGE, PAGE, COOKIE), 0);
	ASSERT_EQ(munmap(p, 6 * PAGE), 0);
	EXPECT_EQ(*d.gen, 1);
	EXPECT_ONLY_HINT(&d, COOKIE, p + 2 * PAGE, p + 3 * PAGE);
}

TEST(munmap_beside_the_region)
{
	struct dev d;
	char *p = area(6);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p + 2 * PAGE, 2 * PAGE, COOKIE), 0);
	ASSERT_EQ(munmap(p + PAGE, PAGE), 0);
	ASSERT_EQ(munmap(p + 4 * PAGE, PAGE), 0);
	EXPECT_EQ(*d.gen, 0);
	EXPECT_QUIET(&d);
	/* Yet it is watched. */
	ASSERT_EQ(munmap(p + 2 * PAGE, PAGE), 0);
	EXPECT_EQ(*d.gen, 1);
	EXPECT_ONLY_HINT(&d, COOKIE, p + 2 * PAGE, p + 3 * PAGE);
}

/* Also what must not count: a driver that bumps for every event fails. */
TEST(memory_elsewhere_does_not_matter)
{
	struct scene s;
	char *q;
	int i;

	ASSERT(scene_init(&s));
	for (i = 0; i < 100; i++) {
		q = area(3);
		madvise(q, 3 * PAGE, MADV_DONTNEED);
		mprotect(q, PAGE, PROT_READ);
		munmap(q, 3 * PAGE);
	}
	EXPECT_EQ(*s.d.gen, 0);
	EXPECT_QUIET(&s.d);
}

TEST(reads_writes_and_first_touches_do_not_matter)
{
	struct dev d;
	char *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT(p != MAP_FAILED);
	madvise(p, LEN, MADV_NOHUGEPAGE);
	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, LEN, COOKIE), 0);
	memset(p, 1, LEN);
	memset(p, 2, LEN);
	EXPECT_EQ(p[LEN - 1], 2);
	EXPECT_EQ(*d.gen, 0);
	EXPECT_QUIET(&d);
}

/* The overlapping ones in every way, and neighbours on both sides. */
TEST(every_overlapping_region_is_reported)
{
	static const struct {
		int from, to;
		bool hit;
	} r[] = {
		{ 2, 6, true }, { 3, 5, true }, { 4, 5, true }, { 4, 8, true },
		{ 0, 8, true }, { 2, 6, true }, { 0, 5, true }, { 4, 6, true },
		{ 0, 4, false }, { 3, 4, false }, { 5, 6, false },
		{ 5, 8, false }, { 0, 1, false }, { 7, 8, false },
	};
	struct ummunotify_event ev[ARRAY_LEN(r) + 1];
	unsigned int times[ARRAY_LEN(r)] = { 0 };
	struct dev d;
	char *p = area(8);
	unsigned int i;
	long n;

	ASSERT(dev_open(&d));
	for (i = 0; i < ARRAY_LEN(r); i++)
		ASSERT_EQ(watch(d.fd, p + r[i].from * PAGE,
				(r[i].to - r[i].from) * PAGE, i), 0);
	munmap(p + 4 * PAGE, PAGE);
	n = read_events(d.fd, ev, ARRAY_LEN(ev));
	ASSERT_GT(n, 0);
	EXPECT_LAST(ev[n - 1], *d.gen);
	for (i = 0; i < n - 1; i++) {
		EXPECT_HINT(ev[i], ev[i].user_cookie_counter,
			    p + 4 * PAGE, p + 5 * PAGE);
		ASSERT(ev[i].user_cookie_counter < ARRAY_LEN(r));
		times[ev[i].user_cookie_counter]++;
	}
	for (i = 0; i < ARRAY_LEN(r); i++)
		EXPECT_EQ(times[i], r[i].hit);
}

TEST(mmap_fixed_over)
{
	struct scene s;

	ASSERT(scene_init(&s));
	ASSERT(mmap(s.p + PAGE, PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE |
		    MAP_ANONYMOUS, -1, 0) == s.p + PAGE);
	EXPECT_HIT_AT(&s, s.p + PAGE, s.p + 2 * PAGE);
}

/* A watch on nothing yet holds for what is mapped there later. */
TEST(register_before_mmap)
{
	struct dev d;
	char *p = area(1);

	ASSERT(dev_open(&d));
	munmap(p, PAGE);
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	ASSERT(mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE |
		    MAP_ANONYMOUS, -1, 0) == p);
	*p = 1;
	EXPECT_EQ(*d.gen, 0);
	munmap(p, PAGE);
	EXPECT_GT(*d.gen, 0);
	EXPECT_ONLY(&d, COOKIE);
}

TEST(mremap_move)
{
	struct scene s;
	char *q = area(4);

	ASSERT(scene_init(&s));
	ASSERT(mremap(s.p, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
	EXPECT_HIT(&s);
}

/* What is mapped at the destination goes away as well. */
TEST(mremap_onto)
{
	struct scene s;
	char *q = area(4);

	ASSERT(scene_init(&s));
	ASSERT(mremap(q, LEN, LEN, MREMAP_MAYMOVE | MREMAP_FIXED, s.p) == s.p);
	EXPECT_HIT(&s);
}

TEST(mremap_shrink)
{
	struct scene s;

	ASSERT(scene_init(&s));
	ASSERT(mremap(s.p, LEN, 3 * PAGE, 0) == s.p);
	EXPECT_HIT_AT(&s, s.p + 3 * PAGE, s.p + LEN);
}

TEST(madvise_dontneed)
{
	struct scene s;

	ASSERT(scene_init(&s));
	ASSERT_EQ(madvise(s.p + PAGE, PAGE, MADV_DONTNEED), 0);
	EXPECT_HIT_AT(&s, s.p + PAGE, s.p + 2 * PAGE);
}

TEST(madvise_free)
{
	struct scene s;

	ASSERT(scene_init(&s));
	ASSERT_EQ(madvise(s.p + PAGE, PAGE, MADV_FREE), 0);
	EXPECT_HIT_AT(&s, s.p + PAGE, s.p + 2 * PAGE);
}

TEST(mprotect_counts)
{
	struct scene s;

	ASSERT(scene_init(&s));
	ASSERT_EQ(mprotect(s.p, LEN, PROT_READ), 0);
	EXPECT_HIT(&s);
}

TEST(brk_shrink)
{
	struct dev d;
	char *p = sbrk(0);

	p += -addr(p) % PAGE;
	ASSERT_EQ(brk(p + 2 * PAGE), 0);
	memset(p, 1, 2 * PAGE);
	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p + PAGE, PAGE, COOKIE), 0);
	ASSERT_EQ(brk(p + PAGE), 0);
	EXPECT_GT(*d.gen, 0);
	EXPECT_ONLY(&d, COOKIE);
}

TEST(shmdt_counts)
{
	int id = shmget(IPC_PRIVATE, LEN, IPC_CREAT | 0600);
	struct dev d;
	char *p;

	if (id < 0)
		SKIP("no System V shared memory");
	p = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	ASSERT(p != (void *)-1);
	memset(p, 1, LEN);
	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, LEN, COOKIE), 0);
	ASSERT_EQ(shmdt(p), 0);
	EXPECT_GT(*d.gen, 0);
	EXPECT_ONLY(&d, COOKIE);
}

/* A write to a private page of a file replaces the page that was read. */
TEST(copy_on_write_counts)
{
	int fd = memfd_create("cow", MFD_CLOEXEC);
	struct dev d;
	char *p;

	ASSERT_EQ(ftruncate(fd, LEN), 0);
	p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ASSERT(p != MAP_FAILED);
	EXPECT_EQ(p[PAGE], 0);
	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, LEN, COOKIE), 0);
	p[PAGE] = 1;
	EXPECT_EQ(*d.gen, 1);
	EXPECT_ONLY_HINT(&d, COOKIE, p + PAGE, p + 2 * PAGE);
}

TEST(fork_counts)
{
	struct scene s;
	pid_t pid;

	ASSERT(scene_init(&s));
	pid = fork();
	if (!pid)
		child_exit();
	EXPECT_CHILD_OK(pid);
	EXPECT_HIT(&s);
}

enum how { TRUNCATE, PUNCH, REMOVE };

static void take_pages(enum how how, int fd, char *p)
{
	if (how == TRUNCATE)
		EXPECT_EQ(ftruncate(fd, PAGE), 0);
	else if (how == PUNCH)
		EXPECT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE |
				    FALLOC_FL_KEEP_SIZE, PAGE, PAGE), 0);
	else
		EXPECT_EQ(madvise(p + PAGE, PAGE, MADV_REMOVE), 0);
}

/* The pages of a mapped file go away, by this process or by another. */
static void file_loses_pages(enum how how, bool by_other)
{
	int fd = memfd_create("watched", MFD_CLOEXEC);
	struct gate go;
	struct dev d;
	pid_t pid = 0;
	char *p;

	ASSERT(gate_init(&go));
	ASSERT_EQ(ftruncate(fd, LEN), 0);

	/* Forked before the device is open: a stranger, not a child. */
	if (by_other) {
		pid = fork();
		if (!pid) {
			gate_wait(&go);
			take_pages(how, fd, NULL);
			child_exit();
		}
	}

	p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT(p != MAP_FAILED);
	memset(p, 1, LEN);
	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, LEN, COOKIE), 0);
	EXPECT_EQ(*d.gen, 0);

	if (by_other) {
		gate_open(&go);
		EXPECT_CHILD_OK(pid);
	} else {
		take_pages(how, fd, p);
	}
	EXPECT_GT(*d.gen, 0);
	EXPECT_ONLY(&d, COOKIE);
}

TEST(ftruncate_counts)
{
	file_loses_pages(TRUNCATE, false);
}

TEST(punch_hole_counts)
{
	file_loses_pages(PUNCH, false);
}

TEST(madvise_remove_counts)
{
	file_loses_pages(REMOVE, false);
}

/* A driver that looks at current->mm misses these two. */
TEST(ftruncate_by_another_process_counts)
{
	file_loses_pages(TRUNCATE, true);
}

TEST(punch_hole_by_another_process_counts)
{
	file_loses_pages(PUNCH, true);
}

/* One event and many regions: each is reported once, in any order. */
#define MANY 10000
TEST_TIMEOUT(ten_thousand_regions_in_one_munmap, 120)
{
	static unsigned char times[MANY];
	struct ummunotify_event ev[READ_MAX];
	struct dev d;
	char *p = area(MANY);
	long n, i, total = 0;
	bool last = false;

	ASSERT(p);
	ASSERT(dev_open(&d));
	for (i = 0; i < MANY; i++)
		ASSERT_EQ(watch(d.fd, p + i * PAGE, PAGE, i), 0);
	EXPECT_EQ(*d.gen, 0);
	ASSERT_EQ(munmap(p, MANY * PAGE), 0);
	EXPECT_GT(*d.gen, 0);

	while (!last) {
		n = read_events(d.fd, ev, READ_MAX);
		ASSERT_GT(n, 0);
		for (i = 0; i < n; i++) {
			if (ev[i].type == UMMUNOTIFY_EVENT_TYPE_LAST) {
				EXPECT_EQ(i, n - 1);
				EXPECT_LAST(ev[i], *d.gen);
				last = true;
				break;
			}
			ASSERT(ev[i].user_cookie_counter < MANY);
			ASSERT_EQ(times[ev[i].user_cookie_counter]++, 0);
			total++;
		}
		EXPECT(last || n == READ_MAX);
	}
	EXPECT_EQ(total, MANY);
	EXPECT_QUIET(&d);
}

/* The same regions again: all were armed anew by being read. */
TEST_TIMEOUT(a_thousand_regions_many_times, 120)
{
	struct dev d;
	char *p = area(400);
	int i, round;

	ASSERT(dev_open(&d));
	for (i = 0; i < 1000; i++)
		ASSERT_EQ(watch(d.fd, p + i % 400 * PAGE,
				(1 + i % 7) * PAGE, i), 0);
	for (round = 0; round < 20; round++) {
		ASSERT_EQ(madvise(p, 400 * PAGE, MADV_DONTNEED), 0);
		ASSERT_EQ(drain(d.fd), 1000);
		EXPECT_QUIET(&d);
	}
}
