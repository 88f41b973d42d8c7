// SPDX-License-Identifier: GPL-2.0
/*
 * NOTE and VERIFY of large ranges, of which VERIFY looks only at the chunks
 * that were touched.
 */
#include "feature.h"

#define COOKIE	4
#define CHUNK	(2UL << 20)
#define FEATURES (FEATURE(VERIFY) | FEATURE(FILTER) | FEATURE(ONESHOT) | \
		  FEATURE(BATCH))
#define IGNORE_PROTECTION (KIND(PROTECTION_VMA) | KIND(PROTECTION_PAGE))

/* A large range costs little: all of its chunks are the same pages of a file. */
struct large {
	char *p;
	size_t chunks;
	int file, other;
};

static int shared_memory(size_t size)
{
	int fd = memfd_create("chunks", MFD_CLOEXEC);

	return fd >= 0 && !ftruncate(fd, size) ? fd : -1;
}

/* Puts a page there: the one that belongs there, or another. */
static bool put_page(const struct large *l, size_t at, int file)
{
	char *p = l->p + at;
	off_t offset = file == l->file ? at % CHUNK : 0;

	return mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED |
		    MAP_POPULATE, file, offset) == p;
}

static bool large_init(struct large *l, size_t chunks)
{
	size_t i;
	char *p;

	l->chunks = chunks;
	l->file = shared_memory(CHUNK);
	l->other = shared_memory(PAGE);
	p = mmap(NULL, (chunks + 1) * CHUNK, PROT_NONE, MAP_PRIVATE |
		 MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (l->file < 0 || l->other < 0 || p == MAP_FAILED)
		return false;
	l->p = (char *)((addr(p) + CHUNK - 1) & ~(CHUNK - 1));
	for (i = 0; i < chunks; i++) {
		p = l->p + i * CHUNK;
		if (mmap(p, CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED |
			 MAP_FIXED | MAP_POPULATE, l->file, 0) != p)
			return false;
		memset(p, 1, i ? 0 : CHUNK);
	}
	return true;
}

/* An event after which the page is where it was. */
static bool touch(const struct large *l, size_t at)
{
	volatile char *p = l->p + at;

	if (madvise(l->p + at, PAGE, MADV_DONTNEED))
		return false;
	return *p == 1;
}

static bool note_large(struct dev *d, const struct large *l, size_t from,
		       size_t to, __u32 flags)
{
	return dev_open_with(d, FEATURES, 0) &&
	       !watch_flags(d->fd, l->p + from, to - from, COOKIE, flags, 0) &&
	       !note(d->fd, COOKIE) && verify(d->fd, COOKIE) == 1;
}

/* Wherever in the range, and whether or not it begins or ends with a chunk. */
TEST(a_change_anywhere_counts)
{
	const struct { size_t from, to; } ranges[] = {
		{ 0, 8 * CHUNK }, { 0, 8 * CHUNK + PAGE }, { 0, 9 * CHUNK },
		{ PAGE, 12 * CHUNK }, { CHUNK - PAGE, 10 * CHUNK + PAGE },
	};
	struct large l;
	unsigned int i, k;

	ASSERT(large_init(&l, 12));
	for (i = 0; i < ARRAY_LEN(ranges); i++) {
		size_t from = ranges[i].from, to = ranges[i].to;
		const size_t at[] = {
			from, from + PAGE, CHUNK - PAGE, CHUNK,
			CHUNK + 77 * PAGE, 5 * CHUNK - PAGE, to - CHUNK,
			to - PAGE,
		};
		struct dev d;

		ASSERT(note_large(&d, &l, from, to, 0));
		for (k = 0; k < ARRAY_LEN(at); k++) {
			ASSERT(touch(&l, at[k]));
			EXPECT_EQ(verify(d.fd, COOKIE), 1);
			ASSERT(put_page(&l, at[k], l.other));
			EXPECT_EQ(verify(d.fd, COOKIE), 0);
			/* Nor does it become true by asking again. */
			EXPECT_EQ(verify(d.fd, COOKIE), 0);
			ASSERT(touch(&l, (at[k] + CHUNK) % to & -CHUNK));
			EXPECT_EQ(verify(d.fd, COOKIE), 0);
			ASSERT(put_page(&l, at[k], l.file));
			EXPECT_EQ(verify(d.fd, COOKIE), 1);
		}
		while (drain(d.fd) >= 0)
			;
		dev_close(&d);
	}
}

/*
 * A page that cannot be looked at is no matter where nothing was touched, which
 * shows that VERIFY does not look there.
 */
TEST(only_what_was_touched_is_looked_at)
{
	struct large l;
	struct dev d;

	ASSERT(large_init(&l, 16));
	ASSERT(note_large(&d, &l, 0, 16 * CHUNK, IGNORE_PROTECTION));
	/* What only moves protection is ignored; what else it does, is not. */
	ASSERT_EQ(mprotect(l.p + 10 * CHUNK, CHUNK, PROT_NONE), 0);
	while (drain(d.fd) >= 0)
		;
	EXPECT_GE(verify(d.fd, COOKIE), 0);
	ASSERT_EQ(mprotect(l.p + 10 * CHUNK, CHUNK, PROT_READ), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	ASSERT_EQ(mprotect(l.p + 10 * CHUNK, CHUNK, PROT_NONE), 0);
	if (verify(d.fd, COOKIE) != 1)
		SKIP("this kernel clears what it protects");
	ASSERT(touch(&l, 3 * CHUNK));
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
	/* In the same chunk it is. */
	ASSERT_EQ(madvise(l.p + 10 * CHUNK, PAGE, MADV_DONTNEED), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 0);
	ASSERT_EQ(mprotect(l.p + 10 * CHUNK, CHUNK, PROT_READ), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
}

/* What is forgotten for others that were touched later counts still. */
TEST(of_many_places_none_is_lost)
{
	static const unsigned int counts[] = { 1, 126, 127, 128, 129, 140 };
	struct large l;
	struct dev d;
	unsigned int i, n;

	ASSERT(large_init(&l, 300));
	ASSERT(note_large(&d, &l, 0, 300 * CHUNK, 0));
	for (i = 0; i < ARRAY_LEN(counts); i++) {
		ASSERT(put_page(&l, 5 * PAGE, l.other));
		for (n = 0; n < counts[i]; n++)
			ASSERT(touch(&l, (n + 1) * 2 * CHUNK));
		EXPECT_EQ(verify(d.fd, COOKIE), 0);
		ASSERT(put_page(&l, 5 * PAGE, l.file));
		EXPECT_EQ(verify(d.fd, COOKIE), 1);
		/* The same with the change in the midst of them. */
		for (n = 0; n < counts[i]; n++) {
			ASSERT(touch(&l, (n + 1) * 2 * CHUNK));
			if (n == counts[i] / 2)
				ASSERT(put_page(&l, 299 * CHUNK, l.other));
		}
		EXPECT_EQ(verify(d.fd, COOKIE), 0);
		ASSERT(put_page(&l, 299 * CHUNK, l.file));
		EXPECT_EQ(verify(d.fd, COOKIE), 1);
	}
}

/* Each has notes of its own, and hears of what others were verified after. */
TEST(two_ranges_of_one_memory)
{
	struct large l;
	struct dev d;
	int i;

	ASSERT(large_init(&l, 20));
	ASSERT(note_large(&d, &l, 0, 20 * CHUNK, 0));
	ASSERT_EQ(watch(d.fd, l.p + CHUNK, 12 * CHUNK, COOKIE + 1), 0);
	ASSERT_EQ(note(d.fd, COOKIE + 1), 0);
	for (i = 0; i < 3; i++) {
		ASSERT(put_page(&l, 6 * CHUNK, l.other));
		EXPECT_EQ(verify(d.fd, COOKIE), 0);
		EXPECT_EQ(verify(d.fd, COOKIE + 1), 0);
		ASSERT(put_page(&l, 6 * CHUNK, l.file));
		EXPECT_EQ(verify(d.fd, COOKIE), 1);
		ASSERT(touch(&l, 7 * CHUNK));
		EXPECT_EQ(verify(d.fd, COOKIE), 1);
		if (i == 1)
			ASSERT(put_page(&l, 6 * CHUNK, l.other));
		EXPECT_EQ(verify(d.fd, COOKIE + 1), i != 1);
		if (i == 1) {
			ASSERT_EQ(note(d.fd, COOKIE + 1), 0);
			EXPECT_EQ(verify(d.fd, COOKIE + 1), 1);
			EXPECT_EQ(verify(d.fd, COOKIE), 0);
			ASSERT(put_page(&l, 6 * CHUNK, l.file));
			EXPECT_EQ(verify(d.fd, COOKIE), 1);
			EXPECT_EQ(verify(d.fd, COOKIE + 1), 0);
			ASSERT_EQ(note(d.fd, COOKIE + 1), 0);
		}
	}
}

TEST(a_note_goes_with_its_range)
{
	struct large l;
	struct dev d;
	int i;

	ASSERT(large_init(&l, 16));
	ASSERT(note_large(&d, &l, 0, 16 * CHUNK, 0));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(note(d.fd, COOKIE), 0);
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), -EINVAL);
	ASSERT(touch(&l, CHUNK));
	/* The same cookie: a small range, a large one, one for one event. */
	EXPECT_EQ(watch(d.fd, l.p, PAGE, COOKIE), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), -EINVAL);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
	EXPECT_EQ(watch_flags(d.fd, l.p, 16 * CHUNK, COOKIE,
			      UMMUNOTIFY_REGISTER_ONESHOT, 0), 0);
	EXPECT_EQ(verify(d.fd, COOKIE), -EINVAL);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	ASSERT(touch(&l, CHUNK));
	EXPECT_EQ(drain(d.fd), 1);
	EXPECT_EQ(verify(d.fd, COOKIE), -EINVAL);
	/* All at once, and with the file. */
	EXPECT_EQ(watch(d.fd, l.p, 16 * CHUNK, COOKIE), 0);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
	EXPECT_EQ(unwatch_all(d.fd), 0);
	EXPECT_EQ(watch(d.fd, l.p, 16 * CHUNK, COOKIE), 0);
	EXPECT_EQ(note(d.fd, COOKIE), 0);
}

