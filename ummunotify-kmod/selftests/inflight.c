// SPDX-License-Identifier: GPL-2.0
/*
 * REGISTER and read() while an invalidation is between its start and its end:
 * who pins memory then must not keep the old pages unawares.
 */
#include "hold.h"

#define COOKIE 21

/* Another process that punches holes into a shared file on request. */
static int other_ask[2], other_told[2], other_file;

static void other_start(void)
{
	off_t off;

	other_file = memfd_create("shared", MFD_CLOEXEC);
	if (pipe(other_ask) || pipe(other_told) ||
	    ftruncate(other_file, 16 * PAGE))
		abort();
	if (fork())
		return;
	/* Or the end of file would never come. */
	close(other_ask[1]);
	while (read(other_ask[0], &off, sizeof(off)) == sizeof(off)) {
		if (fallocate(other_file, FALLOC_FL_PUNCH_HOLE |
			      FALLOC_FL_KEEP_SIZE, off, PAGE) ||
		    write(other_told[1], "", 1) != 1)
			_exit(HARNESS_FAIL);
	}
	_exit(0);
}

static char *other_base;

static long run_other(struct job *j)
{
	off_t off = j->p - other_base;
	char c;

	if (write(other_ask[1], &off, sizeof(off)) != sizeof(off))
		return -errno;
	return read(other_told[0], &c, 1) == 1 ? 0 : -EPIPE;
}

/*
 * REGISTER of a range under an invalidation in flight returns after its end,
 * and then the region is valid: what is pinned now is new.
 */
static void waits_for(long (*run)(struct job *), size_t offset, size_t len)
{
	struct job jobs[2], *change = &jobs[0], *reg = &jobs[1];
	struct stage s;
	__u64 gen;
	long began;
	int i;

	if (run == run_other)
		other_start();
	ASSERT(stage_init(&s, 2 * TRIES, jobs, 2));
	if (run == run_other) {
		s.p = mmap(NULL, 2 * TRIES * PAGE, PROT_READ | PROT_WRITE,
			   MAP_SHARED, other_file, 0);
		ASSERT(s.p != MAP_FAILED);
		memset(s.p, 1, 2 * TRIES * PAGE);
		other_base = s.p;
	}

	for (i = 0; i < TRIES; i++) {
		char *p = s.p + 2 * i * PAGE;

		gen = *s.d.gen;
		reg->cookie = i;
		ASSERT(start_and_hold(&s, change, run, p, PAGE));
		began = now_ms();
		job_start(reg, run_register, p + offset, len);
		sleep_ms(200);
		if (job_done(reg) && now_ms() - began < IN_TIME_MS) {
			EXPECT(!"REGISTER returned while it was in flight");
			return;
		}
		ASSERT_EQ(release(s.hold, p, PAGE), 0);
		began = now_ms() - began;
		ASSERT(job_wait(reg));
		EXPECT_EQ(reg->ret, 0);
		ASSERT(job_wait(change));
		EXPECT_EQ(change->ret, 0);
		if (began < IN_TIME_MS) {
			EXPECT_EQ(*s.d.gen, gen);
			EXPECT_QUIET(&s.d);
			EXPECT_EQ(unwatch(s.d.fd, i), 0);
			return;
		}
		EXPECT_EQ(drain(s.d.fd), 1);
	}
	SKIP("too slow to tell");
}

TEST(register_waits_for_madvise)
{
	waits_for(run_dontneed, 0, PAGE);
}

TEST(register_waits_for_munmap)
{
	waits_for(run_munmap, 0, PAGE);
}

TEST(register_waits_for_mmap_fixed)
{
	waits_for(run_mmap_fixed, 0, PAGE);
}

TEST(register_waits_for_another_process)
{
	waits_for(run_other, 0, PAGE);
}

/* The bytes are elsewhere in the page, but the page is the same. */
TEST(register_of_a_part_of_the_page_waits)
{
	waits_for(run_dontneed, 100, 1);
}

