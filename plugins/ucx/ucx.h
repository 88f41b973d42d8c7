/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* UCX as it was loaded into this process: its functions, and those of its
 * structures that have to be looked into. */
#ifndef REGCACHE_UCX_H
#define REGCACHE_UCX_H

#include <stddef.h>
#include <stdint.h>

/* enum ucs_status_t, which is packed. */
typedef signed char ucx_status;

#define UCX_OK			0
#define UCX_UNSUPPORTED		(-22)

/* In struct ucx_params.events: the cache wants to hear of unmapped memory. */
#define UCX_VM_UNMAPPED		(1 << 17)

struct ucx_rcache;

/* The beginning of struct ucs_rcache_region. */
struct ucx_region {
	uintptr_t start;
	uintptr_t end;
};

/* struct ucs_rcache_ops of UCX 1.13. */
struct ucx_ops {
	ucx_status (*mem_reg)(void *context, struct ucx_rcache *rcache,
			      void *argument, struct ucx_region *region,
			      uint16_t flags);
	void (*mem_dereg)(void *context, struct ucx_rcache *rcache,
			  struct ucx_region *region);
	void (*dump_region)(void *context, struct ucx_rcache *rcache,
			    struct ucx_region *region, char *buffer, size_t max);
};

/* struct ucs_rcache_params of UCX 1.13. */
struct ucx_params {
	size_t region_struct_size;
	size_t alignment;
	size_t max_alignment;
	int events;
	int event_priority;
	const struct ucx_ops *ops;
	void *context;
	int flags;
	unsigned long max_regions;
	size_t max_size;
	size_t max_unreleased;
};

/*
 * ucs_rcache_get().  Its arguments are words, passed on and not looked at: six
 * in UCX 1.13.  From 1.17 on there is a seventh, on the stack.
 */
typedef ucx_status ucx_get(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t,
			   uintptr_t);
typedef ucx_status ucx_create(const struct ucx_params *params, const char *name,
			      void *statistics, struct ucx_rcache **rcache);
typedef void ucx_destroy(struct ucx_rcache *rcache);

struct ucx {
	ucx_get *get;
	ucx_create *create;
	ucx_destroy *destroy;
	/* <ucm/api/ucm.h> */
	void (*set_external_event)(int events);
	void (*vm_munmap)(void *address, size_t length);
};

/* Finds UCX's own functions; -1 if it is not there. */
int ucx_find(struct ucx *ucx);

/* NULL if this UCX's structures are those above, or else what it is. */
const char *ucx_unknown(const struct ucx *ucx, char *why, size_t size);

#endif
