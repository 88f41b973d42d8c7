/* UCX's registration cache with registrations that cost nothing: what depends on the layout of its
 * structures. Lookups call libucs directly. */

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <ucm/api/ucm.h>
#include <ucs/memory/rcache.h>

/*
 * UCX up to 1.15 aligns all regions of a cache alike; since then each lookup says how. The build
 * script tries both; ucx.rs declares the same.
 */
#ifdef UCX_ALIGNMENT_BY_LOOKUP
typedef ucs_status_t get_fn(ucs_rcache_t *rcache, void *address, size_t length, size_t alignment,
			    int prot, void *arg, ucs_rcache_region_t **region);
#else
typedef ucs_status_t get_fn(ucs_rcache_t *rcache, void *address, size_t length, int prot,
			    void *arg, ucs_rcache_region_t **region);
#endif
_Static_assert(__builtin_types_compatible_p(get_fn, __typeof__(ucs_rcache_get)),
	       "ucx.rs does not declare ucs_rcache_get() as this UCX does");
_Static_assert(sizeof(ucs_status_t) == 1, "ucx.rs takes ucs_status_t for a byte");

struct counted {
	ucs_rcache_t *rcache;
	_Atomic uint64_t registrations;
};

static ucs_status_t mem_reg(void *context, ucs_rcache_t *rcache, void *arg,
			    ucs_rcache_region_t *region, uint16_t flags)
{
	struct counted *counted = context;

	(void)rcache, (void)arg, (void)region, (void)flags;
	/* One thread registers at a time: the cache holds its lock. */
	atomic_store_explicit(
		&counted->registrations,
		atomic_load_explicit(&counted->registrations, memory_order_relaxed) + 1,
		memory_order_relaxed);
	return UCS_OK;
}

static void mem_dereg(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region)
{
	(void)context, (void)rcache, (void)region;
}

static void dump_region(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region,
			char *buf, size_t max)
{
	(void)context, (void)rcache, (void)region;
	if (max > 0)
		buf[0] = 0;
}

/* Makes a cache of at most max_regions; *rcache is for the lookups. NULL if that fails. It is never
 * destroyed. Events are the caller's to announce by ucm_vm_munmap(): no hook is installed. */
struct counted *ucx_shim_create(unsigned long max_regions, ucs_rcache_t **rcache)
{
	static const ucs_rcache_ops_t ops = {
		.mem_reg = mem_reg, .mem_dereg = mem_dereg, .dump_region = dump_region,
	};
	/* As UCX's own users set it up (uct_ib_md_open). */
	ucs_rcache_params_t params = {
		.region_struct_size = sizeof(ucs_rcache_region_t),
#ifndef UCX_ALIGNMENT_BY_LOOKUP
		.alignment = UCS_RCACHE_MIN_ALIGNMENT,
		.max_alignment = sysconf(_SC_PAGESIZE),
#endif
		.ucm_events = UCM_EVENT_VM_UNMAPPED,
		.ucm_event_priority = 1000,
		.ops = &ops,
		.flags = 0,
		.max_regions = max_regions,
		.max_size = SIZE_MAX,
		.max_unreleased = SIZE_MAX,
	};
	struct counted *counted = calloc(1, sizeof(*counted));

	if (counted == NULL)
		return NULL;
	params.context = counted;
	ucm_set_external_event(UCM_EVENT_VM_UNMAPPED);
	if (ucs_rcache_create(&params, "regcache-benches", NULL, &counted->rcache) != UCS_OK)
		return NULL;
	*rcache = counted->rcache;
	return counted;
}

uint64_t ucx_shim_registrations(struct counted *counted)
{
	return atomic_load_explicit(&counted->registrations, memory_order_relaxed);
}