TEST(register_of_no_bytes_waits)
{
	waits_for(run_dontneed, 100, 0);
}

TEST(register_of_more_than_the_page_waits)
{
	waits_for(run_dontneed, 0, 2 * PAGE);
}

/* Had it waited, it would be invalid after the time limit. */
TEST(register_beside_it_does_not_wait)
{
	struct job change;
	struct stage s;

	ASSERT(stage_init(&s, 3, &change, 1));
	ASSERT(start_and_hold(&s, &change, run_dontneed, s.p + PAGE, PAGE));
	EXPECT_EQ(watch(s.d.fd, s.p, PAGE, 1), 0);
	EXPECT_EQ(watch(s.d.fd, s.p + 2 * PAGE, PAGE, 2), 0);
	EXPECT_EQ(watch(s.d.fd, s.p, 0, 3), 0);
	EXPECT_EQ(held(s.hold), 1);
	EXPECT_EQ(*s.d.gen, 0);
	EXPECT_QUIET(&s.d);
	ASSERT_EQ(release(s.hold, s.p, 3 * PAGE), 0);
	ASSERT(job_wait(&change));
	EXPECT_EQ(*s.d.gen, 0);
	EXPECT_QUIET(&s.d);
}

/* A change of protection leaves the pages where they are. */
TEST(register_does_not_wait_for_mprotect)
{
	struct job change;
	struct stage s;

	ASSERT(stage_init(&s, 1, &change, 1));
	ASSERT(start_and_hold(&s, &change, run_mprotect, s.p, PAGE));
	EXPECT_EQ(watch(s.d.fd, s.p, PAGE, COOKIE), 0);
	EXPECT_EQ(held(s.hold), 1);
	EXPECT_EQ(*s.d.gen, 0);
	EXPECT_QUIET(&s.d);
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(&change));
	EXPECT_EQ(change.ret, 0);
}

/* Not trusted, and not stuck either. */
TEST(register_waits_no_longer_than_a_second)
{
	struct job change;
	struct stage s;

	ASSERT(stage_init(&s, 1, &change, 1));
	ASSERT(start_and_hold(&s, &change, run_dontneed, s.p, PAGE));
	EXPECT_EQ(watch(s.d.fd, s.p, PAGE, COOKIE), 0);
	EXPECT_EQ(held(s.hold), 1);
	EXPECT_GT(*s.d.gen, 0);
	EXPECT(poll_now(s.d.fd) & POLLIN);
	EXPECT_ONLY(&s.d, COOKIE);

	/* That read has armed it within the invalidation: once more. */
	EXPECT_QUIET(&s.d);
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(&change));
	EXPECT_ONLY(&s.d, COOKIE);
	EXPECT_QUIET(&s.d);
}

static void on_signal(int sig)
{
	(void)sig;
}

/* Even with SA_RESTART: a restarted REGISTER would find its own cookie. */
static void signal_ends_the_wait(int sa_flags)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = sa_flags };
	struct job jobs[2], *change = &jobs[0], *reg = &jobs[1];
	struct stage s;
	bool in_time = false;
	long began;
	int i;

	ASSERT_EQ(sigaction(SIGUSR1, &sa, NULL), 0);
	ASSERT(stage_init(&s, 1, jobs, 2));
	reg->cookie = COOKIE;
	for (i = 0; i < TRIES && !in_time; i++) {
		__u64 gen = *s.d.gen;

		ASSERT(start_and_hold(&s, change, run_dontneed, s.p, PAGE));
		began = now_ms();
		job_start(reg, run_register, s.p, PAGE);
		sleep_ms(100);
		while (!job_done(reg)) {
			pthread_kill(reg->thread, SIGUSR1);
			sleep_ms(10);
		}
		in_time = now_ms() - began < IN_TIME_MS;
		EXPECT_EQ(reg->ret, 0);
		EXPECT_EQ(held(s.hold), 1);
		EXPECT_GT(*s.d.gen, gen);
		EXPECT_ONLY(&s.d, COOKIE);
		EXPECT_EQ(unwatch(s.d.fd, COOKIE), 0);
		ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
		ASSERT(job_wait(change));
		while (drain(s.d.fd) >= 0)
			;
	}
	EXPECT(in_time);
}

