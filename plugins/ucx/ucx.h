/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* UCX as it was loaded into this process: its functions, and what is the same in
 * each of its versions that is served. */
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
struct ucx_params;

/* struct ucs_pgtable: the index of a registration cache, or of something else. */
struct ucx_table;

/* The beginning of struct ucs_rcache_region. */
struct ucx_region {
	uintptr_t start;
	uintptr_t end;
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
/* ucs_pgtable_lookup() and ucs_pgtable_init(). */
typedef struct ucx_region *ucx_lookup(const struct ucx_table *table,
				      uintptr_t address);
typedef ucx_status ucx_table_init(struct ucx_table *table, void *allocate,
				  void *release);

struct layout;

struct ucx {
	ucx_get *get;
	ucx_create *create;
	ucx_destroy *destroy;
	ucx_lookup *lookup;
	ucx_table_init *table_init;
	/* <ucm/api/ucm.h> */
	void (*set_external_event)(int events);
	void (*vm_munmap)(void *address, size_t length);
};

/* UCX's own functions; NULL if it is not there. */
const struct ucx *ucx_find(void);

/* NULL if this UCX's structures are known, and which they are; or else what it
 * is. */
const char *ucx_unknown(const struct ucx *ucx, const struct layout **layout,
			char *why, size_t size);

#endif
