// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What valid() costs libfabric at each hit, called as libfabric calls it.  It
 * needs no device: the counter that it loads is then in ordinary memory, and all
 * else is the same.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "memory.h"
#include "monitor.h"
#include "watches.h"

enum { CALLS = 1000000, BATCHES = 50, LENGTH = 4096 };

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* Nanoseconds a call, of the fastest of many batches: others may be running. */
static double fastest(bool (*valid)(struct fid_mem_monitor *, const void *, size_t),
		      const void *addr)
{
	double best = 1e9;

	for (int batch = 0; batch < BATCHES; batch++) {
		double start = now(), took;

		for (int n = 0; n < CALLS; n++)
			if (!valid(&monitor_fid, addr, LENGTH))
				errx(1, "it is not valid, and nothing has changed");
		took = (now() - start) / CALLS;
		best = took < best ? took : best;
	}
	return best;
}

static bool nothing(struct fid_mem_monitor *monitor, const void *addr, size_t len)
{
	(void)monitor, (void)addr, (void)len;
	return true;
}

int main(void)
{
	struct regcache_monitor_options options = REGCACHE_MONITOR_OPTIONS_INIT;
	bool (*volatile empty)(struct fid_mem_monitor *, const void *, size_t) = nothing;
	struct regcache_monitor *source;
	char *memory = map(LENGTH), why[256];
	bool device = !monitor_open(why, sizeof(why));

	options.monitor = REGCACHE_MONITOR_MANUAL;
	if (!device && (regcache_monitor_open(&options, &source) || watches_open(source, 16)))
		errx(1, "%s", regcache_last_error());
	if (watches_subscribe(memory, LENGTH))
		errx(1, "%s", regcache_last_error());
	printf("valid(): %.1f ns, of which an empty function is %.1f ns (%s)\n",
	       fastest(monitor_fid.export_ops->valid, memory), fastest(empty, memory),
	       device ? "the device's counter" : "no device: a counter in ordinary memory");
	return 0;
}
