// SPDX-License-Identifier: GPL-2.0
/*
 * A change of protection splits a huge page on its way, which the kernel
 * announces as a CLEAR: nothing to a noted region of anonymous memory that
 * ignores changes of protection, and an event to every other.
 */
#include "feature.h"

#include <linux/mount.h>
#include <linux/userfaultfd.h>

#define BLOCK		huge_page_size()
#define FEATURES	(FEATURE(FILTER) | FEATURE(KINDS) | FEATURE(VERIFY))
#define PROTECTION	(KIND(PROTECTION_VMA) | KIND(PROTECTION_PAGE))

/* Cookies: the region in question, and one beside it that has no note. */
enum { NOTED = 1, CONTROL };

static bool split_open(struct dev *d)
{
	return dev_open_with(d, FEATURES, 0);
}

/* Where a huge page can be: a block, aligned. */
static char *block_of(int fd, int flags)
{
	char *p = mmap(NULL, 2 * BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		       MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	p = (char *)((addr(p) + BLOCK - 1) & ~(BLOCK - 1));
	p = mmap(p, BLOCK, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
	if (p == MAP_FAILED)
		return NULL;
	madvise(p, BLOCK, MADV_HUGEPAGE);
	memset(p, 1, BLOCK);
	return p;
}

static char *anonymous_block(void)
{
	return block_of(-1, MAP_PRIVATE | MAP_ANONYMOUS);
}

/* A file whose memory comes in huge pages, on a tmpfs mounted nowhere. */
static int huge_file(void)
{
	int fs = syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC), mnt, fd;

	if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "huge",
			      "always", 0) ||
	    syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		SKIP("no tmpfs with huge pages");
	mnt = syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
	fd = openat(mnt, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	close(mnt);
	close(fs);
	if (fd < 0 || ftruncate(fd, BLOCK))
		SKIP("no file in it");
	return fd;
}

/* Prepares @p for write_protect(). */
static int protector(char *p)
{
	struct uffdio_api api = {
		.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	struct uffdio_register reg = {
		.range = { addr(p), BLOCK },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) ||
	    ioctl(fd, UFFDIO_REGISTER, &reg))
		SKIP("no write protection by userfaultfd");
	return fd;
}

/* Splits the huge page under @p, and no mapping. */
static long write_protect(int fd, char *p)
{
	struct uffdio_writeprotect wp = {
		.range = { addr(p), PAGE },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	return ret_errno(ioctl(fd, UFFDIO_WRITEPROTECT, &wp));
}

/* Both regions cover the block; true if they do. */
static bool watch_both(struct dev *d, char *p)
{
	return !watch_flags(d->fd, p, BLOCK, NOTED, PROTECTION, 0) &&
	       !watch_flags(d->fd, p, BLOCK, CONTROL, PROTECTION, 0);
}

/* Both cover the block, and one is noted; true if so. */
static bool watch_and_note(struct dev *d, char *p)
{
	return watch_both(d, p) && !note(d->fd, NOTED);
}

/* Whoever ignores changes of protection and has no note was told. */
#define MUST_BE_SPLIT(d) do {						\
	if (poll_now((d)->fd) != (POLLIN | POLLRDNORM))			\
		SKIP("no huge page was split");				\
} while (0)

/* The page was split, and only the one without a note was told. */
#define EXPECT_ONLY_CONTROL(d) do {					\
	MUST_BE_SPLIT(d);						\
	EXPECT_ONLY_KINDS(d, CONTROL, KIND(CLEAR));			\
} while (0)

/* Both were told. */
#define EXPECT_BOTH(d, kinds) do {					\
	struct ummunotify_event ev_[4] = { 0 };				\
	int i_;								\
									\
	EXPECT_EQ(read_events((d)->fd, ev_, 4), 3);			\
	for (i_ = 0; i_ < 2; i_++)					\
		EXPECT_EQ(kinds_of(&ev_[i_]), kinds);			\
	EXPECT_EQ(ev_[0].user_cookie_counter +				\
		  ev_[1].user_cookie_counter, NOTED + CONTROL);		\
	EXPECT_LAST(ev_[2], *(d)->gen);					\
} while (0)

