/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A region is watched by the kernel from before it is pinned until it is about
 * to be unpinned.  Its address is the watch's cookie: it is of one region of one
 * cache, as long as that lives.
 *
 * UCX calls mem_reg with the cache's lock held, and has put the region into its
 * index before.  So news that come while it is pinned, whoever passes them on,
 * find it there, or wait in UCX's queue, which the next look-up reads first.
 */
#include "caches.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "news.h"

struct cache {
	struct cache *next;
	const struct ucx_rcache *rcache;
	/* UCX's own. */
	const struct ucx_ops *ops;
	void *context;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cache *all;

static ucx_status watch_and_register(void *context, struct ucx_rcache *rcache,
				     void *argument, struct ucx_region *region,
				     uint16_t flags)
{
	const struct cache *cache = context;
	uint64_t cookie = (uintptr_t)region;
	ucx_status status;
	int watched;

	watched = regcache_monitor_watch(news, (void *)region->start,
					 region->end - region->start, cookie, 0);
	if (watched == -EPERM)
		return UCX_UNSUPPORTED;
	status = cache->ops->mem_reg(cache->context, rcache, argument, region,
				     flags);
	if (watched) {
		/* Good for this once. */
		if (status == UCX_OK)
			news_forget(region);
	} else if (status != UCX_OK) {
		regcache_monitor_unwatch(news, cookie);
	}
	return status;
}

static void unwatch_and_deregister(void *context, struct ucx_rcache *rcache,
				   struct ucx_region *region)
{
	const struct cache *cache = context;

	/* In a child it is the parent's that would be deregistered. */
	if (regcache_monitor_unwatch(news, (uintptr_t)region) != -EPERM)
		cache->ops->mem_dereg(cache->context, rcache, region);
}

static void dump_region(void *context, struct ucx_rcache *rcache,
			struct ucx_region *region, char *buffer, size_t max)
{
	const struct cache *cache = context;

	cache->ops->dump_region(cache->context, rcache, region, buffer, max);
}

ucx_status caches_create(ucx_create *create, const struct ucx_params *params,
			 const char *name, void *statistics,
			 struct ucx_rcache **rcache)
{
	static const struct ucx_ops ops = {
		watch_and_register, unwatch_and_deregister, dump_region
	};
	struct ucx_params watched = *params;
	struct cache *cache = calloc(1, sizeof(*cache));
	ucx_status status;

	*rcache = NULL;
	if (!cache)
		return UCX_UNSUPPORTED;
	cache->ops = params->ops;
	cache->context = params->context;
	watched.ops = &ops;
	watched.context = cache;
	status = create(&watched, name, statistics, rcache);
	if (status != UCX_OK) {
		free(cache);
		return status;
	}
	cache->rcache = *rcache;
	pthread_mutex_lock(&lock);
	cache->next = all;
	all = cache;
	pthread_mutex_unlock(&lock);
	return UCX_OK;
}

void caches_destroyed(const struct ucx_rcache *rcache)
{
	struct cache **link, *cache;

	pthread_mutex_lock(&lock);
	for (link = &all; (cache = *link); link = &cache->next)
		if (cache->rcache == rcache) {
			*link = cache->next;
			free(cache);
			break;
		}
	pthread_mutex_unlock(&lock);
}
