/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Those of UCX's structures that have to be looked into, by version. */
#ifndef REGCACHE_UCX_LAYOUT_H
#define REGCACHE_UCX_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "ucx.h"

/* Those that layout_of() finds. */
#define LAYOUT_VERSIONS	"1.13 and 1.18"

/* struct ucs_rcache_ops, with what every version has in one order. */
struct ucx_ops {
	ucx_status (*mem_reg)(void *context, struct ucx_rcache *rcache,
			      void *argument, struct ucx_region *region,
			      uint16_t flags);
	void (*mem_dereg)(void *context, struct ucx_rcache *rcache,
			  struct ucx_region *region);
	void (*dump_region)(void *context, struct ucx_rcache *rcache,
			    struct ucx_region *region, char *buffer, size_t max);
	/* NULL in versions that have none. */
	void (*merge)(void *context, struct ucx_rcache *rcache, void *argument,
		      struct ucx_region *region);
};

/* Where things are, in bytes. */
struct layout {
	unsigned major, minor;
	/* UCP looks into its cache's table itself, without ucs_rcache_get(). */
	int looks_up_inline;
	/* struct ucs_rcache_params */
	struct {
		size_t size, events, ops, context;
	} params;
	/* struct ucs_rcache_ops */
	struct {
		size_t size, mem_reg, mem_dereg, dump_region;
		/* 0 if there is none: it never comes first. */
		size_t merge;
	} ops;
};

/* No version's structures are larger. */
#define LAYOUT_PARAMS_MAX	80
#define LAYOUT_OPS_MAX		32

/* NULL if this version's structures are not known. */
const struct layout *layout_of(unsigned major, unsigned minor);

int layout_events(const struct layout *layout, const struct ucx_params *params);
void *layout_context(const struct layout *layout, const struct ucx_params *params);
void layout_read_ops(const struct layout *layout, const struct ucx_params *params,
		     struct ucx_ops *ops);

/* Writes UCX's structure, of LAYOUT_OPS_MAX bytes at most. */
void layout_write_ops(const struct layout *layout, const struct ucx_ops *ops,
		      void *written);

/* Writes a copy of `params` with other functions, as layout_write_ops() wrote
 * them, and another context: LAYOUT_PARAMS_MAX bytes at most. */
void layout_copy_params(const struct layout *layout,
			const struct ucx_params *params, const void *ops,
			void *context, void *copy);

#endif
