/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests by random operations share: how many, and which.
 *
 *	PROGRAM [--operations N] [--seed S]
 *
 * With the same seed each thread makes the same choices; how the threads
 * interleave is another matter.
 */
#ifndef SOAK_H
#define SOAK_H

#include "feature.h"

static unsigned long soak_operations = 10000;
static __u64 soak_seed;

struct random {
	__u64 state;
};

/* splitmix64 */
static inline __u64 random_next(struct random *r)
{
	__u64 x = r->state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

/* Less than n. */
static inline unsigned int random_below(struct random *r, unsigned int n)
{
	return (random_next(r) >> 32) % n;
}

static inline bool random_one_in(struct random *r, unsigned int n)
{
	return !random_below(r, n);
}

/* The choices of one thread. */
static inline struct random random_of(unsigned int who)
{
	struct random r = { soak_seed + ((__u64)who << 32) };

	r.state = random_next(&r);
	return r;
}

/* The harness' limit is for tests of a known length. */
static inline void soak_begin(void)
{
	alarm((300 + soak_operations / 100) * harness_slowdown());
	dprintf(STDOUT_FILENO, "# seed %llu\n", (unsigned long long)soak_seed);
}

static inline int soak_main(int argc, char **argv)
{
	int i;

	for (i = 1; i + 1 < argc; i += 2) {
		if (!strcmp(argv[i], "--operations"))
			soak_operations = strtoul(argv[i + 1], NULL, 0);
		else if (!strcmp(argv[i], "--seed"))
			soak_seed = strtoull(argv[i + 1], NULL, 0);
		else
			break;
	}
	if (i != argc) {
		dprintf(STDERR_FILENO,
			"usage: %s [--operations N] [--seed S]\n", argv[0]);
		return HARNESS_FAIL;
	}
	return main(1, argv);
}

static void __attribute__((constructor)) soak_init(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	soak_seed = (now.tv_sec * 1000 + now.tv_nsec / 1000000) & 0xffffffff;
	harness_helper = soak_main;
}

#endif /* SOAK_H */