TEST(fork_of_pinned_memory_is_nothing)
{
	char *p = anonymous_block();
	struct dev d;

	ASSERT(p && split_open(&d));
	ASSERT(watch_both(&d, p));
	PIN(p, BLOCK);
	ASSERT_EQ(note(d.fd, NOTED), 0);
	ASSERT_EQ(*d.gen, 0);
	ASSERT(fork_once());
	EXPECT_ONLY_CONTROL(&d);
	memset(p, 2, BLOCK);
	EXPECT_QUIET(&d);
	EXPECT_EQ(verify(d.fd, NOTED), 1);

	/* And it is watched all the same. */
	ASSERT_EQ(munmap(p, BLOCK), 0);
	EXPECT_BOTH(&d, KIND(UNMAP));
}

/* Parts of a huge page are watched like a whole one. */
TEST(fork_of_parts_is_nothing)
{
	char *p = anonymous_block();
	struct dev d;
	__u64 i;

	ASSERT(p && split_open(&d));
	PIN(p, BLOCK);
	for (i = 0; i < 512; i++) {
		ASSERT_EQ(watch_flags(d.fd, p + i * PAGE, PAGE, i, PROTECTION,
				      0), 0);
		ASSERT_EQ(note(d.fd, i), 0);
	}
	ASSERT_EQ(watch_flags(d.fd, p + PAGE, PAGE, 512, PROTECTION, 0), 0);
	ASSERT(fork_once());
	MUST_BE_SPLIT(&d);
	EXPECT_ONLY_KINDS(&d, 512, KIND(CLEAR));
}

