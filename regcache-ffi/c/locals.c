/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The cache for one thread at a time. */
#include "check.h"

static void a_local_handle_shares_the_cache(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_local *one, *two;
	struct regcache_ticket a, b, c;

	EXPECT_EQ(regcache_local_open(cache, &one), 0);
	EXPECT_EQ(regcache_local_open(cache, &two), 0);
	EXPECT_EQ(regcache_local_get(one, at(1), 1, 0, &a), 0);
	EXPECT_EQ(regcache_local_get(two, at(1), 1, 0, &b), 0);
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &c), 0);
	EXPECT(a.region == b.region && b.region == c.region);
	EXPECT_EQ(fake.calls, 1);
	EXPECT_EQ(regcache_notify(cache, at(1), 1), 0);
	EXPECT_EQ(regcache_local_put(one, a), 0);
	EXPECT_EQ(regcache_put(cache, c), 0);
	EXPECT_EQ(regcache_local_get(one, at(1), 1, 0, &a), 0);
	EXPECT(a.region != b.region);
	EXPECT_EQ(fake.registered, 2);
	EXPECT_EQ(regcache_local_put(two, b), 0);
	EXPECT_EQ(fake.registered, 1);
	EXPECT_EQ(regcache_local_hold(one, a, &c), 0);
	EXPECT_EQ(regcache_local_put(one, a), 0);
	EXPECT_EQ(regcache_local_put(one, c), 0);
	EXPECT_EQ(regcache_local_close(one), 0);
	EXPECT_EQ(regcache_local_close(two), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	EXPECT_EQ(fake.registered, 0);
}

static void many_tickets_at_once(void)
{
	enum { COUNT = 2000 };
	static struct regcache_ticket tickets[COUNT];
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_local *local;

	EXPECT_EQ(regcache_local_open(cache, &local), 0);
	for (int round = 0; round < 3; round++) {
		for (int n = 0; n < COUNT; n++)
			EXPECT_EQ(regcache_local_get(local, at((size_t)n % 7), 1, 0, &tickets[n]), 0);
		for (int n = 0; n < COUNT; n++)
			EXPECT_EQ(regcache_local_put(local, tickets[(n * 1013) % COUNT]), 0);
		for (int n = 0; n < COUNT; n++)
			EXPECT_EQ(regcache_local_put(local, tickets[n]), -EINVAL);
	}
	EXPECT_EQ(regcache_local_close(local), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

int main(void)
{
	PLAN(2);
	RUN(a_local_handle_shares_the_cache);
	RUN(many_tickets_at_once);
	DONE();
}
