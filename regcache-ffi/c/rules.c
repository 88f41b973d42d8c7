/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Breaks the rules of the header, one after the other: each is an error, and nothing else. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static struct regcache_callbacks good_callbacks(struct fake *fake)
{
	struct regcache_callbacks callbacks = REGCACHE_CALLBACKS_INIT;

	callbacks.mem_reg = fake_reg;
	callbacks.mem_dereg = fake_dereg;
	callbacks.context = fake;
	return callbacks;
}

static struct regcache_options good_options(void)
{
	struct regcache_options options = REGCACHE_OPTIONS_INIT;

	options.monitor = REGCACHE_MONITOR_MANUAL;
	return options;
}

static void sink(void *context, const struct regcache_event *event)
{
	(void)context;
	(void)event;
}

static void nothing_has_failed_yet(void)
{
	EXPECT_EQ(strlen(regcache_last_error()), 0);
	EXPECT_EQ(regcache_version()[0], '0');
}

static void null_is_einval(void)
{
	struct fake fake = { 0 };
	struct regcache_callbacks callbacks = good_callbacks(&fake);
	struct regcache_options options = good_options();
	struct regcache_stats stats = REGCACHE_STATS_INIT;
	struct regcache *cache = fake_cache(&fake, 0), *none = NULL;
	struct regcache_local *local;
	struct regcache_monitor *monitor;
	struct regcache_monitor_options kind = REGCACHE_MONITOR_OPTIONS_INIT;
	struct regcache_ticket ticket;

	EXPECT_FAILS(regcache_create(NULL, &options, &none), EINVAL);
	EXPECT_FAILS(regcache_create(&callbacks, &options, NULL), EINVAL);
	callbacks.mem_reg = NULL;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &none), EINVAL);
	callbacks = good_callbacks(&fake);
	callbacks.mem_dereg = NULL;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &none), EINVAL);
	EXPECT_FAILS(regcache_create_verbs(NULL, &options, &none), EINVAL);
	EXPECT_FAILS(regcache_create_verbs(NULL, &options, NULL), EINVAL);
	EXPECT(none == NULL);

	EXPECT_FAILS(regcache_get(NULL, at(1), 1, 0, &ticket), EINVAL);
	EXPECT_FAILS(regcache_get(cache, at(1), 1, 0, NULL), EINVAL);
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &ticket), 0);
	EXPECT_FAILS(regcache_get(cache, at(1), 1, 0, NULL), EINVAL);
	EXPECT_FAILS(regcache_hold(NULL, ticket, &ticket), EINVAL);
	EXPECT_FAILS(regcache_hold(cache, ticket, NULL), EINVAL);
	EXPECT_FAILS(regcache_put(NULL, ticket), EINVAL);
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &ticket), 0);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
	EXPECT_FAILS(regcache_destroy(NULL, 0), EINVAL);
	EXPECT_FAILS(regcache_notify(NULL, at(1), 1), EINVAL);
	EXPECT_FAILS(regcache_invalidate(NULL, at(1), 1, NULL, NULL), EINVAL);
	EXPECT_FAILS(regcache_revoke(NULL, at(1), 1), EINVAL);
	EXPECT_FAILS(regcache_drain(NULL), EINVAL);
	EXPECT_FAILS(regcache_flush(NULL), EINVAL);
	EXPECT_FAILS(regcache_fd(NULL), EINVAL);
	EXPECT_FAILS(regcache_query(NULL, &stats), EINVAL);
	EXPECT_FAILS(regcache_query(cache, NULL), EINVAL);
	EXPECT_FAILS(regcache_dump(NULL, NULL, 0), EINVAL);
	EXPECT_FAILS(regcache_dump(cache, NULL, 1), EINVAL);

	EXPECT_FAILS(regcache_local_open(NULL, &local), EINVAL);
	EXPECT_FAILS(regcache_local_open(cache, NULL), EINVAL);
	EXPECT_FAILS(regcache_local_close(NULL), EINVAL);
	EXPECT_FAILS(regcache_local_get(NULL, at(1), 1, 0, &ticket), EINVAL);
	EXPECT_EQ(regcache_local_open(cache, &local), 0);
	EXPECT_FAILS(regcache_local_get(local, at(1), 1, 0, NULL), EINVAL);
	EXPECT_FAILS(regcache_local_hold(NULL, ticket, &ticket), EINVAL);
	EXPECT_FAILS(regcache_local_hold(local, ticket, NULL), EINVAL);
	EXPECT_FAILS(regcache_local_put(NULL, ticket), EINVAL);
	EXPECT_EQ(regcache_local_close(local), 0);

	kind.monitor = REGCACHE_MONITOR_MANUAL;
	EXPECT_FAILS(regcache_monitor_open(&kind, NULL), EINVAL);
	EXPECT_EQ(regcache_monitor_open(&kind, &monitor), 0);
	EXPECT_FAILS(regcache_monitor_watch(NULL, at(1), 1, 0, 0), EINVAL);
	EXPECT_FAILS(regcache_monitor_unwatch(NULL, 0), EINVAL);
	EXPECT_FAILS(regcache_monitor_drain(NULL, sink, NULL), EINVAL);
	EXPECT_FAILS(regcache_monitor_drain(monitor, NULL, NULL), EINVAL);
	EXPECT_FAILS(regcache_monitor_notify(NULL, at(1), 1), EINVAL);
	EXPECT_FAILS(regcache_monitor_flush(NULL), EINVAL);
	EXPECT_FAILS(regcache_monitor_fd(NULL), EINVAL);
	EXPECT_FAILS(regcache_monitor_close(NULL), EINVAL);
	EXPECT_EQ(regcache_monitor_close(monitor), 0);
	/* One ticket was never put. */
	EXPECT_FAILS(regcache_destroy(cache, 0), EBUSY);
	EXPECT_EQ(regcache_destroy(cache, REGCACHE_DESTROY_FORCE), 0);
	EXPECT_EQ(fake.registered, 0);
}

