/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A small test harness: every TEST() runs in a process of its own with a time
 * limit, and the program reports in TAP 13.
 *
 * A program takes one optional argument: run the tests whose names contain
 * it.  It exits with 1 if a test failed or none was selected.  Time limits
 * are multiplied by the variable HARNESS_SLOWDOWN.
 */
#ifndef HARNESS_H
#define HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HARNESS_PASS, HARNESS_FAIL, HARNESS_SKIP = 4 };

struct harness_test {
	const char *name;
	void (*fn)(void);
	unsigned int seconds;
	struct harness_test *next;
};

static struct harness_test *harness_first;
static struct harness_test **harness_tail = &harness_first;

/* Set in the process where an expectation was missed. */
static int harness_failed;

/* The reason of a skip, shared between a test's process and the harness. */
static char *harness_reason;

/*
 * A program that executes itself anew sets this; it is called instead of the
 * tests if the first argument begins with "--".
 */
static int (*harness_helper)(int argc, char **argv);

static inline void harness_add(struct harness_test *test)
{
	*harness_tail = test;
	harness_tail = &test->next;
}

#define TEST_TIMEOUT(fn_, seconds_)					\
	static void fn_(void);						\
	static struct harness_test fn_##_test = {			\
		.name = #fn_, .fn = fn_, .seconds = seconds_,		\
	};								\
	static void __attribute__((constructor)) fn_##_add(void)	\
	{								\
		harness_add(&fn_##_test);				\
	}								\
	static void fn_(void)

#define TEST(fn_) TEST_TIMEOUT(fn_, 60)

static inline void harness_miss(const char *file, int line, const char *what,
				long long got, long long want)
{
	__atomic_store_n(&harness_failed, 1, __ATOMIC_RELAXED);
	dprintf(STDOUT_FILENO, "# %s:%d: %s: got %lld (%#llx), want %lld (%#llx)\n",
		file, line, what, got, got, want, want);
}

#define HARNESS_CHECK(got_, op_, want_, stop_) do {			\
	long long got__ = (long long)(got_);				\
	long long want__ = (long long)(want_);				\
	if (!(got__ op_ want__)) {					\
		harness_miss(__FILE__, __LINE__,			\
			     #got_ " " #op_ " " #want_, got__, want__);	\
		stop_;							\
	}								\
} while (0)

/* EXPECT goes on after a miss; ASSERT leaves the (void) function. */
#define EXPECT_EQ(got, want)	HARNESS_CHECK(got, ==, want, (void)0)
#define EXPECT_NE(got, want)	HARNESS_CHECK(got, !=, want, (void)0)
#define EXPECT_LT(got, want)	HARNESS_CHECK(got, <, want, (void)0)
#define EXPECT_GT(got, want)	HARNESS_CHECK(got, >, want, (void)0)
#define EXPECT_GE(got, want)	HARNESS_CHECK(got, >=, want, (void)0)
#define EXPECT(cond)		HARNESS_CHECK(!!(cond), ==, 1, (void)0)
#define ASSERT_EQ(got, want)	HARNESS_CHECK(got, ==, want, return)
#define ASSERT_NE(got, want)	HARNESS_CHECK(got, !=, want, return)
#define ASSERT_GT(got, want)	HARNESS_CHECK(got, >, want, return)
#define ASSERT_GE(got, want)	HARNESS_CHECK(got, >=, want, return)
#define ASSERT(cond)		HARNESS_CHECK(!!(cond), ==, 1, return)

/* Ends the test's process.  Not for children of a test. */
#define SKIP(reason_) do {						\
	snprintf(harness_reason, 256, "%s", reason_);			\
	_exit(HARNESS_SKIP);						\
} while (0)

/* Ends a child that a test forked, handing its misses to EXPECT_CHILD_OK. */
static inline void __attribute__((noreturn)) child_exit(void)
{
	_exit(harness_failed ? HARNESS_FAIL : HARNESS_PASS);
}

static inline int child_status(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

#define EXPECT_CHILD_OK(pid)	EXPECT_EQ(child_status(pid), 0)

/* On a kernel that is slow for a reason, everything may take longer. */
static inline unsigned int harness_slowdown(void)
{
	const char *times = getenv("HARNESS_SLOWDOWN");
	int n = times ? atoi(times) : 1;

	return n > 1 ? n : 1;
}

static inline bool harness_run(const struct harness_test *test, int number)
{
	pid_t pid;
	int status;

	harness_reason[0] = '\0';
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		alarm(test->seconds * harness_slowdown());
		test->fn();
		child_exit();
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid) {
		dprintf(STDOUT_FILENO, "Bail out! no process for a test\n");
		exit(HARNESS_FAIL);
	}
	/* Children that a failed test left behind. */
	kill(-pid, SIGKILL);

	if (WIFEXITED(status) && WEXITSTATUS(status) == HARNESS_SKIP) {
		dprintf(STDOUT_FILENO, "ok %d %s # SKIP %s\n", number,
			test->name, harness_reason);
		return true;
	}
	if (WIFSIGNALED(status))
		dprintf(STDOUT_FILENO, "# killed by signal %d%s\n",
			WTERMSIG(status),
			WTERMSIG(status) == SIGALRM ? " (time limit)" : "");
	dprintf(STDOUT_FILENO, "%s %d %s\n", status ? "not ok" : "ok", number,
		test->name);
	return !status;
}

int main(int argc, char **argv)
{
	const char *filter = argc > 1 ? argv[1] : "";
	const struct harness_test *test;
	int total = 0, number = 0;
	bool ok = true;

	if (harness_helper && !strncmp(filter, "--", 2))
		return harness_helper(argc, argv);

	harness_reason = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (harness_reason == MAP_FAILED)
		return HARNESS_FAIL;

	for (test = harness_first; test; test = test->next)
		total += !!strstr(test->name, filter);

	dprintf(STDOUT_FILENO, "TAP version 13\n1..%d\n", total);
	for (test = harness_first; test; test = test->next) {
		if (strstr(test->name, filter))
			ok &= harness_run(test, ++number);
	}
	if (!total)
		dprintf(STDOUT_FILENO, "Bail out! no test matches\n");

	return ok && total ? HARNESS_PASS : HARNESS_FAIL;
}

#endif /* HARNESS_H */