TEST(all_it_takes)
{
	static const struct {
		__u32 ignore;
		bool noted;
		__u32 told;
	} row[] = {
		{ PROTECTION, false, KIND(CLEAR) },
		{ KIND(PROTECTION_PAGE), true, KIND(CLEAR) },
		{ KIND(PROTECTION_VMA), true,
		  KIND(CLEAR) | KIND(PROTECTION_PAGE) },
		{ 0, true, KIND(CLEAR) | KIND(PROTECTION_PAGE) },
		{ UMMUNOTIFY_KINDS_FILTERABLE, true, 0 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(row); i++) {
		char *p = anonymous_block();
		struct dev d;

		ASSERT(p && split_open(&d));
		ASSERT_EQ(watch_flags(d.fd, p, BLOCK, NOTED, row[i].ignore, 0),
			  0);
		PIN(p, BLOCK);
		if (row[i].noted)
			ASSERT_EQ(note(d.fd, NOTED), 0);
		ASSERT(fork_once());
		if (!i)
			MUST_BE_SPLIT(&d);
		if (row[i].told)
			EXPECT_ONLY_KINDS(&d, NOTED, row[i].told);
		else
			EXPECT_QUIET(&d);
		dev_close(&d);
	}
}

TEST(write_protection_of_a_part_is_nothing)
{
	char *p = anonymous_block();
	struct dev d;
	int wp;

	ASSERT(p && split_open(&d));
	wp = protector(p);
	ASSERT(watch_and_note(&d, p));
	ASSERT_EQ(*d.gen, 0);
	ASSERT_EQ(write_protect(wp, p + PAGE), 0);
	EXPECT_ONLY_CONTROL(&d);
	EXPECT_EQ(verify(d.fd, NOTED), 1);
}

/* A split takes a file's huge page away. */
TEST(of_a_file_it_is_something)
{
	char *p = block_of(huge_file(), MAP_SHARED);
	struct dev d;
	int wp;

	ASSERT(p && split_open(&d));
	wp = protector(p);
	ASSERT(watch_and_note(&d, p));
	ASSERT_EQ(write_protect(wp, p + PAGE), 0);
	MUST_BE_SPLIT(&d);
	EXPECT_BOTH(&d, KIND(CLEAR));
}

/* Nor is a region anonymous of which a part is. */
TEST(of_a_file_beside_it_is_something)
{
	int fd = memfd_create("beside", MFD_CLOEXEC);
	char *p = anonymous_block();
	struct dev d;

	ASSERT(p && split_open(&d));
	ASSERT_EQ(ftruncate(fd, PAGE), 0);
	ASSERT(mmap(p + BLOCK, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED |
		    MAP_FIXED, fd, 0) == p + BLOCK);
	p[BLOCK] = 1;
	PIN(p, BLOCK);
	ASSERT_EQ(watch_flags(d.fd, p, BLOCK + PAGE, NOTED, PROTECTION, 0), 0);
	ASSERT_EQ(watch_flags(d.fd, p, BLOCK, CONTROL, PROTECTION, 0), 0);
	ASSERT_EQ(note(d.fd, NOTED), 0);
	ASSERT(fork_once());
	MUST_BE_SPLIT(&d);
	EXPECT_BOTH(&d, KIND(CLEAR));
}

/* What cuts a mapping splits before it changes the protection. */
TEST(mprotect_of_a_part_is_something)
{
	char *p = anonymous_block();
	struct dev d;

	ASSERT(p && split_open(&d));
	ASSERT(watch_and_note(&d, p));
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
	MUST_BE_SPLIT(&d);
	EXPECT_BOTH(&d, KIND(CLEAR));
}

/* After an event nobody knows what is there, until VERIFY says so. */
TEST(it_lasts_until_an_event)
{
	int i;

	for (i = 0; i < 2; i++) {
		char *p = anonymous_block();
		struct dev d;

		ASSERT(p && split_open(&d));
		ASSERT(mmap(p + BLOCK, PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		       p + BLOCK);
		p[BLOCK] = 1;
		ASSERT_EQ(watch_flags(d.fd, p, BLOCK + PAGE, NOTED, PROTECTION,
				      0), 0);
		ASSERT_EQ(watch_flags(d.fd, p, BLOCK, CONTROL, PROTECTION, 0),
			  0);
		PIN(p, BLOCK + PAGE);
		ASSERT_EQ(note(d.fd, NOTED), 0);
		/* An event of the page beside it, which stays. */
		ASSERT_EQ(madvise(p + BLOCK, PAGE, MADV_FREE), 0);
		EXPECT_ONLY_KINDS(&d, NOTED, KIND(CLEAR));
		if (i)
			EXPECT_EQ(verify(d.fd, NOTED), 1);
		ASSERT(fork_once());
		MUST_BE_SPLIT(&d);
		if (i)
			EXPECT_ONLY_KINDS(&d, CONTROL, KIND(CLEAR));
		else
			EXPECT_BOTH(&d, KIND(CLEAR));
		EXPECT_EQ(verify(d.fd, NOTED), 1);
		dev_close(&d);
	}
}

/*
 * The kernel announces a change of protection from address 0 on, and does not
 * say that it is over.
 */
TEST(a_change_at_address_zero_leaves_nothing_behind)
{
	char *volatile zero = mmap(NULL, 4 * BLOCK, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
				   0);
	char *p = zero + BLOCK;
	struct dev d;

	if (zero == MAP_FAILED)
		SKIP("address 0 cannot be mapped");
	ASSERT(split_open(&d));
	madvise(zero, 4 * BLOCK, MADV_HUGEPAGE);
	/* There is nothing behind the first block, which would begin it anew. */
	zero[1] = 1;
	ASSERT_EQ(mprotect(zero, 4 * BLOCK, PROT_READ), 0);
	ASSERT_EQ(mprotect(zero, 4 * BLOCK, PROT_READ | PROT_WRITE), 0);
	memset(p, 1, BLOCK);
	ASSERT(watch_and_note(&d, p));
	EXPECT_QUIET(&d);
	ASSERT_EQ(madvise(p, BLOCK, MADV_DONTNEED), 0);
	EXPECT_BOTH(&d, KIND(CLEAR));
}

/* What the note says is of its time: another takes it back. */
TEST(a_later_note_counts)
{
	char *p = anonymous_block();
	struct dev d;
	int wp;

	ASSERT(p && split_open(&d));
	ASSERT(watch_and_note(&d, p));
	ASSERT(mmap(p, BLOCK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		    huge_file(), 0) == p);
	memset(p, 1, BLOCK);
	EXPECT_BOTH(&d, KIND(UNMAP));
	ASSERT_EQ(note(d.fd, NOTED), 0);
	wp = protector(p);
	while (drain(d.fd) >= 0)
		;
	ASSERT_EQ(write_protect(wp, p + PAGE), 0);
	MUST_BE_SPLIT(&d);
	EXPECT_BOTH(&d, KIND(CLEAR));
}

/* The same block, by itself: what takes the pages away. */
TEST(a_block_that_is_taken_is_something)
{
	char *p = anonymous_block();
	struct dev d;

	ASSERT(p && split_open(&d));
	ASSERT(watch_and_note(&d, p));
	ASSERT_EQ(madvise(p, BLOCK, MADV_DONTNEED), 0);
	EXPECT_BOTH(&d, KIND(CLEAR));
	/* No change of protection is left behind. */
	memset(p, 1, BLOCK);
	ASSERT_EQ(mprotect(p, BLOCK, PROT_READ), 0);
	ASSERT_EQ(mprotect(p, BLOCK, PROT_READ | PROT_WRITE), 0);
	ASSERT(fork_once());
	while (drain(d.fd) >= 0)
		;
	ASSERT_EQ(madvise(p, BLOCK, MADV_DONTNEED), 0);
	EXPECT_BOTH(&d, KIND(CLEAR));
}

static int protecting = -1;

static long run_write_protect(struct job *j)
{
	return write_protect(protecting, j->p);
}

/* In the middle of a change of protection, but by somebody else. */
TEST(what_another_task_takes_is_something)
{
	char *p = anonymous_block();
	struct job jobs[2];
	struct stage s;

	ASSERT(p);
	ASSERT(stage_init(&s, 1, jobs, 2));
	ASSERT(dev_negotiate(&s.d, FEATURES, 0));
	protecting = protector(p);
	ASSERT(watch_and_note(&s.d, p));
	ASSERT(start_and_hold(&s, &jobs[0], run_write_protect, p, PAGE));
	job_start(&jobs[1], run_dontneed, p, BLOCK);
	ASSERT(WAIT_FOR(held(s.hold) == 2, 5000));
	EXPECT_BOTH(&s.d, KIND(CLEAR));
	ASSERT_EQ(release(s.hold, p, PAGE), 0);
	ASSERT(job_wait(&jobs[0]));
	ASSERT(job_wait(&jobs[1]));
}

/* NOTE of a region that has an event leaves the event as it is. */
TEST(a_note_keeps_the_event)
{
	char *p = area(4);
	struct dev d;

	ASSERT(split_open(&d));
	ASSERT_EQ(watch_flags(d.fd, p, 4 * PAGE, NOTED, PROTECTION, 0), 0);
	ASSERT(hit(p + PAGE));
	ASSERT_EQ(note(d.fd, NOTED), 0);
	EXPECT_ONLY_HINT_KINDS(&d, NOTED, p + PAGE, p + 2 * PAGE, KIND(CLEAR));

	/* A second hit of one that was noted meanwhile takes the hint. */
	ASSERT_EQ(watch_flags(d.fd, p, 4 * PAGE, CONTROL, PROTECTION, 0), 0);
	ASSERT(hit(p + PAGE));
	ASSERT_EQ(note(d.fd, CONTROL), 0);
	ASSERT(hit(p + 3 * PAGE));
	EXPECT_BOTH(&d, KIND(CLEAR));
	EXPECT_QUIET(&d);
}