static void sizes_and_unknown_fields(void)
{
	struct fake fake = { 0 };
	struct regcache_callbacks callbacks = good_callbacks(&fake);
	struct regcache_options options = good_options();
	struct regcache *cache = NULL;
	struct {
		struct regcache_options options;
		char tail[16];
	} newer;
	struct {
		size_t type_size;
		uint32_t monitor;
		uint32_t flags;
	} older = { sizeof(older), REGCACHE_MONITOR_MANUAL, 0 };
	struct {
		size_t type_size;
		uint64_t hits;
	} few = { sizeof(few), 7 };
	const size_t wrong[] = { 0, 1, 7, 4097, (size_t)-1 };

	for (size_t n = 0; n < sizeof(wrong) / sizeof(*wrong); n++) {
		options.type_size = wrong[n];
		EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
		options = good_options();
		callbacks.type_size = wrong[n];
		EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
		callbacks = good_callbacks(&fake);
	}
	callbacks.type_size = sizeof(size_t);
	EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
	callbacks = good_callbacks(&fake);
	callbacks.reserved[3] = 1;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
	callbacks = good_callbacks(&fake);
	options.reserved[0] = 1;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
	options = good_options();
	options.flags = 1u << 31;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
	options = good_options();
	options.flags = REGCACHE_REAPER;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EOPNOTSUPP);
	options.flags = REGCACHE_REAPER | REGCACHE_NO_REAPER;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
	options = good_options();
	options.monitor = 99;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
	options = good_options();
	options.payload_size = (size_t)-64;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
	options = good_options();
	options.max_regions = 1ull << 40;
	EXPECT_FAILS(regcache_create(&callbacks, &options, &cache), EINVAL);
	EXPECT(cache == NULL);

	/* A program that was built with a later header. */
	memset(&newer, 0, sizeof(newer));
	newer.options = good_options();
	newer.options.type_size = sizeof(newer);
	EXPECT_EQ(regcache_create(&callbacks, &newer.options, &cache), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	newer.tail[15] = 1;
	EXPECT_FAILS(regcache_create(&callbacks, &newer.options, &cache), EINVAL);
	/* And with an earlier one. */
	EXPECT_EQ(regcache_create(&callbacks, (struct regcache_options *)(void *)&older, &cache), 0);
	EXPECT_EQ(regcache_query(cache, (struct regcache_stats *)(void *)&few), 0);
	EXPECT_EQ(few.hits, 0);
	few.type_size = 0;
	EXPECT_FAILS(regcache_query(cache, (struct regcache_stats *)(void *)&few), EINVAL);
	EXPECT_FAILS(regcache_destroy(cache, 1u << 7), EINVAL);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void ranges_and_access(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket ticket;

	EXPECT_FAILS(regcache_get(cache, at(1), 0, 0, &ticket), EINVAL);
	EXPECT_EQ(ticket.lease, 0);
	EXPECT_FAILS(regcache_get(cache, at(1), (size_t)-1, 0, &ticket), EINVAL);
	EXPECT_FAILS(regcache_get(cache, at(1), 1, 1u << 30, &ticket), EINVAL);
	EXPECT_FAILS(regcache_get(cache, at(1), 1, 2, &ticket), EINVAL);
	EXPECT_FAILS(regcache_get(cache, at(1), 1, 1 << 6, &ticket), EOPNOTSUPP);
	EXPECT_FAILS(regcache_notify(cache, at(1), 0), EINVAL);
	EXPECT_FAILS(regcache_invalidate(cache, at(1), (size_t)-1, NULL, NULL), EINVAL);
	EXPECT_FAILS(regcache_revoke(cache, NULL, 0), EINVAL);
	EXPECT_FAILS(regcache_fd(cache), EOPNOTSUPP);
	EXPECT_EQ(fake.calls, 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void forged_tickets(void)
{
	struct fake fake = { 0 }, fake2 = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache *other = fake_cache(&fake2, 0);
	struct regcache_local *local, *local2;
	struct regcache_ticket ticket, theirs, mine, forged = { 0, NULL };

	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &ticket), 0);
	EXPECT_EQ(regcache_get(other, at(1), 1, 0, &theirs), 0);
	EXPECT_FAILS(regcache_put(cache, theirs), EINVAL);
	EXPECT_FAILS(regcache_put(other, ticket), EINVAL);
	for (uint64_t lease = 0; lease < 300; lease++) {
		forged.lease = lease;
		EXPECT_EQ(regcache_put(cache, forged), -EINVAL);
		forged.lease = ticket.lease ^ (lease + 1);
		EXPECT_EQ(regcache_put(cache, forged), -EINVAL);
		forged.lease = lease << 52 | 0xffffff;
		EXPECT_EQ(regcache_put(cache, forged), -EINVAL);
	}
	EXPECT_EQ(regcache_local_open(cache, &local), 0);
	EXPECT_EQ(regcache_local_open(cache, &local2), 0);
	EXPECT_EQ(regcache_local_get(local, at(1), 1, 0, &mine), 0);
	EXPECT_FAILS(regcache_put(cache, mine), EINVAL);
	EXPECT_FAILS(regcache_hold(cache, mine, &forged), EINVAL);
	EXPECT_FAILS(regcache_local_put(local, ticket), EINVAL);
	EXPECT_FAILS(regcache_local_put(local2, mine), EINVAL);
	EXPECT_FAILS(regcache_local_hold(local2, mine, &forged), EINVAL);
	EXPECT_FAILS(regcache_local_close(local), EBUSY);
	EXPECT_EQ(regcache_local_put(local, mine), 0);
	EXPECT_FAILS(regcache_local_put(local, mine), EINVAL);
	for (forged.lease = 0; forged.lease < 3; forged.lease++)
		EXPECT_FAILS(regcache_local_put(local, forged), EINVAL);
	EXPECT_EQ(regcache_local_close(local), 0);
	EXPECT_FAILS(regcache_local_close(local), EBADF);
	EXPECT_EQ(regcache_local_close(local2), 0);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
	EXPECT_EQ(regcache_put(other, theirs), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	EXPECT_EQ(regcache_destroy(other, 0), 0);
}

static void use_after_destroy(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket ticket, another;
	struct regcache_stats stats = REGCACHE_STATS_INIT;
	struct regcache_local *local;
	struct regcache_monitor *monitor;
	struct regcache_monitor_options options = REGCACHE_MONITOR_OPTIONS_INIT;

	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &ticket), 0);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	EXPECT_FAILS(regcache_destroy(cache, 0), EBADF);
	EXPECT_FAILS(regcache_get(cache, at(1), 1, 0, &ticket), EBADF);
	EXPECT_FAILS(regcache_hold(cache, ticket, &another), EBADF);
	EXPECT_FAILS(regcache_put(cache, ticket), EBADF);
	EXPECT_FAILS(regcache_notify(cache, at(1), 1), EBADF);
	EXPECT_FAILS(regcache_flush(cache), EBADF);
	EXPECT_FAILS(regcache_query(cache, &stats), EBADF);
	EXPECT_FAILS(regcache_local_open(cache, &local), EBADF);

	options.monitor = REGCACHE_MONITOR_MANUAL;
	EXPECT_EQ(regcache_monitor_open(&options, &monitor), 0);
	EXPECT_EQ(regcache_monitor_changed(monitor), 0);
	EXPECT_EQ(regcache_monitor_close(monitor), 0);
	EXPECT_EQ(regcache_monitor_changed(monitor), 1);
	EXPECT_FAILS(regcache_monitor_drain(monitor, sink, NULL), EBADF);
	EXPECT_FAILS(regcache_monitor_close(monitor), EBADF);
}

