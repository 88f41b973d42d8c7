// SPDX-License-Identifier: GPL-2.0
/*
 * A process that dies while it is watched.  Others may take its memory before
 * it is gone, as the OOM reaper does: then the callbacks may not sleep.
 */
#include "feature.h"

#include <sys/ptrace.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open		434
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease	448
#endif

/* More than one hold of the lock takes. */
#define PAGES	1000

static long resident_pages(pid_t pid)
{
	long pages = -1, unused;
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/statm", pid);
	f = fopen(path, "r");
	if (!f || fscanf(f, "%ld %ld", &unused, &pages) != 2)
		pages = -1;
	if (f)
		fclose(f);
	return pages;
}

/*
 * process_mrelease(2) does what the OOM reaper does.  The tracer keeps the
 * victim, which was killed, from going on to free its memory itself.
 */
TEST(the_reaper_may_not_sleep)
{
	struct gate ready;
	int status, pidfd;
	long before;
	pid_t pid;

	ASSERT(gate_init(&ready));
	pid = fork();
	if (!pid) {
		char *p = area(PAGES);
		struct dev d;

		if (!p || !dev_open_with(&d, FEATURE(BATCH) | FEATURE(VERIFY), 0) ||
		    !watch_pages(d.fd, p, PAGES, 0) ||
		    watch(d.fd, p, PAGES * PAGE, PAGES) ||
		    note(d.fd, PAGES))
			_exit(1);
		gate_open(&ready);
		for (;;)
			pause();
	}
	gate_wait(&ready);
	ASSERT_EQ(ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXIT), 0);
	ASSERT_EQ(kill(pid, SIGKILL), 0);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_EXIT << 8);
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	ASSERT_GE(pidfd, 0);
	before = resident_pages(pid);
	ASSERT_GT(before, 0);
	ASSERT_EQ(ret_errno(syscall(SYS_process_mrelease, pidfd, 0)), 0);
	/* It took the pages, so it came by the callbacks. */
	EXPECT_LT(resident_pages(pid), before - PAGES / 2);
	ASSERT_EQ(ptrace(PTRACE_CONT, pid, 0, 0), 0);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	EXPECT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}
