// SPDX-License-Identifier: MIT OR Apache-2.0
/* How the plug-in is loaded, when it stays inactive, and what it says. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <rdma/fabric.h>
#include <rdma/fi_ext.h>

#include "link.h"
#include "memory.h"
#include "tap.h"

enum { LENGTH = 16 * 4096 };

/* What a process said, and what became of memory that changed in it. */
struct outcome {
	char text[4096];
	bool cached;		/* the second transfer needed no registration */
	bool corrupted;		/* the one after the change arrived wrong */
};

enum { CACHED = 1, CORRUPTED = 2, DONE = 4 };

static int no_start(struct fid_mem_monitor *monitor)
{
	(void)monitor;
	return 0;
}

static void no_stop(struct fid_mem_monitor *monitor)
{
	(void)monitor;
}

static int no_subscribe(struct fid_mem_monitor *monitor, const void *addr, size_t len)
{
	(void)monitor, (void)addr, (void)len;
	return 0;
}

static void no_unsubscribe(struct fid_mem_monitor *monitor, const void *addr, size_t len)
{
	(void)monitor, (void)addr, (void)len;
}

static bool always_valid(struct fid_mem_monitor *monitor, const void *addr, size_t len)
{
	(void)monitor, (void)addr, (void)len;
	return true;
}

/* As an application, or its MPI, may do before. */
static void import_another(void)
{
	static struct fi_ops_mem_monitor ops = {
		sizeof(ops), no_start, no_stop, no_subscribe, no_unsubscribe, always_valid
	};
	static struct fid_mem_monitor monitor = {
		.fid.fclass = FI_CLASS_MEM_MONITOR, .export_ops = &ops
	};

	if (fi_import(FI_VERSION(1, 13), "mr_cache", NULL, 0, 0, &monitor.fid, NULL))
		errx(1, "libfabric takes no monitor");
}

/* What is no ummunotify is where it should be, for this process alone. */
static void hide_device(void)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("/dev/null", "/dev/ummunotify", NULL, MS_BIND, NULL))
		err(1, "cannot hide the device");
}

static int transfer(void)
{
	struct link *link;
	char *memory = map(LENGTH);
	int result = DONE;
	unsigned long before;

	if (getenv("TEST_IMPORTS"))
		import_another();
	link = link_open();
	link_delivers(link, memory, LENGTH);
	before = link_registered;
	link_delivers(link, memory, LENGTH);
	if (link_registered == before)
		result |= CACHED;
	remap(memory, LENGTH);
	if (!link_delivers(link, memory, LENGTH))
		result |= CORRUPTED;
	link_close(link);
	return result;
}

/* Runs transfer() in a process with these environment variables, which end
 * with NULL. */
static struct outcome run(char *const environment[])
{
	struct outcome outcome = { .cached = false };
	ssize_t length = 0, got;
	int fds[2], status;

	if (pipe2(fds, O_CLOEXEC))
		err(1, "pipe");
	fflush(stdout);
	if (!fork()) {
		dup2(fds[1], 2);
		for (int n = 0; environment[n]; n++)
			if (!strcmp(environment[n], "TEST_HIDES=1"))
				hide_device();
		execle("/proc/self/exe", "fi-loading", "transfer", NULL, environment);
		_exit(127);
	}
	close(fds[1]);
	while ((got = read(fds[0], outcome.text + length,
			   sizeof(outcome.text) - 1 - (size_t)length)) > 0)
		length += got;
	close(fds[0]);
	if (wait(&status) < 0 || !WIFEXITED(status) || !(WEXITSTATUS(status) & DONE))
		printf("# the process failed (%d): %s\n", status, outcome.text);
	outcome.cached = WEXITSTATUS(status) & CACHED;
	outcome.corrupted = WEXITSTATUS(status) & CORRUPTED;
	return outcome;
}

#define RUN_WITH(...) run((char *const[]){ __VA_ARGS__, NULL })
#define PRELOAD "LD_PRELOAD=" PLUGIN_FILE
#define DROP_IN "FI_PROVIDER_PATH=" PLUGIN_DIRECTORY

