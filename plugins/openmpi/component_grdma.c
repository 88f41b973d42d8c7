/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The component under the name of Open MPI's own, for BTLs that ask for
 * "grdma" whatever they are told.  It lies earlier in the path.  Where it
 * cannot start, the real one does the work, as if this were not there.
 */
#include "rcache.h"

#include <dlfcn.h>
#include <stdio.h>

#include "opal/constants.h"
#include "opal/mca/installdirs/installdirs.h"
#include "opal/version.h"

static int close_real(void);
static mca_rcache_base_module_t *init(mca_rcache_base_resources_t *resources);

COMPONENT mca_rcache_base_component_t mca_rcache_grdma_component = {
	.rcache_version = {
		MCA_RCACHE_BASE_VERSION_3_0_0,
		.mca_component_name = "grdma",
		MCA_BASE_MAKE_VERSION(component, OPAL_MAJOR_VERSION,
				      OPAL_MINOR_VERSION,
				      OPAL_RELEASE_VERSION),
		.mca_close_component = close_real,
	},
	.rcache_data = { MCA_BASE_METADATA_PARAM_CHECKPOINT },
	.rcache_init = init,
};

static mca_rcache_base_component_t *real;

/* Loads, registers and opens it as Open MPI would have done.  If that fails,
 * `real` stays NULL. */
static void open_real(char *why, size_t size)
{
	mca_rcache_base_component_t *found;
	mca_base_component_t *version;
	char path[4096];
	void *handle;

	snprintf(path, sizeof(path), "%s/mca_rcache_grdma.so",
		 opal_install_dirs.opallibdir);
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	found = handle ? dlsym(handle, "mca_rcache_grdma_component") : NULL;
	if (!found) {
		snprintf(why, size, "%s", dlerror());
		return;
	}
	version = &found->rcache_version;
	if ((version->mca_register_component_params &&
	     version->mca_register_component_params() != OPAL_SUCCESS) ||
	    (version->mca_open_component &&
	     version->mca_open_component() != OPAL_SUCCESS)) {
		snprintf(why, size, "Open MPI's own grdma does not open");
		return;
	}
	real = found;
}

static int close_real(void)
{
	if (real && real->rcache_version.mca_close_component)
		return real->rcache_version.mca_close_component();
	return OPAL_SUCCESS;
}

static mca_rcache_base_module_t *init(mca_rcache_base_resources_t *resources)
{
	mca_rcache_base_module_t *module = NULL;
	char consequence[512] = "Open MPI's own grdma is used";
	char why[512];

	if (real)
		return real->rcache_init(resources);
	if (rcache_can_start(why, sizeof(why)))
		module = rcache_module_create(&mca_rcache_grdma_component,
					      resources, why, sizeof(why));
	if (module) {
		rcache_log_active();
		return module;
	}
	open_real(consequence, sizeof(consequence));
	rcache_log_inactive(why, consequence);
	return real ? real->rcache_init(resources) : NULL;
}
