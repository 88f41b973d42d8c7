/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a cache over callbacks does for its callers. */
#include "check.h"

static uint64_t stat_of(struct regcache *cache, size_t offset)
{
	struct regcache_stats stats = REGCACHE_STATS_INIT;
	uint64_t value;

	EXPECT_EQ(regcache_query(cache, &stats), 0);
	memcpy(&value, (char *)&stats + offset, sizeof(value));
	return value;
}
#define STAT(cache, field) stat_of(cache, offsetof(struct regcache_stats, field))

static void a_second_lookup_finds_the_first(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket one, two;

	EXPECT_EQ(regcache_get(cache, at(1), 100, 1, &one), 0);
	EXPECT_EQ(regcache_get(cache, (const char *)at(1) + 50, 10, 1, &two), 0);
	EXPECT(one.region == two.region);
	EXPECT(one.lease != two.lease);
	EXPECT_EQ(one.region->lkey, 1);
	EXPECT_EQ(one.region->rkey, 0x10001);
	EXPECT(one.region->addr == at(1));
	EXPECT_EQ(one.region->len, PAGE);
	EXPECT_EQ(((struct payload *)one.region->payload)->number, 1);
	EXPECT_EQ((uintptr_t)one.region->payload % 16, 0);
	EXPECT_EQ(STAT(cache, hits), 1);
	EXPECT_EQ(STAT(cache, misses), 1);
	EXPECT_EQ(STAT(cache, tickets), 2);
	EXPECT_EQ(regcache_put(cache, one), 0);
	EXPECT_EQ(regcache_put(cache, two), 0);
	EXPECT_EQ(fake.registered, 1);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	EXPECT_EQ(fake.registered, 0);
}

