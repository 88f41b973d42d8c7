/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A cache of registrations of a transport's own: here, memory is "registered"
 * by locking it.
 *
 *	cc example.c $(pkg-config --cflags --libs regcache) && ./a.out
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <regcache.h>

/* What the transport keeps for each registration. */
struct key {
	int number;
};

static int lock_memory(void *context, struct regcache_region *region)
{
	struct key *key = region->payload;
	int *last = context;

	if (mlock(region->addr, region->len))
		return -errno;
	key->number = ++*last;
	return 0;
}

static int unlock_memory(void *context, struct regcache_region *region)
{
	(void)context;
	return munlock(region->addr, region->len) ? -errno : 0;
}

static void check(const char *what, int result)
{
	if (result >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, regcache_last_error());
	exit(1);
}

int main(void)
{
	struct regcache_callbacks callbacks = REGCACHE_CALLBACKS_INIT;
	struct regcache_options options = REGCACHE_OPTIONS_INIT;
	struct regcache_stats stats = REGCACHE_STATS_INIT;
	struct regcache *cache;
	static char buffer[1 << 16];
	int last = 0;

	callbacks.mem_reg = lock_memory;
	callbacks.mem_dereg = unlock_memory;
	callbacks.context = &last;
	options.payload_size = sizeof(struct key);
	/* Without the kernel module this program must announce changes itself. */
	options.monitor = REGCACHE_MONITOR_MANUAL;
	check("create", regcache_create(&callbacks, &options, &cache));

	for (int n = 0; n < 1000; n++) {
		struct regcache_ticket mr;

		if (n == 500)
			check("notify", regcache_notify(cache, buffer, sizeof(buffer)));
		check("get", regcache_get(cache, buffer, sizeof(buffer), 0, &mr));
		if (n % 500 == 0)
			printf("message %d goes by key %d\n", n,
			       ((struct key *)mr.region->payload)->number);
		check("put", regcache_put(cache, mr));
	}
	check("query", regcache_query(cache, &stats));
	printf("%lu hits, %lu misses, %lu stale\n", (unsigned long)stats.hits,
	       (unsigned long)stats.misses, (unsigned long)stats.stale);
	check("destroy", regcache_destroy(cache, 0));
	return 0;
}
