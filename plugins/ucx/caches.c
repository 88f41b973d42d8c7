/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A region is watched by the kernel from before it is pinned until it is about
 * to be unpinned.  Its address is the watch's cookie: it is of one region of one
 * cache, as long as that lives.
 *
 * UCX calls mem_reg with the cache's lock held, and has put the region into its
 * index before.  So news that come while it is pinned, whoever passes them on,
 * find it there, or wait in UCX's queue, which the next look-up reads first.
 *
 * From UCX 1.14 on UCP, holding a lock of its own, sees that the queue is empty
 * and then looks into the cache's table.  News that another thread passes on in
 * between are in the queue and no longer new: so each cache counts what it has
 * heard of.
 */
#include "caches.h"

#include <errno.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>

#include "news.h"

/* Never freed, since look-ups walk the list without a lock; used again. */
struct cache {
	struct cache *next;
	/* NULL if this one is free. */
	const struct ucx_rcache *rcache;
	/* Its index, if UCP looks into that itself; else NULL. */
	const struct ucx_table *table;
	/* What news_told was when a look-up last saw that nothing was new: all of
	 * that is in the queue, or was. */
	uint64_t heard;
	/* UCX's own. */
	struct ucx_ops ops;
	void *context;
};

static const struct layout *layout;
/* Ours, as this UCX wants them. */
static alignas(void *) char served_ops[LAYOUT_OPS_MAX];

/* Of a cache that is used, but has no address yet or any more. */
static const char taken;
static const struct ucx_rcache *const nobodys = (const void *)&taken;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cache *all;

/* The table that this thread made last, and how many it has made. */
static __thread const struct ucx_table *made;
static __thread unsigned tables_made;

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
	status = cache->ops.mem_reg(cache->context, rcache, argument, region,
				    flags);
	if (watched) {
		/* Good for this once. */
		if (status == UCX_OK)
			news_forget(region->start, region->end);
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
		cache->ops.mem_dereg(cache->context, rcache, region);
}

static void dump_region(void *context, struct ucx_rcache *rcache,
			struct ucx_region *region, char *buffer, size_t max)
{
	const struct cache *cache = context;

	cache->ops.dump_region(cache->context, rcache, region, buffer, max);
}

static void merge(void *context, struct ucx_rcache *rcache, void *argument,
		  struct ucx_region *region)
{
	const struct cache *cache = context;

	cache->ops.merge(cache->context, rcache, argument, region);
}

void caches_serve(const struct layout *structures)
{
	static const struct ucx_ops ops = {
		watch_and_register, unwatch_and_deregister, dump_region, merge
	};

	layout = structures;
	layout_write_ops(layout, &ops, served_ops);
}

int caches_wanted(const struct ucx_params *params)
{
	return layout_events(layout, params) & UCX_VM_UNMAPPED;
}

/* One that nobody else uses; NULL if there is no memory. */
static struct cache *take(void)
{
	struct cache *cache;

	pthread_mutex_lock(&lock);
	for (cache = all; cache && cache->rcache; cache = cache->next)
		;
	if (!cache) {
		cache = calloc(1, sizeof(*cache));
		if (cache) {
			cache->next = all;
			__atomic_store_n(&all, cache, __ATOMIC_RELEASE);
		}
	}
	if (cache)
		cache->rcache = nobodys;
	pthread_mutex_unlock(&lock);
	return cache;
}

static void assign(struct cache *cache, const struct ucx_rcache *rcache,
		   const struct ucx_table *table)
{
	pthread_mutex_lock(&lock);
	cache->rcache = rcache;
	__atomic_store_n(&cache->table, table, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&lock);
}

ucx_status caches_create(const struct ucx *ucx, const struct ucx_params *params,
			 const char *name, void *statistics,
			 struct ucx_rcache **rcache)
{
	alignas(void *) char watched[LAYOUT_PARAMS_MAX];
	struct cache *cache = take();
	ucx_status status;

	*rcache = NULL;
	if (!cache)
		return UCX_UNSUPPORTED;
	layout_read_ops(layout, params, &cache->ops);
	cache->context = layout_context(layout, params);
	layout_copy_params(layout, params, served_ops, cache, watched);
	tables_made = 0;
	status = ucx->create((const struct ucx_params *)watched, name, statistics,
			     rcache);
	if (status == UCX_OK && layout->looks_up_inline && tables_made != 1) {
		/* Which of them UCP looks into is not known. */
		ucx->destroy(*rcache);
		*rcache = NULL;
		status = UCX_UNSUPPORTED;
	}
	if (status == UCX_OK)
		assign(cache, *rcache, layout->looks_up_inline ? made : NULL);
	else
		assign(cache, NULL, NULL);
	return status;
}

void caches_destroy(const struct ucx *ucx, struct ucx_rcache *rcache)
{
	struct cache *cache;

	/* Destroying it calls its functions for the last time; at once another
	 * cache may get its address. */
	pthread_mutex_lock(&lock);
	for (cache = all; cache && cache->rcache != rcache; cache = cache->next)
		;
	if (cache) {
		cache->rcache = nobodys;
		__atomic_store_n(&cache->table, NULL, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&lock);
	ucx->destroy(rcache);
	if (cache)
		assign(cache, NULL, NULL);
}

void caches_table_made(const struct ucx_table *table)
{
	made = table;
	tables_made++;
}

/* What is new is passed on, and counted as heard only if nothing came since. */
static __attribute__((noinline, cold)) int hear(struct cache *cache)
{
	uint64_t told;

	if (regcache_monitor_changed(news))
		news_pass_on();
	told = __atomic_load_n(&news_told, __ATOMIC_ACQUIRE);
	if (!regcache_monitor_changed(news))
		__atomic_store_n(&cache->heard, told, __ATOMIC_RELAXED);
	return 0;
}

int caches_heard_all(const struct ucx_table *table)
{
	struct cache *cache = __atomic_load_n(&all, __ATOMIC_ACQUIRE);

	while (cache && __atomic_load_n(&cache->table, __ATOMIC_ACQUIRE) != table)
		cache = cache->next;
	if (!cache)
		return 1;
	/* In this order: what is not new any more has been counted. */
	if (__builtin_expect(regcache_monitor_changed(news), 0) ||
	    __builtin_expect(__atomic_load_n(&news_told, __ATOMIC_ACQUIRE) !=
			     __atomic_load_n(&cache->heard, __ATOMIC_RELAXED), 0))
		return hear(cache);
	return 1;
}