static void failing_callbacks(void)
{
	const int answers[][2] = {
		{ -EFAULT, EFAULT }, { -EINVAL, EINVAL }, { -ENOMEM, ENOMEM },
		{ EACCES, EACCES }, { -100000, EIO }, { -2147483647 - 1, EIO },
	};
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket ticket;

	for (size_t n = 0; n < sizeof(answers) / sizeof(*answers); n++) {
		fake.fail = answers[n][0];
		fake.fail_times = 1;
		EXPECT_FAILS(regcache_get(cache, at(1), 1, 0, &ticket), answers[n][1]);
		EXPECT_EQ(ticket.lease, 0);
	}
	EXPECT_EQ(fake.registered, 0);
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &ticket), 0);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
	fake.busy = 1;
	EXPECT_EQ(regcache_notify(cache, at(1), 1), 0);
	EXPECT_EQ(regcache_drain(cache), 0);
	EXPECT_EQ(regcache_drain(cache), 0);
	EXPECT_EQ(fake.registered, 0);
	/* It is given up by force, with its payload. */
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &ticket), 0);
	fake.busy = 1000;
	EXPECT_EQ(regcache_destroy(cache, REGCACHE_DESTROY_FORCE), 0);
	EXPECT_EQ(fake.registered, 1);
}