static void a_held_ticket_keeps_the_registration(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket one, two;

	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &one), 0);
	EXPECT_EQ(regcache_hold(cache, one, &two), 0);
	EXPECT_EQ(regcache_put(cache, one), 0);
	EXPECT_EQ(regcache_flush(cache), 0);
	EXPECT_EQ(fake.registered, 1);
	EXPECT_EQ(two.region->lkey, 1);
	EXPECT_FAILS(regcache_hold(cache, one, &one), EINVAL);
	EXPECT_EQ(one.lease, 0);
	EXPECT_EQ(regcache_put(cache, two), 0);
	EXPECT_EQ(fake.registered, 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void a_double_put_harms_nobody(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket one, two;

	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &one), 0);
	EXPECT_EQ(regcache_put(cache, one), 0);
	/* The same place of the same thread lends the same registration. */
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &two), 0);
	EXPECT_FAILS(regcache_put(cache, one), EINVAL);
	EXPECT_EQ(regcache_flush(cache), 0);
	EXPECT_EQ(fake.registered, 1);
	EXPECT_EQ(regcache_put(cache, two), 0);
	EXPECT_EQ(fake.registered, 0);
	EXPECT_FAILS(regcache_put(cache, two), EINVAL);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void many_tickets_at_once(void)
{
	enum { COUNT = 2000 };
	static struct regcache_ticket tickets[COUNT];
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);

	for (int round = 0; round < 3; round++) {
		for (int n = 0; n < COUNT; n++)
			EXPECT_EQ(regcache_get(cache, at((size_t)n % 7), 1, 0, &tickets[n]), 0);
		EXPECT_EQ(STAT(cache, tickets), COUNT);
		/* In another order. */
		for (int n = 0; n < COUNT; n++)
			EXPECT_EQ(regcache_put(cache, tickets[(n * 1013) % COUNT]), 0);
		for (int n = 0; n < COUNT; n++)
			EXPECT_EQ(regcache_put(cache, tickets[n]), -EINVAL);
	}
	EXPECT_EQ(STAT(cache, tickets), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void a_notified_range_is_registered_again(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket one, two;

	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &one), 0);
	EXPECT_EQ(regcache_notify(cache, at(1), PAGE), 0);
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &two), 0);
	EXPECT(one.region != two.region);
	EXPECT_EQ(one.region->lkey, 1);
	EXPECT_EQ(two.region->lkey, 2);
	EXPECT_EQ(regcache_put(cache, one), 0);
	EXPECT_EQ(fake.registered, 1);
	EXPECT_EQ(regcache_put(cache, two), 0);
	/* With nobody looking: bounded, and not forgotten. */
	for (size_t n = 0; n < 40000; n++)
		EXPECT_EQ(regcache_notify(cache, at(n), PAGE), 0);
	EXPECT_EQ(regcache_drain(cache), 0);
	EXPECT_EQ(fake.registered, 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void complete(void *context)
{
	++*(int *)context;
}

static void a_completion_comes_after_the_last_put(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket one, two, other;
	int done = 0, at_once = 0;

	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &one), 0);
	EXPECT_EQ(regcache_hold(cache, one, &two), 0);
	EXPECT_EQ(regcache_invalidate(cache, at(1), 1, complete, &done), 0);
	EXPECT_EQ(done, 0);
	/* One that came later is not waited for. */
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &other), 0);
	EXPECT_EQ(other.region->lkey, 2);
	EXPECT_EQ(regcache_put(cache, one), 0);
	EXPECT_EQ(done, 0);
	EXPECT_EQ(regcache_put(cache, two), 0);
	EXPECT_EQ(done, 1);
	EXPECT_EQ(regcache_put(cache, other), 0);
	EXPECT_EQ(regcache_invalidate(cache, at(1), 1, complete, &at_once), 0);
	EXPECT_EQ(at_once, 1);
	EXPECT_EQ(regcache_invalidate(cache, at(1), 1, complete, &at_once), 0);
	EXPECT_EQ(at_once, 2);
	EXPECT_EQ(done, 1);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void revoke_counts_what_is_in_use(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket one;

	EXPECT_EQ(regcache_get(cache, at(1), 64, 1 | 4, &one), 0);
	EXPECT_EQ(one.region->len, 64);
	EXPECT_EQ(regcache_revoke(cache, at(1), 1), 1);
	EXPECT_EQ(regcache_put(cache, one), 0);
	EXPECT_EQ(regcache_revoke(cache, at(1), 1), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void the_limit_evicts_and_enomem_too(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 4);
	struct regcache_ticket one;

	for (size_t n = 0; n < 40; n++) {
		EXPECT_EQ(regcache_get(cache, at(2 * n), 1, 0, &one), 0);
		EXPECT_EQ(regcache_put(cache, one), 0);
		EXPECT(fake.registered <= 4);
	}
	EXPECT_EQ(STAT(cache, evicted), 36);
	fake.fail = -ENOMEM;
	fake.fail_times = 1;
	EXPECT_EQ(regcache_get(cache, at(1000), 1, 0, &one), 0);
	EXPECT_EQ(regcache_put(cache, one), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	EXPECT_EQ(fake.registered, 0);
}

static void destroy_refuses_and_force_does_not(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_local *local;
	struct regcache_ticket one, two;

	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &one), 0);
	EXPECT_FAILS(regcache_destroy(cache, 0), EBUSY);
	EXPECT_EQ(regcache_put(cache, one), 0);
	EXPECT_EQ(regcache_local_open(cache, &local), 0);
	EXPECT_FAILS(regcache_destroy(cache, 0), EBUSY);
	EXPECT_EQ(regcache_local_close(local), 0);
	fake.busy = 2;
	EXPECT_FAILS(regcache_destroy(cache, 0), EBUSY);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	EXPECT_EQ(fake.registered, 0);

	cache = fake_cache(&fake, 0);
	EXPECT_EQ(regcache_local_open(cache, &local), 0);
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &one), 0);
	EXPECT_EQ(regcache_local_get(local, at(9), 1, 0, &two), 0);
	EXPECT_EQ(regcache_destroy(cache, REGCACHE_DESTROY_FORCE), 0);
	EXPECT_EQ(fake.registered, 0);
	EXPECT_FAILS(regcache_local_put(local, two), EBADF);
	EXPECT_FAILS(regcache_put(cache, one), EBADF);
}

static void the_dump_fits_where_it_must(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket one;
	char text[4096], small[10];
	int length;

	EXPECT_EQ(regcache_get(cache, at(1), 1, 1, &one), 0);
	length = regcache_dump(cache, NULL, 0);
	EXPECT(length > 0);
	EXPECT_EQ(regcache_dump(cache, text, sizeof(text)), length);
	EXPECT_EQ(strlen(text), length);
	EXPECT(strstr(text, "LOCAL_WRITE, in use") != NULL);
	EXPECT_EQ(regcache_dump(cache, small, sizeof(small)), length);
	EXPECT_EQ(strlen(small), sizeof(small) - 1);
	EXPECT_EQ(regcache_put(cache, one), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

int main(void)
{
	PLAN(10);
	RUN(a_second_lookup_finds_the_first);
	RUN(a_held_ticket_keeps_the_registration);
	RUN(a_double_put_harms_nobody);
	RUN(many_tickets_at_once);
	RUN(a_notified_range_is_registered_again);
	RUN(a_completion_comes_after_the_last_put);
	RUN(revoke_counts_what_is_in_use);
	RUN(the_limit_evicts_and_enomem_too);
	RUN(destroy_refuses_and_force_does_not);
	RUN(the_dump_fits_where_it_must);
	DONE();
}
