/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Threads that have looked up outlive the cache, and dlclose(3) of the library. Its path is the
 * argument. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <regcache.h>

enum { THREADS = 8, ROUNDS = 50, LOOKUPS = 200, PLACES = 16 };

/* What is called of the library, found anew in each round. */
static struct {
	__typeof__(&regcache_create) create;
	__typeof__(&regcache_get) get;
	__typeof__(&regcache_put) put;
	__typeof__(&regcache_destroy) destroy;
} calls;

static struct regcache *cache;
static pthread_barrier_t looked_up, closed;
static int registered, failures;

static void check(int good, const char *what)
{
	if (!good) {
		fprintf(stderr, "%s\n", what);
		__atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
	}
}

static int reg(void *context, struct regcache_region *region)
{
	(void)context, (void)region;
	__atomic_add_fetch(&registered, 1, __ATOMIC_RELAXED);
	return 0;
}

static int dereg(void *context, struct regcache_region *region)
{
	(void)context, (void)region;
	__atomic_sub_fetch(&registered, 1, __ATOMIC_RELAXED);
	return 0;
}

static void *work(void *unused)
{
	for (int n = 0; n < LOOKUPS; n++) {
		const void *addr = (const void *)(uintptr_t)(0x100000000ull + n % PLACES * 4096);
		struct regcache_ticket ticket;
		int got = calls.get(cache, addr, 1, 0, &ticket);

		check(!got, "regcache_get");
		if (!got)
			check(!calls.put(cache, ticket), "regcache_put");
	}
	pthread_barrier_wait(&looked_up);
	pthread_barrier_wait(&closed);
	/* What this thread has of the library ends after the library was closed. */
	return unused;
}

static void *find(void *library, const char *name)
{
	void *found = dlsym(library, name);

	if (!found) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return found;
}

/* POSIX has dlsym(3) return functions so. */
#define FIND(name) (*(void **)&calls.name = find(library, "regcache_" #name))

int main(int argc, char **argv)
{
	pthread_barrier_init(&looked_up, NULL, THREADS + 1);
	pthread_barrier_init(&closed, NULL, THREADS + 1);
	for (int round = 0; round < ROUNDS; round++) {
		struct regcache_callbacks callbacks = REGCACHE_CALLBACKS_INIT;
		struct regcache_options options = REGCACHE_OPTIONS_INIT;
		void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
		pthread_t threads[THREADS];

		if (!library) {
			fprintf(stderr, "%s\n", argc > 1 ? dlerror() : "which library?");
			return 1;
		}
		FIND(create), FIND(get), FIND(put), FIND(destroy);
		callbacks.mem_reg = reg;
		callbacks.mem_dereg = dereg;
		options.monitor = REGCACHE_MONITOR_MANUAL;
		if (calls.create(&callbacks, &options, &cache)) {
			fprintf(stderr, "regcache_create\n");
			return 1;
		}
		for (int n = 0; n < THREADS; n++)
			pthread_create(&threads[n], NULL, work, NULL);
		pthread_barrier_wait(&looked_up);
		check(!calls.destroy(cache, 0), "regcache_destroy");
		check(!registered, "still registered");
		check(!dlclose(library), "dlclose");
		pthread_barrier_wait(&closed);
		for (int n = 0; n < THREADS; n++)
			pthread_join(threads[n], NULL);
	}
	return failures != 0;
}
