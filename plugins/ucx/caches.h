/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Caches of UCX's whose regions are watched. */
#ifndef REGCACHE_UCX_CACHES_H
#define REGCACHE_UCX_CACHES_H

#include "ucx.h"

/* As ucs_rcache_create(), which is `create`; the kernel watches what the cache
 * will hold. */
ucx_status caches_create(ucx_create *create, const struct ucx_params *params,
			 const char *name, void *statistics,
			 struct ucx_rcache **rcache);

/* After ucs_rcache_destroy(): whatever cache this was. */
void caches_destroyed(const struct ucx_rcache *rcache);

#endif
