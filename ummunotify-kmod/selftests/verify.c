// SPDX-License-Identifier: GPL-2.0
/* NOTE and VERIFY: events that changed nothing are told from those that did. */
#include "feature.h"

#define COOKIE	4
#define BLOCK	huge_page_size()
#define FEATURES (FEATURE(VERIFY) | FEATURE(KINDS) | FEATURE(STATS))

static bool noted_init(struct dev *d, char *p, size_t len)
{
	return dev_open_with(d, FEATURES, 0) && !watch(d->fd, p, len, COOKIE);
}

/* One whole block of 2 MiB in one mapping, of small pages. */
static char *block(void)
{
	char *p = mmap(NULL, 3 * BLOCK, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	madvise(p, 3 * BLOCK, MADV_NOHUGEPAGE);
	p = (char *)((addr(p) + BLOCK - 1) & ~(BLOCK - 1));
	memset(p, 1, 16 * PAGE);
	p[BLOCK - 1] = 1;
	return p;
}

/* The event of @kind was raised, and VERIFY says that it was nothing. */
#define EXPECT_SPURIOUS(d, kinds) do {					\
	EXPECT_ONLY_KINDS(d, COOKIE, kinds);				\
	EXPECT_EQ(verify((d)->fd, COOKIE), 1);				\
	EXPECT_QUIET(d);						\
} while (0)

TEST(nothing_happened)
{
	char *p = area(4);
	struct dev d;

	ASSERT(noted_init(&d, p, 4 * PAGE));
	PIN(p, 4 * PAGE);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	memset(p, 2, 4 * PAGE);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	EXPECT_EQ(*d.gen, 0);
	EXPECT_EQ(stats_of(&d)->verified, 3);
	EXPECT_QUIET(&d);
}

/* Splitting a mapping clears the block around the cut. */
TEST(a_cut_beside_it_is_nothing)
{
	struct dev d;
	char *p = block();

	ASSERT(p);
	ASSERT(noted_init(&d, p, 16 * PAGE));
	PIN(p, 16 * PAGE);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	ASSERT_EQ(mprotect(p + BLOCK - PAGE, PAGE, PROT_READ), 0);
	if (!*d.gen)
		SKIP("this kernel raises no event");
	EXPECT_SPURIOUS(&d, KIND(CLEAR));
	EXPECT_EQ(stats_of(&d)->verified, 1);

	/* It is armed: what is real is reported. */
	ASSERT(hit(p));
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p, p + PAGE, KIND(CLEAR));
	EXPECT_EQ(verify(d.fd, COOKIE), 0);
	EXPECT_EQ(stats_of(&d)->verified, 1);
}

TEST(mprotect_and_fork_are_nothing)
{
	char *p = area(4);
	struct gate go;
	struct dev d;
	pid_t pid;

	ASSERT(gate_init(&go));
	ASSERT(noted_init(&d, p, 4 * PAGE));
	PIN(p, 4 * PAGE);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	ASSERT_EQ(mprotect(p, 4 * PAGE, PROT_READ), 0);
	EXPECT_SPURIOUS(&d, KIND(PROTECTION_VMA));
	ASSERT_EQ(mprotect(p, 4 * PAGE, PROT_READ | PROT_WRITE), 0);
	EXPECT_SPURIOUS(&d, KIND(PROTECTION_VMA));
	pid = fork_child(&go);
	EXPECT_SPURIOUS(&d, KIND(PROTECTION_PAGE));
	/* Pinned, so the child has the copy. */
	memset(p, 2, 4 * PAGE);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	EXPECT_EQ(drain(d.fd), -EAGAIN);
	gate_open(&go);
	EXPECT_CHILD_OK(pid);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
}

/* Not pinned, the parent gets the copy: VERIFY is no constant. */
TEST(a_copy_on_write_is_something)
{
	char *p = area(4);
	struct gate go;
	struct dev d;
	pid_t pid;

	ASSERT(gate_init(&go));
	ASSERT(noted_init(&d, p, 4 * PAGE));
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	pid = fork_child(&go);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	p[2 * PAGE] = 2;
	EXPECT_EQ(verify(d.fd, COOKIE), 0);
	gate_open(&go);
	EXPECT_CHILD_OK(pid);
}

