/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE
#include "ucx.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "layout.h"
#include "lookups.h"

static struct ucx found;
static bool is_there;

static void find(void)
{
	struct ucx *ucx = &found;
	/* Who loads UCX at run time may keep its names to itself, so the next
	 * after ours need not be UCX's. */
	void *ucs = dlopen("libucs.so.0", RTLD_LAZY | RTLD_NOLOAD);
	void *from = ucs ? ucs : RTLD_NEXT;

	ucx->get = (ucx_get *)dlsym(from, "ucs_rcache_get");
	ucx->create = (ucx_create *)dlsym(from, "ucs_rcache_create");
	ucx->destroy = (ucx_destroy *)dlsym(from, "ucs_rcache_destroy");
	ucx->lookup = (ucx_lookup *)dlsym(from, "ucs_pgtable_lookup");
	ucx->table_init = (ucx_table_init *)dlsym(from, "ucs_pgtable_init");
	ucx->set_external_event =
		(void (*)(int))dlsym(from, "ucm_set_external_event");
	ucx->vm_munmap = (void (*)(void *, size_t))dlsym(from, "ucm_vm_munmap");
	is_there = ucx->get && ucx->create && ucx->destroy && ucx->lookup &&
		   ucx->table_init;
}

const struct ucx *ucx_find(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	return !pthread_once(&once, find) && is_there ? &found : NULL;
}

/* Whether two functions are of libraries in one directory. */
static int are_neighbours(const void *one, const void *other)
{
	Dl_info first, second;
	const char *slash;
	size_t length;

	if (!dladdr(one, &first) || !dladdr(other, &second))
		return 0;
	slash = strrchr(first.dli_fname, '/');
	length = slash ? (size_t)(slash - first.dli_fname) + 1 : 0;
	slash = strrchr(second.dli_fname, '/');
	return length == (slash ? (size_t)(slash - second.dli_fname) + 1 : 0) &&
	       !strncmp(first.dli_fname, second.dli_fname, length);
}

const char *ucx_unknown(const struct ucx *ucx, const struct layout **layout,
			char *why, size_t size)
{
	void (*get_version)(unsigned *, unsigned *, unsigned *) = NULL;
	unsigned major = 0, minor = 0, release = 0;
	/* The one library that tells its version; it comes with the others. */
	void *ucp = dlopen("libucp.so.0", RTLD_LAZY | RTLD_LOCAL);

	if (ucp)
		*(void **)&get_version = dlsym(ucp, "ucp_get_version");
	if (!get_version || !ucx->set_external_event || !ucx->vm_munmap ||
	    !are_neighbours((void *)get_version, (void *)ucx->get)) {
		snprintf(why, size, "UCX does not tell its version");
		return why;
	}
	get_version(&major, &minor, &release);
	*layout = layout_of(major, minor);
	if (*layout && (*layout)->looks_up_inline && !lookups_are_seen()) {
		snprintf(why, size,
			 "UCX is %u.%u.%u, which libregcache-ucx-1.18.so serves",
			 major, minor, release);
		return why;
	}
	if (*layout)
		return NULL;
	snprintf(why, size,
		 "UCX is %u.%u.%u, and only " LAYOUT_VERSIONS
		 " are known to this plug-in", major, minor, release);
	return why;
}