/* NOTE finds the old pages, of which the event is past. */
TEST(a_change_in_flight_is_noted_by_its_end)
{
	const size_t size = 10 * CHUNK;
	struct stage s;
	struct job job;

	ASSERT(stage_init(&s, size / PAGE, &job, 1));
	ASSERT(dev_negotiate(&s.d, FEATURES, 0));
	ASSERT_EQ(watch(s.d.fd, s.p, size, COOKIE), 0);
	PIN(s.p, size);
	ASSERT(start_and_hold(&s, &job, run_dontneed, s.p + 5 * CHUNK, PAGE));
	EXPECT_EQ(drain(s.d.fd), 1);
	EXPECT_EQ(note(s.d.fd, COOKIE), 0);
	ASSERT_EQ(release(s.hold, s.p + 5 * CHUNK, PAGE), 0);
	ASSERT(job_wait(&job));
	EXPECT_EQ(verify(s.d.fd, COOKIE), 0);
	s.p[5 * CHUNK] = 1;
	EXPECT_EQ(verify(s.d.fd, COOKIE), 0);
	EXPECT_EQ(note(s.d.fd, COOKIE), 0);
	EXPECT_EQ(verify(s.d.fd, COOKIE), 1);
}

static bool stop;

static void *keep_verifying(void *arg)
{
	struct dev *d = arg;
	long ret = 0;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED) && ret >= 0)
		ret = verify(d->fd, COOKIE);
	return (void *)ret;
}

static void *keep_touching(void *arg)
{
	struct large *l = arg;
	size_t at = 0;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		if (!touch(l, (l->chunks / 2 + at++ % (l->chunks / 2)) * CHUNK))
			return (void *)-1L;
	}
	return NULL;
}

/* None takes from another what that has not looked at yet. */
TEST(many_verify_at_once)
{
	pthread_t threads[3];
	struct large l;
	struct dev d;
	void *ret;
	int i;

	ASSERT(large_init(&l, 300));
	ASSERT(note_large(&d, &l, 0, 300 * CHUNK, 0));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(pthread_create(&threads[i], NULL, keep_verifying,
					 &d), 0);
	ASSERT_EQ(pthread_create(&threads[2], NULL, keep_touching, &l), 0);
	for (i = 0; i < 300; i++) {
		size_t at = i * 7 % 100 * CHUNK + i * PAGE;

		ASSERT(put_page(&l, at, l.other));
		EXPECT_EQ(verify(d.fd, COOKIE), 0);
		ASSERT(put_page(&l, at, l.file));
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(pthread_join(threads[i], &ret), 0);
		EXPECT_GE((long)ret, 0);
	}
	EXPECT_EQ(verify(d.fd, COOKIE), 1);
}
