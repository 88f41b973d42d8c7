/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A BTL, as far as the rcache framework sees one: it registers with an RDMA
 * device, counts, and fails when it is told to. */
#ifndef BTL_H
#define BTL_H

#include <libgen.h>
#include <limits.h>

#include "opal_config.h"
#include "opal/constants.h"
#include "opal/mca/installdirs/installdirs.h"
#include "opal/mca/rcache/base/base.h"
#include "opal/runtime/opal.h"
#include "opal/runtime/opal_params.h"

#include "loopback.h"

enum { LIVE = 0x11fe };

/* What a BTL adds to the framework's own. */
struct registration {
	mca_rcache_base_registration_t base;
	struct ibv_mr *mr;
	int live;	/* LIVE, from registering to deregistering */
};

struct btl {
	mca_rcache_base_module_t *rcache;
	int registered;		/* at present */
	int calls;		/* of register_mem() */
	int fail;		/* register_mem() fails so, */
	int fail_times;		/* so often */
	int busy;		/* deregister_mem() fails so often */
};

static int btl_register(void *context, void *base, size_t size,
			mca_rcache_base_registration_t *reg)
{
	struct registration *own = (struct registration *)reg;
	struct btl *btl = context;
	int access = 0;

	__atomic_add_fetch(&btl->calls, 1, __ATOMIC_RELAXED);
	if (btl->fail_times) {
		btl->fail_times--;
		return btl->fail;
	}
	/* The framework has said the same twice. */
	if (reg->base != base || reg->bound != (unsigned char *)base + size - 1 ||
	    reg->rcache != btl->rcache || own->live)
		abort();
	if (reg->access_flags & MCA_RCACHE_ACCESS_LOCAL_WRITE)
		access |= IBV_ACCESS_LOCAL_WRITE;
	if (reg->access_flags & MCA_RCACHE_ACCESS_REMOTE_READ)
		access |= IBV_ACCESS_REMOTE_READ;
	if (reg->access_flags & MCA_RCACHE_ACCESS_REMOTE_WRITE)
		access |= IBV_ACCESS_REMOTE_WRITE;
	own->mr = ibv_reg_mr(pd, base, size, access);
	if (!own->mr)
		return OPAL_ERR_OUT_OF_RESOURCE;
	own->live = LIVE;
	__atomic_add_fetch(&btl->registered, 1, __ATOMIC_RELAXED);
	return OPAL_SUCCESS;
}

static int btl_deregister(void *context, mca_rcache_base_registration_t *reg)
{
	struct registration *own = (struct registration *)reg;
	struct btl *btl = context;

	if (btl->busy) {
		btl->busy--;
		return OPAL_ERROR;
	}
	/* Once only. */
	if (own->live != LIVE)
		abort();
	own->live = 0;
	if (ibv_dereg_mr(own->mr))
		abort();
	__atomic_sub_fetch(&btl->registered, 1, __ATOMIC_RELAXED);
	return OPAL_SUCCESS;
}

/* False if the framework has no cache of this name. */
static bool btl_open(struct btl *btl, const char *name)
{
	mca_rcache_base_resources_t resources = {
		.cache_name = strdup("test"),
		.reg_data = btl,
		.sizeof_reg = sizeof(struct registration),
		.register_mem = btl_register,
		.deregister_mem = btl_deregister,
	};

	memset(btl, 0, sizeof(*btl));
	btl->rcache = mca_rcache_base_module_create(name, btl, &resources);
	/* As btl/ofi does it: the name is gone once the cache is made. */
	memset(resources.cache_name, 'x', 4);
	free(resources.cache_name);
	return btl->rcache != NULL;
}

static void btl_close(struct btl *btl)
{
	EXPECT_EQ(mca_rcache_base_module_destroy(btl->rcache), OPAL_SUCCESS);
}

/* A registration, or NULL. */
static struct registration *get(struct btl *btl, void *addr, size_t size,
				uint32_t flags, int32_t access)
{
	mca_rcache_base_registration_t *reg = (void *)-1;
	int rc = btl->rcache->rcache_register(btl->rcache, addr, size, flags,
					      access, &reg);

	if (rc != OPAL_SUCCESS && reg)
		abort();
	return (struct registration *)reg;
}

static void put(struct btl *btl, struct registration *registration)
{
	EXPECT_EQ(btl->rcache->rcache_deregister(btl->rcache,
						 &registration->base),
		  OPAL_SUCCESS);
}

/* Sends what is in one buffer to the other, and says whether it is there then. */
static bool delivers(struct btl *btl, char *from, char *to)
{
	static unsigned char number;
	struct registration *source, *sink;
	bool sent;

	memset(from, ++number, LENGTH);
	memset(to, 0, LENGTH);
	source = get(btl, from, LENGTH, 0, 0);
	sink = get(btl, to, LENGTH, 0, MCA_RCACHE_ACCESS_LOCAL_WRITE);
	if (!source || !sink)
		return false;
	sent = send_to_self(from, source->mr->lkey, to, sink->mr->lkey);
	put(btl, source);
	put(btl, sink);
	return sent && memcmp(from, to, LENGTH) == 0;
}

/* Opens the device, and Open MPI's framework with the components that lie in
 * `below` of the program's directory, before the system's. */
static bool start(const char *program, const char *below)
{
	char real[PATH_MAX], path[PATH_MAX + 64];

	if (!realpath(program, real) || !open_device())
		return false;
	/* What a job would be told by --mca. */
	snprintf(path, sizeof(path), "%s/%s:SYSTEM_DEFAULT", dirname(real), below);
	setenv("OMPI_MCA_mca_base_component_path", path, 1);
	return opal_init(NULL, NULL) == OPAL_SUCCESS &&
	       mca_base_framework_open(&opal_rcache_base_framework, 0) ==
		       OPAL_SUCCESS;
}

#endif
