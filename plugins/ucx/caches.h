/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Caches of UCX's whose regions are watched. */
#ifndef REGCACHE_UCX_CACHES_H
#define REGCACHE_UCX_CACHES_H

#include "layout.h"
#include "ucx.h"

/* Once, before the first cache: what UCX's structures are. */
void caches_serve(const struct layout *layout);

/* Whether a cache wants to hear of unmapped memory: others are none of ours. */
int caches_wanted(const struct ucx_params *params);

/* As ucs_rcache_create(); the kernel watches what the cache will hold.  UCX gets
 * no cache, and registers each time anew, if its table was not seen. */
ucx_status caches_create(const struct ucx *ucx, const struct ucx_params *params,
			 const char *name, void *statistics,
			 struct ucx_rcache **rcache);

/* As ucs_rcache_destroy(): whatever cache this is. */
void caches_destroy(const struct ucx *ucx, struct ucx_rcache *rcache);

/* To be told of each table that UCX makes: what it makes for a cache is that
 * cache's. */
void caches_table_made(const struct ucx_table *table);

/*
 * Whether a look-up in this table may go on.  If not, it must find nothing: who
 * looks up in a cache then calls ucs_rcache_get(), which first reads what the
 * cache was told.  Always true of a table that is no cache's.
 */
int caches_heard_all(const struct ucx_table *table);

#endif
