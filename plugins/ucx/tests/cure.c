/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Runs the job as a user would, with the plug-in and without, and reads what it
 * says.  Wants root, /dev/ummunotify and an RDMA device.  Reports in TAP. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ways.h"

/* UCX on soft-RoCE: RDMA for each message, from 1 KiB on. */
#define UCX	"ulimit -l unlimited; export UCX_TLS=rc_v,ud_v " \
		"UCX_IB_GID_INDEX=0 UCX_RNDV_THRESH=1024 UCX_ZCOPY_THRESH=1024 " \
		"UCX_RNDV_SCHEME=get_zcopy; "
#define STOCK	""
#define OURS	"LD_PRELOAD=" PLUGIN " "
#define ACTIVE	"regcache: ucx: active, "
#define INACTIVE "regcache: ucx: INACTIVE, nothing is changed: "

static char said[1 << 16];
static int failed, number;

/* What a shell says to this, standard error included. */
static const char *run(const char *format, ...)
{
	char command[2048] = "exec 2>&1; " UCX;
	size_t length = strlen(command);
	va_list arguments;
	FILE *shell;

	va_start(arguments, format);
	vsnprintf(command + length, sizeof(command) - length, format, arguments);
	va_end(arguments);
	
	shell = popen(command, "r");
	length = shell ? fread(said, 1, sizeof(said) - 1, shell) : 0;
	said[length] = '\0';
	if (shell)
		pclose(shell);
	return said;
}

static int count(const char *what)
{
	int found = 0;

	for (const char *at = said; (at = strstr(at, what)); at++)
		found++;
	return found;
}

static void result(int good, const char *format, ...)
{
	va_list arguments;

	printf("%s %d ", good ? "ok" : "not ok", ++number);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	if (!good) {
		failed = 1;
		for (const char *line = said; *line;) {
			size_t length = strcspn(line, "\n");

			printf("# %.*s\n", (int)length, line);
			line += length + (line[length] == '\n');
		}
	}
	fflush(stdout);
}

/* Stale without the plug-in, or the way would prove nothing; never with it. */
static void ways_are_cured(void)
{
	static char stock[sizeof(said)];
	char each[64], none[64], missing[64];

	strcpy(stock, run(STOCK JOB " ways 10"));
	run(OURS JOB " ways 10");
	for (size_t n = 0; n < ways_count; n++) {
		const char *name = ways[n].name;

		snprintf(missing, sizeof(missing), "%s is not possible", name);
		snprintf(each, sizeof(each), "%s 10 of 10", name);
		snprintf(none, sizeof(none), "%s 0 of 10", name);
		if (strstr(stock, missing) && strstr(said, missing))
			printf("ok %d %s # SKIP this kernel has no such call\n",
			       ++number, name);
		else if (!strstr(stock, each))
			result(0, "%s is stale without the plug-in", name);
		else
			result(strstr(said, none) && count(ACTIVE) == 1,
			       "%s: 10 of 10, with the plug-in 0 of 10", name);
	}
}

static void jobs_are_cured(const char *rounds)
{
	char none[64];

	snprintf(none, sizeof(none), "storm 0 of %s", rounds);
	result(strstr(run(OURS JOB " storm %s", rounds), none) != NULL,
	       "%s raw munmaps, no stale hit", rounds);
	result(strstr(run(OURS JOB " pinning"), "pinning 0 of 4") != NULL,
	       "a change right after the pin is seen");
	/* That leaves the transport's cache, where pins are made under a lock; that
	 * of UCX 1.18 has none. */
	result(strstr(run("UCX_RCACHE_ENABLE=n " OURS JOB " pinning"),
		      "pinning 0 of 4") != NULL,
	       "by the transport's cache as well");
	result(strstr(run(OURS JOB " lost"), "lost 0 of 4") != NULL,
	       "what cannot be told any more is not trusted");
	result(strstr(run(OURS JOB " between 50"), "between 0 of 50") != NULL,
	       "what one cache has heard of, another has");
	result(strstr(run(OURS JOB " table 50"), "table 0 of 50") != NULL,
	       "an index that is no cache's is left alone");
	run("limit=/sys/module/ummunotify/parameters/max_user_regions; "
	    "old=$(cat $limit); echo 1 >$limit; " OURS JOB
	    " way raw-munmap 10; echo $old >$limit");
	result(strstr(said, "raw-munmap 0 of 10") != NULL,
	       "what cannot be watched is registered for one use");
	result(strstr(run(OURS JOB " threads 80"), "threads 0 of 80") != NULL,
	       "threads do not harm each other");
	result(strstr(run(OURS JOB " reuse 50"), "reuse 0 of 50") != NULL,
	       "a buffer that stays is registered once");
	result(strstr(run(OURS JOB " fork"), "fork 0 of 10, the child says 0") != NULL,
	       "a child is refused its parent's cache, and its parent goes on");
}

static void hooks_are_not_needed(void)
{
	run("UCX_MEM_MMAP_HOOK_MODE=none " OURS JOB " way raw-munmap 10");
	result(strstr(said, "raw-munmap 0 of 10") && count(ACTIVE) == 1,
	       "without UCX's hooks");
	run("UCX_MEM_MMAP_HOOK_MODE=none " OURS JOB " reuse 50");
	result(strstr(said, "reuse 0 of 50") != NULL,
	       "without UCX's hooks the cache caches");
}

static void settings_are_kept(void)
{
	run("REGCACHE_PLUGIN_LOG=0 " OURS JOB " way raw-munmap 10");
	result(!strcmp(said, "raw-munmap 0 of 10\n"), "silent if it is told to be");
	run("UCX_RCACHE_ENABLE=n UCX_IB_REG_METHODS=direct " OURS JOB
	    " way raw-munmap 10");
	result(strstr(said, "raw-munmap 0 of 10") && !count("regcache: "),
	       "no word where UCX has no cache");
	run(OURS "true");
	result(!*said, "no word where there is no UCX");
}

static void inactive_changes_nothing(void)
{
	/* In a mount namespace of its own the device is another. */
	run("unshare -m sh -c 'mount --bind /dev/null /dev/ummunotify && exec env "
	    OURS JOB " way raw-munmap 10'");
	result(strstr(said, "raw-munmap 10 of 10") && count(INACTIVE) == 1 &&
	       !count(ACTIVE), "without a device it says so, and UCX is as it was");
	run("unshare -m sh -c 'mount --bind /dev/null /dev/ummunotify && "
	    "UCX_MEM_MMAP_HOOK_MODE=none exec env " OURS JOB " way raw-munmap 10'");
	result(strstr(said, "raw-munmap 0 of 10") && count(INACTIVE) == 1,
	       "with neither device nor hooks UCX caches nothing");
}

int main(int argc, char **argv)
{
	enum { OTHERS = 10 + 2 + 3 + 2 };

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%zu\n", ways_count + OTHERS);
	ways_are_cured();
	jobs_are_cured(argc > 1 ? argv[1] : "2000");
	hooks_are_not_needed();
	settings_are_kept();
	inactive_changes_nothing();
	return failed;
}
