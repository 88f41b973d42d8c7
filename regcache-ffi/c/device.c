/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* With the kernel's monitor and an RDMA device: judged by the bytes that arrive. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loopback.h"

/* Sends what is in one buffer to the other, and says whether it is there then. */
static bool delivers(struct regcache *cache, char *from, char *to)
{
	static unsigned char number;
	struct regcache_ticket source, sink;
	bool sent;

	memset(from, ++number, LENGTH);
	memset(to, 0, LENGTH);
	EXPECT_EQ(regcache_get(cache, from, LENGTH, 0, &source), 0);
	EXPECT_EQ(regcache_get(cache, to, LENGTH, IBV_ACCESS_LOCAL_WRITE, &sink), 0);
	if (!source.lease || !sink.lease)
		return false;
	EXPECT_EQ(((struct ibv_mr *)sink.region->mr)->lkey, sink.region->lkey);
	sent = send_to_self(from, source.region->lkey, to, sink.region->lkey);
	EXPECT_EQ(regcache_put(cache, source), 0);
	EXPECT_EQ(regcache_put(cache, sink), 0);
	return sent && memcmp(from, to, LENGTH) == 0;
}

/* The judge itself: without news a second message goes astray. */
static void a_cache_that_nobody_tells_is_found_out(void)
{
	struct regcache_options options = REGCACHE_OPTIONS_INIT;
	struct regcache *cache = NULL;
	char *from = map_at(NULL), *to = map_at(NULL);

	options.monitor = REGCACHE_MONITOR_MANUAL;
	EXPECT_EQ(regcache_create_verbs(pd, &options, &cache), 0);
	EXPECT(delivers(cache, from, to));
	remap(to);
	EXPECT(!delivers(cache, from, to));
	EXPECT_EQ(regcache_notify(cache, to, LENGTH), 0);
	EXPECT(delivers(cache, from, to));
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void messages_arrive_whatever_is_mapped(void)
{
	struct regcache_stats stats = REGCACHE_STATS_INIT;
	struct regcache *cache = NULL;
	char *from = map_at(NULL), *to = map_at(NULL);

	EXPECT_EQ(regcache_create_verbs(pd, NULL, &cache), 0);
	for (int n = 0; n < 20; n++) {
		EXPECT(delivers(cache, from, to));
		EXPECT(delivers(cache, from, to));
		remap(n % 2 ? from : to);
	}
	EXPECT_EQ(regcache_query(cache, &stats), 0);
	EXPECT(stats.hits >= 20);
	EXPECT(stats.stale >= 19);
	EXPECT_EQ(regcache_notify(cache, to, LENGTH), 0);
	/* The reaper may be deregistering one. */
	for (int n = 0; n < 1000 && regcache_revoke(cache, from, LENGTH) == 1; n++)
		usleep(10000);
	EXPECT_EQ(regcache_revoke(cache, from, LENGTH), 0);
	EXPECT_EQ(regcache_query(cache, &stats), 0);
	EXPECT_EQ(stats.regions, 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static int entered;

static int slow_dereg(void *context, struct regcache_region *region)
{
	__atomic_store_n(&entered, 1, __ATOMIC_RELEASE);
	usleep(300000);
	return fake_dereg(context, region);
}

/* What the reaper is about is not "in use". */
static void destroy_waits_for_the_reaper(void)
{
	struct regcache_callbacks callbacks = REGCACHE_CALLBACKS_INIT;
	struct regcache_options options = REGCACHE_OPTIONS_INIT;
	struct regcache_ticket ticket;
	struct regcache *cache = NULL;
	struct fake fake = { 0 };
	char *memory = map_at(NULL);

	callbacks.mem_reg = fake_reg;
	callbacks.mem_dereg = slow_dereg;
	callbacks.context = &fake;
	options.flags = REGCACHE_NO_VERIFY | REGCACHE_REAPER;
	EXPECT_EQ(regcache_create(&callbacks, &options, &cache), 0);
	EXPECT_EQ(regcache_get(cache, memory, LENGTH, 1, &ticket), 0);
	/* Refused, the cache goes on, and reaps. */
	EXPECT_EQ(regcache_destroy(cache, 0), -EBUSY);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
	fake.busy = 100;
	EXPECT_EQ(regcache_destroy(cache, 0), -EBUSY);
	fake.busy = 0;
	EXPECT_EQ(regcache_flush(cache), 0);
	EXPECT_EQ(fake.registered, 0);
	EXPECT_EQ(regcache_get(cache, memory, LENGTH, 1, &ticket), 0);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
	__atomic_store_n(&entered, 0, __ATOMIC_RELEASE);
	remap(memory);
	for (int n = 0; n < 1000 && !__atomic_load_n(&entered, __ATOMIC_ACQUIRE); n++)
		usleep(10000);
	EXPECT(__atomic_load_n(&entered, __ATOMIC_ACQUIRE));
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
	EXPECT_EQ(fake.registered, 0);
}

static void complete(void *context)
{
	++*(int *)context;
}

static void callbacks_are_told_by_the_kernel(void)
{
	struct regcache_callbacks callbacks = REGCACHE_CALLBACKS_INIT;
	struct regcache_options options = REGCACHE_OPTIONS_INIT;
	struct regcache_ticket one, two;
	struct fake fake = { 0 };
	struct regcache *cache = NULL;
	char *memory = map_at(NULL);
	struct pollfd news;
	int done = 0;

	callbacks.mem_reg = fake_reg;
	callbacks.mem_dereg = fake_dereg;
	callbacks.context = &fake;
	/* The fake does not pin. */
	options.flags = REGCACHE_NO_VERIFY;
	EXPECT_EQ(regcache_create(&callbacks, &options, &cache), 0);
	EXPECT_EQ(regcache_get(cache, memory, LENGTH, 1, &one), 0);
	remap(memory);
	news.fd = regcache_fd(cache);
	news.events = POLLIN;
	EXPECT_EQ(poll(&news, 1, 1000), 1);
	EXPECT_EQ(regcache_get(cache, memory, LENGTH, 1, &two), 0);
	EXPECT(one.region != two.region);
	EXPECT_EQ(regcache_put(cache, one), 0);
	EXPECT_EQ(fake.registered, 1);
	EXPECT_EQ(regcache_invalidate(cache, memory, 1, complete, &done), 0);
	EXPECT_EQ(done, 0);
	EXPECT_EQ(regcache_put(cache, two), 0);
	EXPECT_EQ(done, 1);
	EXPECT_EQ(fake.registered, 0);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

/* With no lookup after the memory is gone; within ten seconds, if it is reaped. */
static void unmapped_with(uint32_t flags, uint64_t deregistered)
{
	struct regcache_options options = REGCACHE_OPTIONS_INIT;
	struct regcache_stats stats = REGCACHE_STATS_INIT;
	struct regcache_ticket ticket;
	struct regcache *cache = NULL;
	char *memory = map_at(NULL);

	options.flags = flags;
	EXPECT_EQ(regcache_create_verbs(pd, &options, &cache), 0);
	EXPECT_EQ(regcache_get(cache, memory, LENGTH, 1, &ticket), 0);
	EXPECT_EQ(regcache_put(cache, ticket), 0);
	EXPECT_EQ(syscall(SYS_munmap, memory, LENGTH), 0);
	for (int n = 0; n < (deregistered ? 1000 : 20) && stats.deregistrations == 0; n++) {
		usleep(10000);
		EXPECT_EQ(regcache_query(cache, &stats), 0);
	}
	EXPECT_EQ(stats.deregistrations, deregistered);
	EXPECT_EQ(regcache_destroy(cache, 0), 0);
}

static void the_reaper_gives_memory_back(void)
{
	unmapped_with(0, 1);
	unmapped_with(REGCACHE_REAPER, 1);
	unmapped_with(REGCACHE_NO_REAPER, 0);
}

/*
 * As libfabric asks its memory monitor: subscribe and unsubscribe count, since
 * several domains subscribe one range, and valid() is asked at every hit.
 */
struct entry {
	const void *addr;
	size_t len;
	int count;
	bool valid;
};
static struct entry entries[8];
static struct regcache_monitor *monitor;

static void forget(void *context, const struct regcache_event *event)
{
	(void)context;
	for (size_t n = 0; n < 8; n++) {
		struct entry *entry = &entries[n];
		bool overlaps = (uintptr_t)entry->addr < (uintptr_t)event->addr + event->len &&
				(uintptr_t)event->addr < (uintptr_t)entry->addr + entry->len;

		if ((event->type == REGCACHE_EVENT_WATCH && event->cookie == n) ||
		    (event->type == REGCACHE_EVENT_RANGE && overlaps) ||
		    event->type == REGCACHE_EVENT_ALL)
			entry->valid = false;
	}
}

static int subscribe(size_t n, const void *addr, size_t len)
{
	struct entry *entry = &entries[n];

	if (entry->count++)
		return 0;
	entry->addr = addr;
	entry->len = len;
	entry->valid = true;
	return regcache_monitor_watch(monitor, addr, len, n, 0);
}

static void unsubscribe(size_t n)
{
	if (--entries[n].count == 0)
		EXPECT_EQ(regcache_monitor_unwatch(monitor, n), 0);
}

static bool valid(size_t n)
{
	if (regcache_monitor_changed(monitor) && regcache_monitor_drain(monitor, forget, NULL) < 0)
		return false;
	return entries[n].valid;
}

static void the_monitor_serves_another_cache(void)
{
	char *one = map_at(NULL), *two = map_at(NULL), *other = map_at(NULL);
	int status = -1;
	pid_t child;

	EXPECT_EQ(regcache_monitor_open(NULL, &monitor), 0);
	EXPECT(regcache_monitor_fd(monitor) >= 0);
	EXPECT_EQ(subscribe(1, one, LENGTH), 0);
	EXPECT_EQ(subscribe(2, two, LENGTH), 0);
	EXPECT_EQ(subscribe(2, two, LENGTH), 0);
	EXPECT_FAILS(regcache_monitor_watch(monitor, other, 1, 2, 0), EEXIST);
	EXPECT_FAILS(regcache_monitor_unwatch(monitor, 77), ENOENT);
	EXPECT(valid(1) && valid(2));
	remap(other);
	EXPECT_EQ(regcache_monitor_changed(monitor), 0);
	remap(one);
	EXPECT_EQ(regcache_monitor_changed(monitor), 1);
	EXPECT(!valid(1) && valid(2));
	EXPECT_EQ(regcache_monitor_changed(monitor), 0);
	EXPECT_EQ(regcache_monitor_notify(monitor, two + 100, 1), 0);
	EXPECT(!valid(2));
	entries[2].valid = true;
	fflush(stdout);
	child = fork();
	if (child == 0) {
		EXPECT_EQ(regcache_monitor_changed(monitor), 1);
		EXPECT(!valid(2));
		fflush(stdout);
		_exit(check_failed);
	}
	EXPECT_EQ(waitpid(child, &status, 0), child);
	EXPECT_EQ(status, 0);
	/* A fork is no news of memory that is pinned. */
	EXPECT(valid(2));
	unsubscribe(2);
	EXPECT_EQ(syscall(SYS_madvise, two, LENGTH, MADV_DONTNEED), 0);
	EXPECT(!valid(2));
	unsubscribe(2);
	unsubscribe(1);
	EXPECT_EQ(regcache_monitor_close(monitor), 0);
}

/* Other code closes the device, and its next file has the number: a socket on
 * which nothing arrives, whose read says "nothing" as the device's does. */
static void a_number_that_is_another_files_is_not_believed(void)
{
	char *memory = map_at(NULL);
	int quiet = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), number;

	EXPECT(quiet >= 0);
	EXPECT_EQ(regcache_monitor_open(NULL, &monitor), 0);
	EXPECT_EQ(subscribe(1, memory, LENGTH), 0);
	number = regcache_monitor_fd(monitor);
	EXPECT_EQ(dup2(quiet, number), number);
	EXPECT(valid(1));
	remap(memory);
	EXPECT(!valid(1));
	EXPECT_FAILS(regcache_monitor_watch(monitor, memory, LENGTH, 2, 0), EBADF);
	EXPECT(strstr(regcache_last_error(), "closed") != NULL);
	EXPECT_EQ(regcache_monitor_close(monitor), 0);
	EXPECT(fcntl(number, F_GETFD) >= 0);
	close(number);
	close(quiet);
}

int main(void)
{
	PLAN(6);
	if (!open_device()) {
		printf("Bail out! no RDMA device that works\n");
		return 1;
	}
	RUN(a_cache_that_nobody_tells_is_found_out);
	RUN(messages_arrive_whatever_is_mapped);
	RUN(callbacks_are_told_by_the_kernel);
	RUN(the_reaper_gives_memory_back);
	RUN(destroy_waits_for_the_reaper);
	RUN(the_monitor_serves_another_cache);
	RUN(a_number_that_is_another_files_is_not_believed);
	DONE();
}
