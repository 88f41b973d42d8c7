/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The cache of one BTL's registrations.
 *
 * Open MPI's memory hooks are not asked: the kernel tells of every change, so
 * there is no rcache_invalidate_range(), which they would call from inside of
 * free(3), and by which they abort a job that frees what is in use.
 *
 * A BTL asks for a registration by address and gives it back by pointer, as
 * often as it asked; the C library wants back the tickets that it gave.  So a
 * registration holds one ticket while anybody uses it, and counts the users.
 */
#include "rcache.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "opal/constants.h"
#include "opal/runtime/opal_params.h"

#include "regcache.h"

struct module {
	mca_rcache_base_module_t super;		/* the first: it is cast */
	mca_rcache_base_resources_t resources;
	struct regcache *cache;	/* NULL if nothing is to be kept */
	size_t use;		/* where a struct use begins */
};

/* Who uses a registration.  It follows the BTL's own, in one allocation. */
struct use {
	pthread_mutex_t lock;	/* of ref_count and ticket */
	struct regcache_ticket ticket;	/* while ref_count is not 0 */
	bool cached;
};

static struct module *module_of(mca_rcache_base_module_t *rcache)
{
	return (struct module *)rcache;
}

static struct use *use_of(struct module *module,
			  mca_rcache_base_registration_t *reg)
{
	return (struct use *)((char *)reg + module->use);
}

/* Lets the BTL register; `reg` is zeroed memory.  An error of Open MPI's. */
static int make(struct module *module, mca_rcache_base_registration_t *reg,
		void *base, size_t size, uint32_t flags, int32_t access,
		bool cached)
{
	struct use *use = use_of(module, reg);
	int rc;

	OBJ_CONSTRUCT(reg, mca_rcache_base_registration_t);
	pthread_mutex_init(&use->lock, NULL);
	use->cached = cached;
	reg->rcache = &module->super;
	reg->base = base;
	reg->bound = (unsigned char *)base + size - 1;	/* the last byte */
	reg->flags = flags;
	reg->access_flags = access;
	rc = module->resources.register_mem(module->resources.reg_data, base,
					    size, reg);
	if (rc != OPAL_SUCCESS) {
		pthread_mutex_destroy(&use->lock);
		OBJ_DESTRUCT(reg);
	}
	return rc;
}

static int unmake(struct module *module, mca_rcache_base_registration_t *reg)
{
	int rc = module->resources.deregister_mem(module->resources.reg_data,
						  reg);

	if (rc == OPAL_SUCCESS) {
		pthread_mutex_destroy(&use_of(module, reg)->lock);
		OBJ_DESTRUCT(reg);
	}
	return rc;
}

/* The access flags, as Open MPI and as libibverbs number them. */
static const struct {
	int32_t mpi;
	uint32_t verbs;
} accesses[] = {
	{ MCA_RCACHE_ACCESS_LOCAL_WRITE, 1 << 0 },
	{ MCA_RCACHE_ACCESS_REMOTE_WRITE, 1 << 1 },
	{ MCA_RCACHE_ACCESS_REMOTE_READ, 1 << 2 },
	{ MCA_RCACHE_ACCESS_REMOTE_ATOMIC, 1 << 3 },
};

static uint32_t to_verbs(int32_t mpi)
{
	uint32_t verbs = 0;

	/* A peer may write only what may be written. */
	if (mpi & (MCA_RCACHE_ACCESS_REMOTE_WRITE |
		   MCA_RCACHE_ACCESS_REMOTE_ATOMIC))
		mpi |= MCA_RCACHE_ACCESS_LOCAL_WRITE;
	for (size_t n = 0; n < sizeof(accesses) / sizeof(accesses[0]); n++)
		if (mpi & accesses[n].mpi)
			verbs |= accesses[n].verbs;
	return verbs;
}

static int32_t to_mpi(uint32_t verbs)
{
	int32_t mpi = 0;

	for (size_t n = 0; n < sizeof(accesses) / sizeof(accesses[0]); n++)
		if (verbs & accesses[n].verbs)
			mpi |= accesses[n].mpi;
	return mpi;
}

static int mem_reg(void *context, struct regcache_region *region)
{
	int rc = make(context, region->payload, region->addr, region->len, 0,
		      to_mpi(region->access), true);

	if (rc == OPAL_SUCCESS)
		return 0;
	return rc == OPAL_ERR_OUT_OF_RESOURCE ? -ENOMEM : -EIO;
}

static int mem_dereg(void *context, struct regcache_region *region)
{
	return unmake(context, region->payload) == OPAL_SUCCESS ? 0 : -EBUSY;
}

/* Frees what is registered and not in use.  False if there is nothing. */
static bool module_evict(mca_rcache_base_module_t *rcache)
{
	struct module *module = module_of(rcache);
	struct regcache_stats before = REGCACHE_STATS_INIT;
	struct regcache_stats after = REGCACHE_STATS_INIT;

	if (!module->cache || regcache_query(module->cache, &before) ||
	    regcache_flush(module->cache) ||
	    regcache_query(module->cache, &after))
		return false;
	return after.deregistrations > before.deregistrations;
}

/* A registration of its own for who asks, in no cache: its end is known. */
static int register_uncached(struct module *module, void *addr, size_t size,
			     uint32_t flags, int32_t access,
			     mca_rcache_base_registration_t **result)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	uintptr_t base = (uintptr_t)addr & ~(page - 1);
	uintptr_t end = ((uintptr_t)addr + size + page - 1) & ~(page - 1);
	size_t all = module->use + sizeof(struct use);
	mca_rcache_base_registration_t *reg;
	int rc;

	do {
		reg = calloc(1, all);
		if (!reg)
			return OPAL_ERR_OUT_OF_RESOURCE;
		rc = make(module, reg, (void *)base, end - base, flags, access,
			  false);
		if (rc == OPAL_SUCCESS)
			break;
		free(reg);
	} while (rc == OPAL_ERR_OUT_OF_RESOURCE &&
		 module_evict(&module->super));
	if (rc != OPAL_SUCCESS)
		return rc;
	reg->ref_count = 1;
	*result = reg;
	return OPAL_SUCCESS;
}

