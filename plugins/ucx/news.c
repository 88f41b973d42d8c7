/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include <unistd.h>

#include "news.h"

#include "kernel_source.h"

static const uint64_t nothing;
static struct regcache_monitor quiet = { &nothing, 0, NULL };

/* All that a process can map, with five levels of page tables.  UCX adds up the
 * sizes of what waits in its queue, so that SIZE_MAX would be too much. */
#define EVERYTHING	((size_t)1 << 56)

struct regcache_monitor *news = &quiet;
uint64_t news_told;
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
	/* Before the news goes to a queue: see caches_heard_all(). */
	__atomic_add_fetch(&news_told, 1, __ATOMIC_RELEASE);
	if (event->type == REGCACHE_EVENT_ALL)
		unmapped(NULL, EVERYTHING);
	else
		unmapped(event->addr, event->len);
}

int news_pass_on(void)
{
	int told = regcache_monitor_drain(news, pass_on, NULL);

	return told < 0 ? told : 0;
}

void news_forget(uintptr_t start, uintptr_t end)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	start &= -page;
	end = (end + page - 1) & -page;
	unmapped((void *)start, end - start);
}
