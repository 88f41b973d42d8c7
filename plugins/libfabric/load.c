// SPDX-License-Identifier: MIT OR Apache-2.0
/* How the plug-in gets into a process: preloaded, or as a provider that
 * libfabric finds on FI_PROVIDER_PATH, and that turns out to be none. */
#include <stdlib.h>
#include <string.h>

#include <rdma/providers/fi_prov.h>

#include "kernel_source.h"
#include "monitor.h"
#include "watches.h"

/* What FI_MR_CACHE_MONITOR is if the user means this plug-in; libfabric has no
 * monitor of this name, and takes the imported one. */
static const char *const own_name = "regcache";

/* 0 if it is to be this plug-in that watches; or the reason in `why`. */
static int chosen(char *why, size_t size)
{
	const char *choice = getenv("FI_MR_CACHE_MONITOR");

	if (!choice || !*choice || !strcmp(choice, own_name))
		return 0;
	snprintf(why, size, "FI_MR_CACHE_MONITOR is \"%s\"; unset it, or set it to \"%s\"",
		 choice, own_name);
	return -FI_EINVAL;
}

/* Both ways of loading come by here, once. */
__attribute__((constructor)) static void load(void)
{
	char why[256];
	int ret = chosen(why, sizeof(why));

	if (!ret)
		ret = monitor_open(why, sizeof(why));
	if (!ret) {
		ret = monitor_import();
		if (ret == -FI_EBUSY)
			snprintf(why, sizeof(why), "libfabric has another monitor already, of Open MPI for instance; preload this one to be first");
		else if (ret)
			snprintf(why, sizeof(why), "libfabric takes no monitor: %s", fi_strerror(-ret));
		if (ret)
			watches_close();
	}
	if (ret)
		kernel_source_inactive(PLUGIN, why);
}

__attribute__((visibility("default"))) struct fi_provider *fi_prov_ini(void);

/* libfabric calls this of what it finds on FI_PROVIDER_PATH.  The import is done
 * by then, and there is no provider. */
struct fi_provider *fi_prov_ini(void)
{
	return NULL;
}
