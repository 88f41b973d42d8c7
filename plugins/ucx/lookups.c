/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Look-ups that UCP does itself, from UCX 1.14 on, but for the search of the
 * table, which is a function of libucs's.  It stands in a library of its own
 * with the rest, since UCX 1.13 would call it at each hit for nothing.
 */
#define _GNU_SOURCE
#include "lookups.h"

#include "caches.h"
#include "pass.h"
#include "ucx.h"

static ucx_lookup first_lookup;
static ucx_lookup *next_lookup = first_lookup;

int lookups_are_seen(void)
{
	return 1;
}

/* Tables are made and looked into before there is a cache, for other purposes. */
BY_JUMP static struct ucx_region *first_lookup(const struct ucx_table *table,
					       uintptr_t address)
{
	const struct ucx *ucx = ucx_find();

	if (!ucx)
		return NULL;
	next_lookup = ucx->lookup;
	JUMP next_lookup(table, address);
}

EXPORT ucx_lookup ucs_pgtable_lookup;
BY_JUMP EXPORT struct ucx_region *ucs_pgtable_lookup(const struct ucx_table *table,
						     uintptr_t address)
{
	if (__builtin_expect(!caches_heard_all(table), 0))
		return NULL;
	JUMP next_lookup(table, address);
}

EXPORT ucx_table_init ucs_pgtable_init;
EXPORT ucx_status ucs_pgtable_init(struct ucx_table *table, void *allocate,
				   void *release)
{
	const struct ucx *ucx = ucx_find();

	if (!ucx)
		return UCX_UNSUPPORTED;
	caches_table_made(table);
	return ucx->table_init(table, allocate, release);
}
