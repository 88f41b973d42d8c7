// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * libfabric's imported memory monitor: libfabric asks it at every hit of its
 * registration caches whether the memory is still the same, and the kernel
 * answers.
 */
#include "monitor.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kernel_source.h"
#include "watches.h"

/* The thread that makes libfabric drop what has changed, so that it goes with
 * the next registration of whatever memory, and not with the next of the same. */
static const size_t stack_size = 256 << 10;

/* Held while libfabric is told, so that no fork(2) comes in between: the child
 * would have libfabric's lock locked for ever. */
static pthread_mutex_t telling = PTHREAD_MUTEX_INITIALIZER;
static __thread bool forking;

/* The process that has the thread. */
static pid_t running;

static void tell(const void *addr, size_t len)
{
	pthread_mutex_lock(&telling);
	monitor_fid.import_ops->notify(&monitor_fid, addr, len);
	pthread_mutex_unlock(&telling);
}

static void *settle(void *unused)
{
	for (;;) {
		watches_wait();
		watches_settle(tell);
	}
	return unused;
}

static void before_fork(void)
{
	struct timespec limit;

	/* Who forks in a signal handler may have interrupted what we wait for. */
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec++;
	forking = !pthread_mutex_timedlock(&telling, &limit);
}

static void after_fork(void)
{
	if (forking)
		pthread_mutex_unlock(&telling);
	forking = false;
}

/* 0 or an errno. */
static int run_thread(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all, before;
	int ret = pthread_attr_init(&attr);

	if (ret)
		return ret;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, stack_size);
	/* The program's signals are not for this thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	ret = pthread_create(&thread, &attr, settle, NULL);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return ret;
}

/* How many ranges to watch: some times more than the caches of a few domains
 * hold, if they are as large as FI_MR_CACHE_MAX_COUNT says. */
static size_t watch_count(void)
{
	static const size_t least = 16384, most = 1 << 20;
	const char *text = getenv("FI_MR_CACHE_MAX_COUNT");
	unsigned long long count = text ? strtoull(text, NULL, 0) : 0;

	if (count >= most / 4)
		return most;
	return count * 4 > least ? (size_t)count * 4 : least;
}

int monitor_open(char *why, size_t size)
{
	struct regcache_monitor *source = kernel_source_open(why, size);
	int ret;

	if (!source)
		return -FI_ENODEV;
	ret = watches_open(source, watch_count());
	if (!ret)
		return 0;
	snprintf(why, size, "no eventfd: %s", strerror(-ret));
	regcache_monitor_close(source);
	return ret;
}

/* Caches come.  A forked child begins anew: it has no thread, and news of its
 * parent's memory. */
static int start(struct fid_mem_monitor *monitor)
{
	char why[256];
	int ret = 0;

	(void)monitor;
	if (!watches_are_open())
		ret = monitor_open(why, sizeof(why));
	if (!ret && running != getpid()) {
		ret = -run_thread();
		if (ret)
			snprintf(why, sizeof(why), "no thread: %s", strerror(-ret));
	}
	if (ret) {
		fprintf(stderr, "regcache: " PLUGIN ": INACTIVE, libfabric caches nothing: %s (pid %d)\n",
			why, (int)getpid());
		return ret;
	}
	if (running != getpid())
		kernel_source_active(PLUGIN, "the kernel tells libfabric's registration caches");
	running = getpid();
	return 0;
}

/* The last cache has gone. */
static void stop(struct fid_mem_monitor *monitor)
{
	(void)monitor;
	watches_clear();
}

static int subscribe(struct fid_mem_monitor *monitor, const void *addr, size_t len)
{
	(void)monitor;
	return watches_subscribe(addr, len);
}

static void unsubscribe(struct fid_mem_monitor *monitor, const void *addr, size_t len)
{
	(void)monitor;
	watches_unsubscribe(addr, len);
}

static bool valid(struct fid_mem_monitor *monitor, const void *addr, size_t len)
{
	(void)monitor;
	return watches_valid(addr, len);
}

static struct fi_ops_mem_monitor ops = {
	.size = sizeof(ops),
	.start = start,
	.stop = stop,
	.subscribe = subscribe,
	.unsubscribe = unsubscribe,
	.valid = valid,
};

struct fid_mem_monitor monitor_fid = {
	.fid.fclass = FI_CLASS_MEM_MONITOR,
	.export_ops = &ops,
};

int monitor_import(void)
{
	int ret = fi_import(FI_VERSION(1, 13), "mr_cache", NULL, 0, 0,
			    &monitor_fid.fid, NULL);

	if (!ret)
		pthread_atfork(before_fork, after_fork, after_fork);
	return ret;
}
