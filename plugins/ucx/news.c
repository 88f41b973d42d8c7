/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "news.h"

#include <errno.h>

#include "kernel_source.h"

static const uint64_t nothing;
static struct regcache_monitor quiet = { &nothing, 0, NULL };

struct regcache_monitor *news = &quiet;
static void (*unmapped)(void *address, size_t length);

const char *news_open(void (*vm_munmap)(void *, size_t), char *why, size_t size)
{
	struct regcache_monitor *opened = kernel_source_open(why, size);

	if (!opened)
		return why;
	unmapped = vm_munmap;
	__atomic_store_n(&news, opened, __ATOMIC_RELEASE);
	return NULL;
}

static void pass_on(void *context, const struct regcache_event *event)
{
	(void)context;
	if (event->type == REGCACHE_EVENT_ALL)
		unmapped(NULL, SIZE_MAX);
	else
		unmapped(event->addr, event->len);
}

int news_pass_on(void)
{
	int told = regcache_monitor_drain(news, pass_on, NULL);

	if (told >= 0)
		return 0;
	/* A child that took a lock of UCX's could wait for a thread that only
	 * its parent has. */
	if (told != -EPERM)
		unmapped(NULL, SIZE_MAX);
	return told;
}

void news_forget(const struct ucx_region *region)
{
	unmapped((void *)region->start, region->end - region->start);
}
