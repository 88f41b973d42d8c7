// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "host.h"

#include <dlfcn.h>
#include <err.h>
#include <stdlib.h>
#include <time.h>

#include <rdma/fabric.h>
#include <rdma/fi_ext.h>

#include "memory.h"

pthread_mutex_t host_lock = PTHREAD_MUTEX_INITIALIZER;
void (*host_notified)(const void *addr, size_t len);
void (*host_told)(const void *addr, size_t len);
unsigned long host_notifications;

static struct fid_mem_monitor *imported;
static const void *waiting;	/* whoever tells of that waits for the lock */

static void notify(struct fid_mem_monitor *monitor, const void *addr, size_t len)
{
	(void)monitor;
	__atomic_store_n(&waiting, addr, __ATOMIC_RELEASE);
	pthread_mutex_lock(&host_lock);
	__atomic_store_n(&waiting, NULL, __ATOMIC_RELAXED);
	if (host_notified)
		host_notified(addr, len);
	pthread_mutex_unlock(&host_lock);
	if (host_told)
		host_told(addr, len);
	__atomic_fetch_add(&host_notifications, 1, __ATOMIC_RELAXED);
}

static struct fi_ops_mem_notify notify_ops = { .size = sizeof(notify_ops), .notify = notify };

static int import(struct fid *fid, struct fid *monitor, uint64_t flags)
{
	(void)fid;
	if (flags || monitor->fclass != FI_CLASS_MEM_MONITOR)
		return -FI_EINVAL;
	imported = (struct fid_mem_monitor *)monitor;
	imported->import_ops = &notify_ops;
	return 0;
}

static int leave(struct fid *fid)
{
	(void)fid;
	return 0;
}

static struct fi_ops cache_ops = { .size = sizeof(cache_ops), .close = leave, .bind = import };
static struct fid cache = { .fclass = FI_CLASS_MR_CACHE, .ops = &cache_ops };

/* The plug-in finds this one before libfabric's. */
int fi_open(uint32_t version, const char *name, void *attr, size_t attr_len, uint64_t flags,
	    struct fid **fid, void *context)
{
	(void)version, (void)name, (void)attr, (void)attr_len, (void)flags, (void)context;
	*fid = &cache;
	return 0;
}

void host_load(void)
{
	if (!dlopen(PLUGIN_FILE, RTLD_NOW | RTLD_LOCAL))
		errx(1, "%s", dlerror());
	if (!imported)
		errx(1, "the plug-in did not import its monitor");
	if (host_start())
		errx(1, "the monitor does not start");
}

int host_start(void)
{
	return imported->export_ops->start(imported);
}

void host_stop(void)
{
	imported->export_ops->stop(imported);
}

int host_locked_subscribe(const void *addr, size_t len)
{
	return imported->export_ops->subscribe(imported, addr, len);
}

void host_locked_unsubscribe(const void *addr, size_t len)
{
	imported->export_ops->unsubscribe(imported, addr, len);
}

bool host_locked_valid(const void *addr, size_t len)
{
	return imported->export_ops->valid(imported, addr, len);
}

int host_subscribe(const void *addr, size_t len)
{
	int ret;

	pthread_mutex_lock(&host_lock);
	ret = host_locked_subscribe(addr, len);
	pthread_mutex_unlock(&host_lock);
	return ret;
}

bool host_valid(const void *addr, size_t len)
{
	bool valid;

	pthread_mutex_lock(&host_lock);
	valid = host_locked_valid(addr, len);
	pthread_mutex_unlock(&host_lock);
	return valid;
}

void *host_hold(void)
{
	static char *decoy;
	const struct timespec pause = { .tv_nsec = 1000000 };

	if (!decoy)
		decoy = map(4096);
	for (;;) {
		pthread_mutex_lock(&host_lock);
		if (host_locked_subscribe(decoy, 4096))
			errx(1, "the decoy is not watched");
		remap(decoy, 4096);
		for (int n = 0; n < 5000; n++) {
			const void *addr = __atomic_load_n(&waiting, __ATOMIC_ACQUIRE);

			if (addr == decoy)
				return decoy;
			if (addr)
				break;
			nanosleep(&pause, NULL);
		}
		pthread_mutex_unlock(&host_lock);
		nanosleep(&pause, NULL);
	}
}

void host_release(void)
{
	pthread_mutex_unlock(&host_lock);
}