/* The fork of private huge pages is a plain CLEAR. */
TEST(fork_of_private_huge_pages_is_nothing)
{
	struct dev d;
	char *p = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		       MAP_ANONYMOUS | HUGE_FLAGS, -1, 0);

	if (p == MAP_FAILED)
		SKIP("no huge pages");
	memset(p, 1, BLOCK);
	ASSERT(noted_init(&d, p, BLOCK));
	PIN(p, BLOCK);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	ASSERT(fork_once());
	EXPECT_SPURIOUS(&d, KIND(CLEAR));
	p[0] = 2;
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	while (drain(d.fd) >= 0)
		;
	ASSERT_EQ(madvise(p, BLOCK, MADV_DONTNEED), 0);
	memset(p, 1, BLOCK);
	EXPECT_EQ(verify(d.fd, COOKIE), 0);
}

enum change { DONTNEED, DONTNEED_TOUCH, REMAP, REMAP_TOUCH, UNMAP, NONE, SWAP };

static void change(char *p, enum change what)
{
	char *q;

	switch (what) {
	case DONTNEED:
	case DONTNEED_TOUCH:
		ASSERT(hit(p));
		break;
	case REMAP:
	case REMAP_TOUCH:
		ASSERT_EQ(munmap(p, PAGE), 0);
		ASSERT(mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			    MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p);
		break;
	case UNMAP:
		ASSERT_EQ(munmap(p, PAGE), 0);
		break;
	case NONE:
		ASSERT_EQ(mprotect(p, PAGE, PROT_NONE), 0);
		break;
	case SWAP:
		/* The same pages, but not in the same places. */
		q = area(1);
		ASSERT(mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			      q) == q);
		ASSERT(mremap(p + PAGE, PAGE, PAGE, MREMAP_MAYMOVE |
			      MREMAP_FIXED, p) == p);
		ASSERT(mremap(q, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			      p + PAGE) == p + PAGE);
		break;
	}
	if (what == DONTNEED_TOUCH || what == REMAP_TOUCH)
		p[0] = 1;
}

/* Whatever takes the page away, wherever in the range. */
static void is_something(enum change what, size_t pages, size_t at)
{
	char *p = area(pages);
	struct dev d;

	ASSERT(noted_init(&d, p, pages * PAGE));
	PIN(p, pages * PAGE);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	change(p + at * PAGE, what);
	EXPECT_GT(*d.gen, 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 0);
	/* Nor does it become true by asking again. */
	EXPECT_EQ(verify(d.fd, COOKIE), 0);
	EXPECT_EQ(stats_of(&d)->verified, 1);
	if (what == NONE) {
		ASSERT_EQ(mprotect(p + at * PAGE, PAGE, PROT_READ), 0);
		EXPECT_EQ(verify(d.fd, COOKIE), 1);
	}
}

TEST(dontneed_is_something)
{
	is_something(DONTNEED, 4, 1);
	is_something(DONTNEED_TOUCH, 4, 1);
}

TEST(remapped_is_something)
{
	is_something(REMAP, 4, 3);
	is_something(REMAP_TOUCH, 4, 0);
}

TEST(a_hole_is_something)
{
	is_something(UNMAP, 4, 1);
	is_something(UNMAP, 1, 0);
	is_something(NONE, 4, 1);
}

TEST(swapped_pages_are_something)
{
	is_something(SWAP, 4, 1);
}

/* More pages than any one step takes. */
TEST(every_page_of_a_large_range_counts)
{
	static const size_t at[] = { 0, 63, 64, 65, 127, 128, 199 };
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(at); i++)
		is_something(DONTNEED_TOUCH, 200, at[i]);
}