static void use_the_cache(struct fake *fake, struct regcache_region *region)
{
	struct regcache_ticket same, other;
	struct regcache_stats stats = REGCACHE_STATS_INIT;

	fake->during = NULL;
	EXPECT_FAILS(regcache_destroy(fake->cache, REGCACHE_DESTROY_FORCE), EDEADLK);
	EXPECT_EQ(regcache_get(fake->cache, region->addr, region->len, 0, &same), 0);
	EXPECT_EQ(regcache_get(fake->cache, at(77), 1, 0, &other), 0);
	EXPECT_EQ(regcache_put(fake->cache, same), 0);
	EXPECT_EQ(regcache_invalidate(fake->cache, region->addr, 1, NULL, NULL), 0);
	EXPECT_EQ(regcache_query(fake->cache, &stats), 0);
	EXPECT_EQ(stats.uncached_reentered, 1);
	EXPECT(regcache_dump(fake->cache, NULL, 0) > 0);
	EXPECT_EQ(regcache_put(fake->cache, other), 0);
	EXPECT_EQ(regcache_flush(fake->cache), 0);
}

static void callbacks_that_use_the_cache(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket ticket;

	fake.during = use_the_cache;
	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &ticket), 0);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	EXPECT_EQ(fake.registered, 0);
}

