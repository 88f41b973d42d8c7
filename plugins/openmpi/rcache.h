/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A component of Open MPI's rcache framework: what its two names share. */
#ifndef RCACHE_H
#define RCACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "opal_config.h"
#include "opal/mca/rcache/rcache.h"

/* The component that libopen-pal is to find in a plug-in. */
#define COMPONENT	__attribute__((visibility("default")))

/*
 * Whether this process can have the cache: the Open MPI that runs is the one
 * that this was built for, and the kernel tells of a change.  If not, `why`
 * has the reason.
 */
bool rcache_can_start(char *why, size_t size);

/* Says in the log, once, that the cache is active. */
void rcache_log_active(void);
/* Says in the log that one is not, and what happens now. */
void rcache_log_inactive(const char *why, const char *consequence);

/*
 * A cache for a BTL, which registers and deregisters as it says in
 * `resources`.  NULL if there can be none, and the reason in `why`.  It must
 * be known first that the cache can start.
 */
mca_rcache_base_module_t *
rcache_module_create(mca_rcache_base_component_t *component,
		     const mca_rcache_base_resources_t *resources,
		     char *why, size_t size);

#endif