TEST(a_signal_ends_the_wait)
{
	signal_ends_the_wait(0);
}

TEST(a_restarting_signal_ends_the_wait)
{
	signal_ends_the_wait(SA_RESTART);
}

/* Who reads the event and pins before the end pins the old pages. */
TEST(a_region_read_in_flight_is_hit_again_at_the_end)
{
	struct job change;
	struct stage s;
	__u64 gen;

	ASSERT(stage_init(&s, 3, &change, 1));
	ASSERT_EQ(watch(s.d.fd, s.p, 3 * PAGE, COOKIE), 0);
	ASSERT(start_and_hold(&s, &change, run_dontneed, s.p + PAGE, PAGE));
	/* The counter moves before any page table entry changes. */
	EXPECT_EQ(*s.d.gen, 1);
	EXPECT_EQ(s.p[PAGE], 1);
	EXPECT_ONLY_HINT(&s.d, COOKIE, s.p + PAGE, s.p + 2 * PAGE);
	EXPECT_QUIET(&s.d);
	gen = *s.d.gen;
	ASSERT_EQ(release(s.hold, s.p, 3 * PAGE), 0);
	ASSERT(job_wait(&change));
	EXPECT_GT(*s.d.gen, gen);
	EXPECT_ONLY(&s.d, COOKIE);
	EXPECT_QUIET(&s.d);
}

/* The end as such is no event: start and end are not two hits. */
TEST(a_region_not_read_in_flight_is_hit_once)
{
	struct job change;
	struct stage s;

	ASSERT(stage_init(&s, 3, &change, 1));
	ASSERT_EQ(watch(s.d.fd, s.p, 3 * PAGE, COOKIE), 0);
	ASSERT(start_and_hold(&s, &change, run_dontneed, s.p + PAGE, PAGE));
	ASSERT_EQ(release(s.hold, s.p, 3 * PAGE), 0);
	ASSERT(job_wait(&change));
	EXPECT_EQ(*s.d.gen, 1);
	EXPECT_ONLY_HINT(&s.d, COOKIE, s.p + PAGE, s.p + 2 * PAGE);
	EXPECT_QUIET(&s.d);
}

/* A region elsewhere, hit and read meanwhile, has nothing to do with it. */
TEST(a_region_elsewhere_is_not_hit_again)
{
	struct job change;
	struct stage s;

	ASSERT(stage_init(&s, 3, &change, 1));
	ASSERT_EQ(watch(s.d.fd, s.p + 2 * PAGE, PAGE, COOKIE), 0);
	ASSERT(start_and_hold(&s, &change, run_dontneed, s.p, PAGE));
	EXPECT_EQ(madvise(s.p + 2 * PAGE, PAGE, MADV_DONTNEED), 0);
	EXPECT_ONLY_HINT(&s.d, COOKIE, s.p + 2 * PAGE, s.p + 3 * PAGE);
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(&change));
	EXPECT_EQ(*s.d.gen, 1);
	EXPECT_QUIET(&s.d);
}

