/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What stands before UCX's own functions if this library is preloaded.  UCX's
 * transports find these names first; each call goes on to UCX.
 *
 * Nothing happens before UCX makes its first registration cache: a program that
 * makes none is not touched, nor are the launchers and shells that a job's
 * environment reaches.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "caches.h"
#include "kernel_source.h"
#include "news.h"
#include "pass.h"
#include "ucx.h"

#define PLUGIN	"ucx"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_once_t announced = PTHREAD_ONCE_INIT;
static const struct ucx *ucx;
static ucx_get first_get;
static ucx_get *next_get = first_get;
/* The process that is served; 0 if none is. */
static pid_t served;

static void set_up(void)
{
	const struct layout *layout;
	char text[512];
	const char *why;

	ucx = ucx_find();
	if (!ucx) {
		kernel_source_inactive(PLUGIN, "UCX's libucs is not there");
		return;
	}
	next_get = ucx->get;
	why = ucx_unknown(ucx, &layout, text, sizeof(text));
	if (!why)
		why = news_open(ucx->vm_munmap, text, sizeof(text));
	if (why) {
		kernel_source_inactive(PLUGIN, why);
		return;
	}
	caches_serve(layout);
	/* Caches need no hooks from now on. */
	ucx->set_external_event(UCX_VM_UNMAPPED);
	served = getpid();
}

static void announce(void)
{
	kernel_source_active(PLUGIN, "the kernel tells UCX's registration caches"
			     " what was unmapped");
}

BY_JUMP static ucx_status first_get(uintptr_t one, uintptr_t two, uintptr_t three,
				    uintptr_t four, uintptr_t five, uintptr_t six)
{
	if (pthread_once(&once, set_up) || next_get == first_get)
		return UCX_UNSUPPORTED;
	JUMP next_get(one, two, three, four, five, six);
}

BY_JUMP static __attribute__((noinline, cold)) ucx_status
get_after_news(uintptr_t one, uintptr_t two, uintptr_t three, uintptr_t four,
	       uintptr_t five, uintptr_t six)
{
	int heard = news_pass_on();

	if (heard == -EPERM)
		return UCX_UNSUPPORTED;
	/* The second and third are an address and a length: what is there is
	 * registered anew if the kernel is not heard. */
	if (heard)
		news_forget(two, two + three);
	JUMP next_get(one, two, three, four, five, six);
}

EXPORT ucx_get ucs_rcache_get;
BY_JUMP EXPORT ucx_status ucs_rcache_get(uintptr_t one, uintptr_t two,
					 uintptr_t three, uintptr_t four,
					 uintptr_t five, uintptr_t six)
{
	if (__builtin_expect(regcache_monitor_changed(news), 0))
		JUMP get_after_news(one, two, three, four, five, six);
	JUMP next_get(one, two, three, four, five, six);
}

EXPORT ucx_create ucs_rcache_create;
EXPORT ucx_status ucs_rcache_create(const struct ucx_params *params,
				    const char *name, void *statistics,
				    struct ucx_rcache **rcache)
{
	ucx_status status;

	if (pthread_once(&once, set_up) || !ucx)
		return UCX_UNSUPPORTED;
	/* A cache of what cannot be unmapped here is none of our business. */
	if (!served || !caches_wanted(params))
		return ucx->create(params, name, statistics, rcache);
	/* The news are the parent's.  Without a cache UCX registers each time
	 * anew. */
	if (served != getpid()) {
		*rcache = NULL;
		return UCX_UNSUPPORTED;
	}
	status = caches_create(ucx, params, name, statistics, rcache);
	if (status == UCX_OK)
		pthread_once(&announced, announce);
	return status;
}

EXPORT ucx_destroy ucs_rcache_destroy;
EXPORT void ucs_rcache_destroy(struct ucx_rcache *rcache)
{
	if (pthread_once(&once, set_up) || !ucx)
		return;
	caches_destroy(ucx, rcache);
}