/* Exactly one line, which says that. */
static bool says(const struct outcome *outcome, const char *what, const char *more)
{
	const char *end = strchr(outcome->text, '\n');
	bool good = !strncmp(outcome->text, "regcache: libfabric: ", 21) && end && !end[1] &&
		    strstr(outcome->text, what) && strstr(outcome->text, more);

	if (!good)
		printf("# it said \"%s\", not %s ... %s\n", outcome->text, what, more);
	return good;
}

static void as_a_provider(void)
{
	struct outcome outcome = RUN_WITH(DROP_IN);

	EXPECT(says(&outcome, "active", "the kernel"));
	EXPECT(outcome.cached && !outcome.corrupted);
}

static void preloaded(void)
{
	struct outcome outcome = RUN_WITH(PRELOAD);

	EXPECT(says(&outcome, "active", "the kernel"));
	EXPECT(outcome.cached && !outcome.corrupted);
}

static void both_ways(void)
{
	struct outcome outcome = RUN_WITH(PRELOAD, DROP_IN);

	EXPECT(says(&outcome, "active", "the kernel"));
	EXPECT(outcome.cached && !outcome.corrupted);
}

static void silently(void)
{
	struct outcome outcome = RUN_WITH(PRELOAD, "REGCACHE_PLUGIN_LOG=0");

	EXPECT(!outcome.text[0]);
	EXPECT(outcome.cached && !outcome.corrupted);
}

static void by_its_name(void)
{
	struct outcome outcome = RUN_WITH(PRELOAD, "FI_MR_CACHE_MONITOR=regcache");

	EXPECT(says(&outcome, "active", "the kernel"));
	EXPECT(outcome.cached && !outcome.corrupted);
}

static void not_if_another_was_first(void)
{
	struct outcome outcome = RUN_WITH(DROP_IN, "TEST_IMPORTS=1");

	EXPECT(says(&outcome, "INACTIVE", "another monitor"));
	/* The other's answer: nothing ever changes. */
	EXPECT(outcome.cached && outcome.corrupted);
}

static void first_if_preloaded(void)
{
	/* The other one's import fails then, as Open MPI's does. */
	struct outcome outcome = RUN_WITH(PRELOAD, "TEST_IMPORTS=1");

	EXPECT(strstr(outcome.text, "libfabric takes no monitor"));
}

static void not_if_another_is_asked_for(void)
{
	struct outcome outcome = RUN_WITH(PRELOAD, "FI_MR_CACHE_MONITOR=memhooks");

	EXPECT(says(&outcome, "INACTIVE", "\"memhooks\""));
	EXPECT(outcome.cached && outcome.corrupted);
	outcome = RUN_WITH(DROP_IN, "FI_MR_CACHE_MONITOR=memhooks");
	EXPECT(says(&outcome, "INACTIVE", "\"memhooks\""));
	EXPECT(outcome.cached && outcome.corrupted);
	outcome = RUN_WITH(PRELOAD, "FI_MR_CACHE_MONITOR=disabled");
	EXPECT(says(&outcome, "INACTIVE", "\"disabled\""));
	EXPECT(!outcome.cached && !outcome.corrupted);
	/* libfabric ignores what it does not know. */
	outcome = RUN_WITH(PRELOAD, "FI_MR_CACHE_MONITOR=regcash");
	EXPECT(says(&outcome, "INACTIVE", "\"regcash\""));
	EXPECT(outcome.cached && outcome.corrupted);
}

static void not_without_the_device(void)
{
	struct outcome outcome = RUN_WITH(PRELOAD, "TEST_HIDES=1");

	EXPECT(says(&outcome, "INACTIVE", "ummunotify device"));
	/* libfabric's own choice. */
	EXPECT(outcome.cached && outcome.corrupted);
}

static void not_where_nothing_is_cached(void)
{
	struct outcome outcome = RUN_WITH(PRELOAD, "FI_MR_CACHE_MAX_COUNT=0");

	EXPECT(!outcome.text[0]);
	EXPECT(!outcome.cached && !outcome.corrupted);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "transfer"))
		return transfer();
	PLAN(10);
	RUN(as_a_provider);
	RUN(preloaded);
	RUN(both_ways);
	RUN(silently);
	RUN(by_its_name);
	RUN(not_if_another_was_first);
	RUN(first_if_preloaded);
	RUN(not_if_another_is_asked_for);
	RUN(not_without_the_device);
	RUN(not_where_nothing_is_cached);
	return tap_any_failed;
}
