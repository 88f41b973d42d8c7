// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "kernel_source.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The cookie of the page that the test watches. */
#define TRIAL UINT64_MAX

static void note_trial(void *context, const struct regcache_event *event)
{
	int *told = context;

	if (event->type == REGCACHE_EVENT_ALL || event->cookie == TRIAL)
		*told = 1;
}

/* NULL if the kernel tells of a raw munmap before it returns. */
static const char *trial(struct regcache_monitor *monitor)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	char *page = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const char *failed = NULL;
	int told = 0;

	if (page == MAP_FAILED)
		return "no page to test the kernel with";
	page[0] = 1;
	if (regcache_monitor_watch(monitor, page, size, TRIAL, 0)) {
		munmap(page, size);
		return regcache_last_error();
	}
	/* A watch may find news of its own; what counts comes after. */
	if (regcache_monitor_drain(monitor, note_trial, &told) < 0)
		failed = regcache_last_error();
	told = 0;
	/* No libc in between: hooks must not be what tells of it. */
	if (syscall(SYS_munmap, page, size))
		failed = "a page could not be unmapped";
	else if (!failed && !regcache_monitor_changed(monitor))
		failed = "the counter did not move when a watched page was unmapped";
	else if (!failed && regcache_monitor_drain(monitor, note_trial, &told) < 0)
		failed = regcache_last_error();
	else if (!failed && !told)
		failed = "no event told of a watched page that was unmapped";
	if (regcache_monitor_unwatch(monitor, TRIAL) && !failed)
		failed = regcache_last_error();
	return failed;
}

struct regcache_monitor *kernel_source_open(char *why, size_t size)
{
	struct regcache_monitor_options options = REGCACHE_MONITOR_OPTIONS_INIT;
	struct regcache_monitor *monitor;
	const char *failed;

	options.monitor = REGCACHE_MONITOR_UMMUNOTIFY;
	if (regcache_monitor_open(&options, &monitor)) {
		snprintf(why, size, "%s", regcache_last_error());
		return NULL;
	}
	failed = trial(monitor);
	if (!failed)
		return monitor;
	snprintf(why, size, "%s", failed);
	regcache_monitor_close(monitor);
	return NULL;
}

void kernel_source_active(const char *plugin, const char *detail)
{
	const char *log = getenv("REGCACHE_PLUGIN_LOG");

	if (!log || strcmp(log, "0"))
		fprintf(stderr, "regcache: %s: active, %s (pid %d)\n", plugin,
			detail, (int)getpid());
}

void kernel_source_inactive(const char *plugin, const char *why)
{
	fprintf(stderr, "regcache: %s: INACTIVE, nothing is changed: %s (pid %d)\n",
		plugin, why, (int)getpid());
}