/* Bytes are elsewhere in the page, but the page is the same. */
TEST(parts_of_pages)
{
	char *p = area(3);
	struct dev d;

	ASSERT(noted_init(&d, p + PAGE + 100, 10));
	PIN(p, 3 * PAGE);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	change(p, DONTNEED_TOUCH);
	change(p + 2 * PAGE, DONTNEED_TOUCH);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	change(p + PAGE, DONTNEED_TOUCH);
	EXPECT_EQ(verify(d.fd, COOKIE), 0);
	/* What is pinned now can be noted anew. */
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
}

static long resident_pages(void)
{
	long pages = -1, unused;
	FILE *f = fopen("/proc/self/statm", "r");

	if (!f || fscanf(f, "%ld %ld", &unused, &pages) != 2)
		pages = -1;
	if (f)
		fclose(f);
	return pages;
}

/* 4 TiB of which two pages are there: the machine has no such memory. */
TEST(a_sparse_range_is_not_filled)
{
	const size_t size = 4UL << 40, BIG = 64UL << 20;
	long before;
	struct dev d;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		       MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	ASSERT(p != MAP_FAILED);
	/* Unknown where there are no huge pages. */
	madvise(p, size, MADV_NOHUGEPAGE);
	p[0] = 1;
	p[PAGE] = 1;
	ASSERT(noted_init(&d, p, size));
	ASSERT_EQ(watch(d.fd, p, 2 * PAGE, COOKIE + 1), 0);
	before = resident_pages();
	ASSERT(before > 0);
	EXPECT_EQ(note(d.fd, COOKIE), -EFAULT);
	EXPECT_EQ(verify(d.fd, COOKIE), -EINVAL);
	EXPECT_EQ(note(d.fd, COOKIE + 1), 0);
	EXPECT_EQ(verify(d.fd, COOKIE + 1), 1);
	/* What was noted and has gone is not brought back either. */
	memset(p, 1, BIG);
	ASSERT_EQ(watch(d.fd, p, BIG, COOKIE + 2), 0);
	EXPECT_EQ(note(d.fd, COOKIE + 2), 0);
	EXPECT_EQ(verify(d.fd, COOKIE + 2), 1);
	ASSERT_EQ(madvise(p, BIG, MADV_DONTNEED), 0);
	EXPECT_EQ(verify(d.fd, COOKIE + 2), 0);
	/* The counter itself is not exact. */
	EXPECT_LT(resident_pages(), before + 4096);
	EXPECT_EQ(munmap(p, size), 0);
}

TEST(errors)
{
	char *p = area(2);
	struct dev d;

	ASSERT(noted_init(&d, p, 2 * PAGE));
	EXPECT_EQ(verify(d.fd, COOKIE), -EINVAL);
	EXPECT_EQ(note(d.fd, COOKIE + 1), -EINVAL);
	EXPECT_EQ(verify(d.fd, COOKIE + 1), -EINVAL);
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_NOTE, NULL)), -EFAULT);
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_VERIFY, NULL)), -EFAULT);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	/* A note is of the region, not of its cookie. */
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), -EINVAL);
	EXPECT_EQ(watch(d.fd, p, 2 * PAGE, COOKIE), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), -EINVAL);
	EXPECT_EQ(munmap(p, PAGE), 0);
	EXPECT_EQ(note(d.fd, COOKIE), -EFAULT);
	EXPECT_EQ(verify(d.fd, COOKIE), -EINVAL);
	/* The end of the address space. */
	EXPECT_EQ(watch_range(d.fd, 0, ~0ULL, 1), 0);
	EXPECT_EQ(note(d.fd, 1), -EFAULT);
	EXPECT_EQ(watch_range(d.fd, ~0ULL, ~0ULL, 2), 0);
	EXPECT_EQ(note(d.fd, 2), -EFAULT);
}

