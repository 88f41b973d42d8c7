/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Tests that report in TAP, and memory that is registered by being counted. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <regcache.h>

static int check_failed;
static int check_number;

#define EXPECT(condition)						\
	do {								\
		if (!(condition)) {					\
			check_failed = 1;				\
			printf("# %s:%d: %s (%s)\n", __FILE__, __LINE__, \
			       #condition, regcache_last_error());	\
		}							\
	} while (0)

#define EXPECT_EQ(left, right)						\
	do {								\
		long long left_ = (long long)(left);			\
		long long right_ = (long long)(right);			\
									\
		if (left_ != right_) {					\
			check_failed = 1;				\
			printf("# %s:%d: %s is %lld, not %lld (%s)\n",	\
			       __FILE__, __LINE__, #left, left_, right_, \
			       regcache_last_error());			\
		}							\
	} while (0)

/* The call fails with this errno, and says why. */
#define EXPECT_FAILS(call, errno_)					\
	do {								\
		EXPECT_EQ(call, -(errno_));				\
		EXPECT(regcache_last_error()[0] != '\0');		\
	} while (0)

#define RUN(test)							\
	do {								\
		check_failed = 0;					\
		test();							\
		printf("%s %d " #test "\n", check_failed ? "not ok" : "ok", \
		       ++check_number);					\
		check_total_failed |= check_failed;			\
		fflush(stdout);						\
	} while (0)

#define PLAN(tests)							\
	int check_total_failed = 0;					\
	setvbuf(stdout, NULL, _IOLBF, 0);				\
	printf("TAP version 13\n1..%d\n", tests)

#define DONE()	return check_total_failed

/* A device that counts. */
struct fake {
	int registered;		/* at present */
	int calls;		/* of mem_reg */
	int fail;		/* mem_reg fails so, as often as fail_times */
	int fail_times;
	int busy;		/* mem_dereg fails with -EBUSY so often */
	void (*during)(struct fake *fake, struct regcache_region *region);
	struct regcache *cache;
	int result;
};

struct payload {
	struct fake *fake;
	uint64_t number;
};

static inline int fake_reg(void *context, struct regcache_region *region)
{
	struct fake *fake = (struct fake *)context;
	struct payload *payload = (struct payload *)region->payload;
	int number = __atomic_add_fetch(&fake->calls, 1, __ATOMIC_RELAXED);

	if (fake->fail_times) {
		fake->fail_times--;
		return fake->fail;
	}
	if (fake->during)
		fake->during(fake, region);
	if (payload) {
		payload->fake = fake;
		payload->number = (uint64_t)number;
	}
	region->lkey = (uint32_t)number;
	region->rkey = (uint32_t)number + 0x10000;
	__atomic_add_fetch(&fake->registered, 1, __ATOMIC_RELAXED);
	return 0;
}

static inline int fake_dereg(void *context, struct regcache_region *region)
{
	struct fake *fake = (struct fake *)context;
	struct payload *payload = (struct payload *)region->payload;

	if (fake->busy) {
		fake->busy--;
		return -EBUSY;
	}
	if (payload && payload->fake != fake)
		abort();
	__atomic_sub_fetch(&fake->registered, 1, __ATOMIC_RELAXED);
	return 0;
}

/* A cache of the fake's registrations that only the program tells of changes. */
static inline struct regcache *fake_cache(struct fake *fake, uint64_t max_regions)
{
	struct regcache_callbacks callbacks = REGCACHE_CALLBACKS_INIT;
	struct regcache_options options = REGCACHE_OPTIONS_INIT;
	struct regcache *cache = NULL;

	callbacks.mem_reg = fake_reg;
	callbacks.mem_dereg = fake_dereg;
	callbacks.context = fake;
	options.monitor = REGCACHE_MONITOR_MANUAL;
	options.max_regions = max_regions;
	options.max_bytes = 1 << 30;
	options.payload_size = sizeof(struct payload);
	EXPECT_EQ(regcache_create(&callbacks, &options, &cache), 0);
	if (!cache)
		exit(1);
	fake->cache = cache;
	return cache;
}

/* Addresses that nobody looks at. */
#define PAGE	((size_t)sysconf(_SC_PAGESIZE))
static inline const void *at(size_t page)
{
	return (const void *)(uintptr_t)(0x100000000ull + page * PAGE);
}

#endif /* CHECK_H */