struct late {
	struct regcache *cache;
	int result;
};

static void destroy_it(void *context)
{
	struct late *late = (struct late *)context;

	late->result = regcache_destroy(late->cache, REGCACHE_DESTROY_FORCE);
}

static void a_completion_that_destroys(void)
{
	struct fake fake = { 0 };
	struct late late = { fake_cache(&fake, 0), 0 };
	struct regcache_ticket ticket;

	EXPECT_EQ(regcache_get(late.cache, at(1), 1, 0, &ticket), 0);
	EXPECT_EQ(regcache_invalidate(late.cache, at(1), 1, destroy_it, &late), 0);
	EXPECT_EQ(regcache_put(late.cache, ticket), 0);
	EXPECT_EQ(late.result, -EDEADLK);
	EXPECT_EQ(regcache_destroy(late.cache, 0), 0);
}

static void a_child_of_fork(void)
{
	struct fake fake = { 0 };
	struct regcache *cache = fake_cache(&fake, 0);
	struct regcache_ticket ticket, another;
	struct regcache_stats stats = REGCACHE_STATS_INIT;
	struct regcache_local *local;
	int status = -1;
	pid_t child;

	EXPECT_EQ(regcache_get(cache, at(1), 1, 0, &ticket), 0);
	fflush(stdout);
	child = fork();
	if (child == 0) {
		EXPECT_FAILS(regcache_get(cache, at(1), 1, 0, &another), EPERM);
		EXPECT_FAILS(regcache_flush(cache), EPERM);
		EXPECT_FAILS(regcache_local_open(cache, &local), EPERM);
		EXPECT_FAILS(regcache_invalidate(cache, at(1), 1, NULL, NULL), EPERM);
		EXPECT_FAILS(regcache_destroy(cache, REGCACHE_DESTROY_FORCE), EPERM);
		EXPECT_EQ(regcache_query(cache, &stats), 0);
		EXPECT_EQ(regcache_put(cache, ticket), 0);
		EXPECT_EQ(fake.registered, 1);
		fflush(stdout);
		_exit(check_failed);
	}
	EXPECT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void no_device_is_an_error(void)
{
	struct fake fake = { 0 };
	struct regcache_callbacks callbacks = good_callbacks(&fake);
	struct regcache_monitor *monitor = NULL;
	struct regcache *cache = NULL;

	if (access("/dev/ummunotify", F_OK) == 0)
		return;
	EXPECT_FAILS(regcache_create(&callbacks, NULL, &cache), ENODEV);
	EXPECT(strstr(regcache_last_error(), "/dev/ummunotify") != NULL);
	EXPECT(cache == NULL);
	EXPECT_FAILS(regcache_monitor_open(NULL, &monitor), ENODEV);
	EXPECT(monitor == NULL);
}

int main(void)
{
	PLAN(11);
	RUN(nothing_has_failed_yet);
	RUN(null_is_einval);
	RUN(sizes_and_unknown_fields);
	RUN(ranges_and_access);
	RUN(forged_tickets);
	RUN(use_after_destroy);
	RUN(failing_callbacks);
	RUN(callbacks_that_use_the_cache);
	RUN(a_completion_that_destroys);
	RUN(a_child_of_fork);
	RUN(no_device_is_an_error);
	DONE();
}