/* A pending event is taken back; LAST, which says that the counter moved, not. */
TEST(verify_takes_the_event_back)
{
	char *p = area(2), *q = area(1);
	struct ummunotify_event ev[4];
	struct dev d;
	int i;

	ASSERT(noted_init(&d, p, 2 * PAGE));
	PIN(p, 2 * PAGE);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	for (i = 0; i < 4; i++) {
		/* Hit once, or more. */
		ASSERT_EQ(mprotect(p, 2 * PAGE, PROT_READ), 0);
		if (i & 1)
			ASSERT_EQ(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
		EXPECT_EQ(poll_now(d.fd), POLLIN | POLLRDNORM);
		EXPECT_EQ(verify(d.fd, COOKIE), 1);
		EXPECT_EQ(read_events(d.fd, ev, 4), 1);
		EXPECT_LAST(ev[0], *d.gen);
		EXPECT_QUIET(&d);
		ASSERT_EQ(mprotect(p, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
		EXPECT_EQ(verify(d.fd, COOKIE), 1);
	}

	/* That of another region stays; one after VERIFY is new. */
	ASSERT_EQ(watch(d.fd, q, PAGE, COOKIE + 1), 0);
	ASSERT(hit(q));
	ASSERT_EQ(mprotect(p, 2 * PAGE, PROT_READ), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	EXPECT_ONLY_KINDS(&d, COOKIE + 1, KIND(CLEAR));
	ASSERT_EQ(mprotect(p, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	ASSERT(hit(p + PAGE));
	EXPECT_ONLY_HINT_KINDS(&d, COOKIE, p + PAGE, p + 2 * PAGE, KIND(CLEAR));
}

static long run_verify(struct job *j)
{
	return verify(j->fd, j->cookie);
}

static bool stage_verify(struct stage *s, struct job *jobs)
{
	if (!stage_init(s, 2, jobs, 2))
		return false;
	jobs[1].cookie = COOKIE;
	return dev_negotiate(&s->d, FEATURES, 0) &&
	       !watch(s->d.fd, s->p, 2 * PAGE, COOKIE) &&
	       !note(s->d.fd, COOKIE) && verify(s->d.fd, COOKIE) == 1;
}

/* In flight, the old pages are still there: who looks now is deceived. */
TEST(verify_waits_for_what_is_in_flight)
{
	struct job jobs[2], *cut = &jobs[0], *ask = &jobs[1];
	struct stage s;
	int i, pinned;

	ASSERT(stage_verify(&s, jobs));
	pinned = pin(s.p, 2 * PAGE);
	if (pinned < 0)
		SKIP("no io_uring to pin memory with");
	for (i = 0; i < 2; i++) {
		ASSERT(start_and_hold(&s, cut, run_dontneed, s.p, PAGE));
		/* Whether or not the event was read meanwhile. */
		if (i)
			EXPECT_EQ(drain(s.d.fd), 1);
		job_start(ask, run_verify, s.p, PAGE);
		sleep_ms(200);
		EXPECT(!job_done(ask));
		ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
		ASSERT(job_wait(ask));
		EXPECT_EQ(ask->ret, 0);
		ASSERT(job_wait(cut));
		while (drain(s.d.fd) >= 0)
			;
		memset(s.p, 1, PAGE);
		EXPECT_EQ(note(s.d.fd, COOKIE), 0);
		EXPECT_EQ(verify(s.d.fd, COOKIE), 1);
	}
}

/* It does not wait for ever, and does not say "yes" then. */
TEST(verify_gives_up_with_no)
{
	struct job jobs[2];
	struct stage s;

	ASSERT(stage_verify(&s, jobs));
	ASSERT(start_and_hold(&s, &jobs[0], run_dontneed, s.p, PAGE));
	EXPECT_EQ(verify(s.d.fd, COOKIE), 0);
	EXPECT_EQ(held(s.hold), 1);
	EXPECT_EQ(stats_of(&s.d)->verified, 1);
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(&jobs[0]));
}

/* What is elsewhere, or moves no page, it need not wait for. */
TEST(verify_waits_for_nothing_else)
{
	struct job jobs[2];
	struct stage s;
	char *q = area(1);

	ASSERT(stage_verify(&s, jobs));
	ASSERT(start_and_hold(&s, &jobs[0], run_dontneed, q, PAGE));
	EXPECT_EQ(verify(s.d.fd, COOKIE), 1);
	EXPECT_EQ(held(s.hold), 1);
	ASSERT_EQ(release(s.hold, q, PAGE), 0);
	ASSERT(job_wait(&jobs[0]));
}
