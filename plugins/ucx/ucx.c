/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE
#include "ucx.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int ucx_find(struct ucx *ucx)
{
	/* Who loads UCX at run time may keep its names to itself, so the next
	 * after ours need not be UCX's. */
	void *ucs = dlopen("libucs.so.0", RTLD_LAZY | RTLD_NOLOAD);
	void *from = ucs ? ucs : RTLD_NEXT;

	ucx->get = (ucx_get *)dlsym(from, "ucs_rcache_get");
	ucx->create = (ucx_create *)dlsym(from, "ucs_rcache_create");
	ucx->destroy = (ucx_destroy *)dlsym(from, "ucs_rcache_destroy");
	ucx->set_external_event =
		(void (*)(int))dlsym(from, "ucm_set_external_event");
	ucx->vm_munmap = (void (*)(void *, size_t))dlsym(from, "ucm_vm_munmap");
	return ucx->get && ucx->create && ucx->destroy ? 0 : -1;
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

const char *ucx_unknown(const struct ucx *ucx, char *why, size_t size)
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
	if (major == 1 && minor == 13)
		return NULL;
	snprintf(why, size,
		 "UCX is %u.%u.%u, and only 1.13 is known to this plug-in",
		 major, minor, release);
	return why;
}