static int register_cached(struct module *module, void *addr, size_t size,
			   int32_t access,
			   mca_rcache_base_registration_t **result)
{
	struct regcache_ticket ticket;
	mca_rcache_base_registration_t *reg;
	struct use *use;
	bool first;
	int error = regcache_get(module->cache, addr, size, to_verbs(access),
				 &ticket);

	if (error == -ENOMEM)
		return OPAL_ERR_OUT_OF_RESOURCE;
	if (error)
		return OPAL_ERROR;
	reg = ticket.region->payload;
	use = use_of(module, reg);
	pthread_mutex_lock(&use->lock);
	first = reg->ref_count++ == 0;
	if (first)
		use->ticket = ticket;
	pthread_mutex_unlock(&use->lock);
	if (!first)
		regcache_put(module->cache, ticket);
	*result = reg;
	return OPAL_SUCCESS;
}

static int module_register(mca_rcache_base_module_t *rcache, void *addr,
			   size_t size, uint32_t flags, int32_t access,
			   mca_rcache_base_registration_t **reg)
{
	struct module *module = module_of(rcache);

	*reg = NULL;
	/* The kernel does not tell what becomes of a GPU's memory. */
	if (flags & MCA_RCACHE_FLAGS_CUDA_GPU_MEM)
		return OPAL_ERR_NOT_SUPPORTED;
	if (size == 0 || (flags & MCA_RCACHE_FLAGS_INVALID) ||
	    (access & ~MCA_RCACHE_ACCESS_ANY))
		return OPAL_ERR_BAD_PARAM;
	/* What must not be shared, persists, or is registered in a way of its
	 * own is nobody else's. */
	if (!module->cache || flags)
		return register_uncached(module, addr, size, flags, access,
					 reg);
	return register_cached(module, addr, size, access, reg);
}

static int module_deregister(mca_rcache_base_module_t *rcache,
			     mca_rcache_base_registration_t *reg)
{
	struct module *module = module_of(rcache);
	struct use *use = use_of(module, reg);
	struct regcache_ticket ticket;
	bool last;
	int rc;

	pthread_mutex_lock(&use->lock);
	last = --reg->ref_count == 0;
	ticket = use->ticket;
	pthread_mutex_unlock(&use->lock);
	if (!last)
		return OPAL_SUCCESS;
	if (use->cached)
		return regcache_put(module->cache, ticket) ? OPAL_ERROR :
							     OPAL_SUCCESS;
	rc = unmake(module, reg);
	if (rc == OPAL_SUCCESS)
		free(reg);
	return rc;
}

/* Finds none: nothing in Open MPI 4.1 asks, and a miss is always right. */
static int module_find(mca_rcache_base_module_t *rcache, void *addr,
		       size_t size, mca_rcache_base_registration_t **reg)
{
	(void)rcache;
	(void)addr;
	(void)size;
	*reg = NULL;
	return OPAL_SUCCESS;
}

/* Deregisters also what is cached and in use: the BTL closes its device. */
static void module_finalize(mca_rcache_base_module_t *rcache)
{
	struct module *module = module_of(rcache);

	if (module->cache)
		regcache_destroy(module->cache, REGCACHE_DESTROY_FORCE);
	free(module);
}

static int open_cache(struct module *module)
{
	struct regcache_callbacks callbacks = REGCACHE_CALLBACKS_INIT;
	struct regcache_options options = REGCACHE_OPTIONS_INIT;

	callbacks.mem_reg = mem_reg;
	callbacks.mem_dereg = mem_dereg;
	callbacks.context = module;
	options.monitor = REGCACHE_MONITOR_UMMUNOTIFY;
	/* All processes are one program, and BTLs expect whole pages.  There is
	 * no reaper, since a BTL may be used by one thread only. */
	options.flags = REGCACHE_TRUST_PEERS;
	options.payload_size = module->use + sizeof(struct use);
	return regcache_create(&callbacks, &options, &module->cache);
}

mca_rcache_base_module_t *
rcache_module_create(mca_rcache_base_component_t *component,
		     const mca_rcache_base_resources_t *resources,
		     char *why, size_t size)
{
	size_t align = _Alignof(max_align_t);
	/* A BTL that adds nothing may say nothing. */
	size_t own = resources->sizeof_reg > sizeof(mca_rcache_base_registration_t) ?
		resources->sizeof_reg : sizeof(mca_rcache_base_registration_t);
	struct module *module = calloc(1, sizeof(*module));

	if (!module) {
		snprintf(why, size, "there is no memory for a cache");
		return NULL;
	}
	module->super.rcache_component = component;
	module->super.rcache_register = module_register;
	module->super.rcache_deregister = module_deregister;
	module->super.rcache_find = module_find;
	module->super.rcache_finalize = module_finalize;
	module->super.rcache_evict = module_evict;
	module->resources = *resources;
	/* The name is its owner's, and may be gone soon. */
	module->resources.cache_name = NULL;
	module->use = (own + align - 1) / align * align;
	/* -1 leaves it to the network; 0 is the user's wish. */
	if ((opal_leave_pinned || opal_leave_pinned_pipeline) &&
	    open_cache(module)) {
		snprintf(why, size, "%s", regcache_last_error());
		free(module);
		return NULL;
	}
	return &module->super;
}
