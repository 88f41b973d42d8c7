/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Whether the cache can be trusted in this process, and the line that says so. */
#include "rcache.h"

#include <stdio.h>
#include <string.h>

#include "opal/class/opal_object.h"
#include "opal/runtime/opal.h"
#include "opal/runtime/opal_params.h"
#include "opal/version.h"

#include "kernel_source.h"

/* The layout of what is shared with a BTL is nobody's promise, so only the
 * very release that this was built for will do, built in the same way. */
static bool is_built_for(char *why, size_t size)
{
	size_t ours = sizeof(mca_rcache_base_registration_t);
	size_t theirs = OBJ_CLASS(mca_rcache_base_registration_t)->cls_sizeof;

	if (strcmp(opal_version_string, OPAL_VERSION)) {
		snprintf(why, size,
			 "this is Open MPI %s, and the plug-in was built for %s: build it with the headers of this one",
			 opal_version_string, OPAL_VERSION);
		return false;
	}
	if (ours != theirs) {
		snprintf(why, size,
			 "a registration of this Open MPI has %zu bytes, and the plug-in was built for %zu: build it with the headers of this one",
			 theirs, ours);
		return false;
	}
	return true;
}

bool rcache_can_start(char *why, size_t size)
{
	struct regcache_monitor *monitor;

	if (!is_built_for(why, size))
		return false;
	monitor = kernel_source_open(why, size);
	if (!monitor)
		return false;
	/* The cache opens one of its own. */
	regcache_monitor_close(monitor);
	return true;
}

void rcache_log_active(void)
{
	static int said;
	char detail[128];

	snprintf(detail, sizeof(detail), "%s for the BTLs of Open MPI %s",
		 opal_leave_pinned || opal_leave_pinned_pipeline ?
		 "a cache that is never stale" :
		 "mpi_leave_pinned is 0 and nothing is kept",
		 opal_version_string);
	/* Every BTL has a cache. */
	if (!__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED))
		kernel_source_active("openmpi", detail);
}

void rcache_log_inactive(const char *why, const char *consequence)
{
	char line[1024];

	snprintf(line, sizeof(line), "%s; %s", why, consequence);
	kernel_source_inactive("openmpi", line);
}
