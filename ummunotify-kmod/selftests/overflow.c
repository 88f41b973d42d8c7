// SPDX-License-Identifier: GPL-2.0
/*
 * More invalidations in flight than the driver can tell apart, and processes
 * that die while some are.
 */
#include "hold.h"

/* The driver's table has so many slots for an address space. */
#define SLOTS	64
#define EXTRA	4
#define ALL	(SLOTS + EXTRA)

#define COOKIE	31

/* Brings the number of held invalidations from @from to @to. */
static bool fill(struct stage *s, struct job *jobs, long from, long to)
{
	long i;

	for (i = from; i < to; i++)
		job_start(&jobs[i], run_dontneed, s->p + i * PAGE, PAGE);
	return WAIT_FOR(held(s->hold) == to, 10000);
}

static bool empty(struct stage *s, struct job *jobs, long n)
{
	long i;

	if (release(s->hold, s->p, ALL * PAGE))
		return false;
	for (i = 0; i < n; i++) {
		if (!job_wait(&jobs[i]))
			return false;
	}
	return held(s->hold) == 0;
}

/* Not one slot fewer, and all of them come back: three rounds. */
TEST(a_full_table_is_exact)
{
	static struct job jobs[ALL];
	struct stage s;
	int i;

	ASSERT(stage_init(&s, ALL + 1, jobs, ALL));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(hold(s.hold, s.p, ALL * PAGE), 0);
		ASSERT(fill(&s, jobs, 0, SLOTS));
		EXPECT_EQ(watch(s.d.fd, s.p + ALL * PAGE, PAGE, i), 0);
		EXPECT_EQ(held(s.hold), SLOTS);
		EXPECT_EQ(*s.d.gen, 0);
		EXPECT_QUIET(&s.d);
		ASSERT(empty(&s, jobs, SLOTS));
		EXPECT_EQ(*s.d.gen, 0);
	}
}

/* Nobody knows what the others cover: not trusted, wherever it is. */
TEST(an_overflow_is_doubt)
{
	static struct job jobs[ALL];
	struct stage s;
	__u64 gen;
	int i;

	ASSERT(stage_init(&s, ALL + 2, jobs, ALL));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(hold(s.hold, s.p, ALL * PAGE), 0);
		ASSERT(fill(&s, jobs, 0, ALL));
		gen = *s.d.gen;
		EXPECT_EQ(watch(s.d.fd, s.p + ALL * PAGE, PAGE, 2 * i), 0);
		EXPECT_EQ(held(s.hold), ALL);
		EXPECT_GT(*s.d.gen, gen);
		EXPECT_ONLY(&s.d, 2 * i);
		EXPECT_EQ(unwatch(s.d.fd, 2 * i), 0);
		ASSERT(empty(&s, jobs, ALL));
		while (drain(s.d.fd) >= 0)
			;

		/* Once they are over, so is the doubt. */
		gen = *s.d.gen;
		EXPECT_EQ(watch(s.d.fd, s.p + (ALL + 1) * PAGE, PAGE,
				2 * i + 1), 0);
		EXPECT_EQ(*s.d.gen, gen);
		EXPECT_QUIET(&s.d);
	}
}

/* Also an invalidation without a slot hits again what was read meanwhile. */
TEST(an_overflow_forgets_no_region_read_in_flight)
{
	static struct job jobs[ALL];
	struct stage s;

	ASSERT(stage_init(&s, ALL + 1, jobs, ALL));
	ASSERT_EQ(watch(s.d.fd, s.p + SLOTS * PAGE, PAGE, COOKIE), 0);
	ASSERT_EQ(hold(s.hold, s.p, ALL * PAGE), 0);
	ASSERT(fill(&s, jobs, 0, SLOTS));
	EXPECT_QUIET(&s.d);
	ASSERT(fill(&s, jobs, SLOTS, SLOTS + 1));
	EXPECT_ONLY(&s.d, COOKIE);
	EXPECT_QUIET(&s.d);
	ASSERT(empty(&s, jobs, SLOTS + 1));
	EXPECT_ONLY(&s.d, COOKIE);
	EXPECT_QUIET(&s.d);
}

/* Waits for a child's death for less than the helper module's limit. */
static bool dies(pid_t pid)
{
	return WAIT_FOR(waitpid(pid, NULL, WNOHANG) == pid, 8000);
}

TEST(kill_while_register_waits)
{
	struct job jobs[2];
	struct gate ready;
	struct stage s;
	pid_t pid;
	int i, fd = hold_open();

	if (fd < 0 && errno == ENOENT)
		SKIP("ummunotify_hold is not loaded");
	close(fd);
	ASSERT(gate_init(&ready));
	for (i = 0; i < 5; i++) {
		pid = fork();
		if (!pid) {
			if (!stage_init(&s, 1, jobs, 2) ||
			    !start_and_hold(&s, &jobs[0], run_dontneed, s.p,
					    PAGE))
				abort();
			job_start(&jobs[1], run_register, s.p, PAGE);
			sleep_ms(50);
			gate_open(&ready);
			pause();
		}
		gate_wait(&ready);
		kill(pid, SIGKILL);
		EXPECT(dies(pid));
	}
}

/*
 * The invalidation is another process's and outlives the address space: its
 * end is never delivered to anyone.
 */
TEST(kill_while_another_process_invalidates)
{
	int file = memfd_create("shared", MFD_CLOEXEC), i, fd = hold_open();
	struct gate punch, ready;
	struct job jobs[2];
	struct stage s;
	pid_t victim, other;
	char *p;

	if (fd < 0 && errno == ENOENT)
		SKIP("ummunotify_hold is not loaded");
	close(fd);
	ASSERT_EQ(ftruncate(file, PAGE), 0);
	ASSERT(gate_init(&punch));
	ASSERT(gate_init(&ready));
	for (i = 0; i < 5; i++) {
		other = fork();
		if (!other) {
			gate_wait(&punch);
			EXPECT_EQ(fallocate(file, FALLOC_FL_PUNCH_HOLE |
					    FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
			child_exit();
		}
		victim = fork();
		if (!victim) {
			p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
				 file, 0);
			if (p == MAP_FAILED)
				abort();
			*p = 1;
			if (!stage_init(&s, 1, jobs, 2) ||
			    hold(s.hold, p, PAGE))
				abort();
			gate_open(&punch);
			if (!WAIT_FOR(held(s.hold) == 1, 5000))
				abort();
			job_start(&jobs[1], run_register, p, PAGE);
			sleep_ms(50);
			gate_open(&ready);
			pause();
		}
		gate_wait(&ready);
		kill(victim, SIGKILL);
		EXPECT(dies(victim));
		EXPECT_CHILD_OK(other);
	}
}

/* Exit with the file open, a region invalid and an invalidation in flight. */
TEST(exit_while_in_flight)
{
	struct job change;
	struct stage s;
	pid_t pid;
	int i, fd = hold_open();

	if (fd < 0 && errno == ENOENT)
		SKIP("ummunotify_hold is not loaded");
	close(fd);
	for (i = 0; i < 5; i++) {
		pid = fork();
		if (!pid) {
			if (!stage_init(&s, 2, &change, 1) ||
			    watch(s.d.fd, s.p, PAGE, COOKIE) ||
			    !start_and_hold(&s, &change, run_dontneed, s.p,
					    PAGE))
				abort();
			EXPECT_EQ(*s.d.gen, 1);
			child_exit();
		}
		EXPECT_CHILD_OK(pid);
	}
}