/* Or a process that unmaps in a loop could keep REGISTER for ever. */
TEST(register_does_not_wait_for_what_begins_later)
{
	struct job jobs[3], *reg = &jobs[2];
	struct stage s;
	bool in_time = false;
	long began;
	int i;

	ASSERT(stage_init(&s, 2, jobs, 3));
	reg->cookie = COOKIE;
	for (i = 0; i < TRIES && !in_time; i++) {
		ASSERT(start_and_hold(&s, &jobs[0], run_dontneed, s.p, PAGE));
		began = now_ms();
		job_start(reg, run_register, s.p, 2 * PAGE);
		sleep_ms(100);
		ASSERT(start_and_hold(&s, &jobs[1], run_dontneed, s.p + PAGE,
				      PAGE));
		ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
		ASSERT(job_wait(reg));
		in_time = now_ms() - began < IN_TIME_MS;
		EXPECT_EQ(reg->ret, 0);
		EXPECT_EQ(held(s.hold), 1);
		/* It was hit all right. */
		EXPECT_ONLY(&s.d, COOKIE);
		EXPECT_EQ(unwatch(s.d.fd, COOKIE), 0);
		ASSERT_EQ(release(s.hold, s.p + PAGE, PAGE), 0);
		ASSERT(job_wait(&jobs[0]));
		ASSERT(job_wait(&jobs[1]));
		while (drain(s.d.fd) >= 0)
			;
	}
	EXPECT(in_time);
}

/* The region is gone by the time that REGISTER looks at it again. */
TEST(unregister_while_register_waits)
{
	struct job jobs[2], *change = &jobs[0], *reg = &jobs[1];
	struct stage s;
	long ret;
	int i;

	ASSERT(stage_init(&s, 2, jobs, 2));
	reg->cookie = COOKIE;
	for (i = 0; i < 4; i++) {
		ASSERT(start_and_hold(&s, change, run_dontneed, s.p, PAGE));
		job_start(reg, run_register, s.p, PAGE);
		ASSERT(WAIT_FOR(!(ret = unwatch(s.d.fd, COOKIE)), 5000));
		EXPECT_EQ(unwatch(s.d.fd, COOKIE), -EINVAL);
		/* By the end in two rounds, by the time limit in two. */
		if (i & 1)
			ASSERT(job_wait(reg));
		ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
		ASSERT(job_wait(reg));
		EXPECT_EQ(reg->ret, 0);
		ASSERT(job_wait(change));
		EXPECT_EQ(madvise(s.p, PAGE, MADV_DONTNEED), 0);
		EXPECT_EQ(unwatch(s.d.fd, COOKIE), -EINVAL);
		while ((ret = drain(s.d.fd)) >= 0)
			EXPECT_EQ(ret, 0);
	}
}

/* It is in already, though its REGISTER has not returned. */
TEST(the_cookie_is_taken_while_register_waits)
{
	struct job jobs[2], *change = &jobs[0], *reg = &jobs[1];
	struct stage s;
	int i;
	long ret = 0;

	ASSERT(stage_init(&s, 2 * TRIES, jobs, 2));
	for (i = 0; i < TRIES && ret != -EINVAL; i++) {
		reg->cookie = i;
		ASSERT(start_and_hold(&s, change, run_dontneed, s.p, PAGE));
		job_start(reg, run_register, s.p, PAGE);
		sleep_ms(200);
		ret = watch(s.d.fd, s.p + PAGE, PAGE, i);
		ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
		ASSERT(job_wait(reg));
		ASSERT(job_wait(change));
	}
	EXPECT_EQ(ret, -EINVAL);
}

/* The descriptor goes, the file stays until REGISTER is done with it. */
TEST(close_while_register_waits)
{
	struct job jobs[2], *change = &jobs[0], *reg = &jobs[1];
	struct stage s;
	int fd;

	ASSERT(stage_init(&s, 2, jobs, 2));
	fd = open(DEVICE, O_RDONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	reg->fd = fd;
	ASSERT(start_and_hold(&s, change, run_dontneed, s.p, PAGE));
	job_start(reg, run_register, s.p, PAGE);
	sleep_ms(100);
	EXPECT_EQ(close(fd), 0);
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(reg));
	EXPECT_EQ(reg->ret, 0);
	ASSERT(job_wait(change));
}
