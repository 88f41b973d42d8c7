/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The component under its own name, for BTLs that are told which cache to use. */
#include "rcache.h"

#include "opal/version.h"

static mca_rcache_base_module_t *init(mca_rcache_base_resources_t *resources);

COMPONENT mca_rcache_base_component_t mca_rcache_regcache_component = {
	.rcache_version = {
		MCA_RCACHE_BASE_VERSION_3_0_0,
		.mca_component_name = "regcache",
		MCA_BASE_MAKE_VERSION(component, OPAL_MAJOR_VERSION,
				      OPAL_MINOR_VERSION,
				      OPAL_RELEASE_VERSION),
	},
	.rcache_data = { MCA_BASE_METADATA_PARAM_CHECKPOINT },
	.rcache_init = init,
};

static mca_rcache_base_module_t *init(mca_rcache_base_resources_t *resources)
{
	mca_rcache_base_module_t *module = NULL;
	char why[512];

	if (rcache_can_start(why, sizeof(why)))
		module = rcache_module_create(&mca_rcache_regcache_component,
					      resources, why, sizeof(why));
	if (module)
		rcache_log_active();
	else
		rcache_log_inactive(why, "a BTL that names this cache does not start");
	return module;
}
