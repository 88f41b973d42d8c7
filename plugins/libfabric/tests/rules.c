// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the monitor answers, in the order of calls that libfabric makes. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host.h"
#include "memory.h"
#include "tap.h"

enum { PAGE = 4096, LENGTH = 4 * PAGE };

/* Until there is a registration on the range that nothing is in doubt about.
 * With the thread held, it cannot be dropped between the two. */
static bool settles(const void *addr, size_t len)
{
	/* Else this one may have the lock again before the thread is awake. */
	const struct timespec pause = { .tv_nsec = 1000000 };
	bool settled = false;

	for (int n = 0; n < 100 && !settled; n++) {
		host_hold();
		settled = !host_locked_subscribe(addr, len) && host_locked_valid(addr, len);
		host_release();
		nanosleep(&pause, NULL);
	}
	return settled;
}

static void a_change_shows_at_once(void)
{
	char *memory = map(LENGTH);

	host_hold();
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	for (int n = 0; n < 100; n++) {
		/* Others are in doubt, this one is not. */
		EXPECT(host_locked_valid(memory, LENGTH));
		remap(memory, LENGTH);
		EXPECT(!host_locked_valid(memory, LENGTH));
		/* libfabric drops it, and registers anew. */
		EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	}
	host_release();
}

static void a_part_that_goes_is_the_whole(void)
{
	char *memory = map(LENGTH);

	host_hold();
	for (int page = 0; page < LENGTH / PAGE; page++) {
		EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
		EXPECT(host_locked_valid(memory, LENGTH));
		remap(memory + page * PAGE, PAGE);
		EXPECT(!host_locked_valid(memory, LENGTH));
	}
	host_release();
}

static void a_new_registration_hides_no_old_one(void)
{
	char *memory = map(LENGTH);

	EXPECT_EQ(host_subscribe(memory, LENGTH), 0);	/* of a domain */
	EXPECT_EQ(host_subscribe(memory, LENGTH), 0);	/* of another */
	host_hold();
	remap(memory, LENGTH);
	EXPECT(!host_locked_valid(memory, LENGTH));
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	/* Of which of the two is this asked? */
	EXPECT(!host_locked_valid(memory, LENGTH));
	host_release();
	/* Once libfabric has dropped them all, it is as good as new. */
	EXPECT(settles(memory, LENGTH));
}

/* Also of those that valid() was not asked about, and before libfabric is told. */
static void one_answer_tells_of_all(void)
{
	enum { COUNT = 10000 };
	char *memory = map(COUNT * PAGE);
	int valid = 0;

	for (int n = 0; n < COUNT; n++)
		EXPECT_EQ(host_subscribe(memory + n * PAGE, PAGE), 0);
	host_hold();
	for (int n = 0; n < COUNT; n++)
		valid += host_locked_valid(memory + n * PAGE, PAGE);
	EXPECT_EQ(valid, COUNT);
	unmap(memory, COUNT * PAGE);
	valid = 0;
	for (int n = COUNT - 1; n >= 0; n--)
		valid += host_locked_valid(memory + n * PAGE, PAGE);
	EXPECT_EQ(valid, 0);
	host_release();
}

static const void *volatile expected;
static volatile int times_told;

static void look_for_expected(const void *addr, size_t len)
{
	if (addr == expected && len == LENGTH)
		times_told++;
}

static void expect(const void *addr)
{
	pthread_mutex_lock(&host_lock);
	expected = addr;
	times_told = 0;
	host_notified = look_for_expected;
	pthread_mutex_unlock(&host_lock);
}

/* Waits until libfabric was told of what is expected, ten seconds at most. */
static bool is_told(int times)
{
	for (int n = 0; n < 10000 && times_told < times; n++)
		usleep(1000);
	return times_told == times;
}

static void libfabric_is_told_unasked(void)
{
	char *memory = map(LENGTH);

	expect(memory);
	EXPECT_EQ(host_subscribe(memory, LENGTH), 0);
	EXPECT(host_valid(memory, LENGTH));
	unmap(memory, LENGTH);
	EXPECT(is_told(1));
}

/* The plug-in knows, and libfabric does not yet. */
static void until_it_is_told_it_is_invalid(void)
{
	char *memory = host_hold();

	EXPECT(!host_locked_valid(memory, PAGE));
	EXPECT_EQ(host_locked_subscribe(memory, PAGE), 0);
	EXPECT(!host_locked_valid(memory, PAGE));
	host_release();
}

static void subscribe_once(const void *addr, size_t len)
{
	if (addr != expected)
		return;
	host_told = NULL;
	EXPECT_EQ(host_subscribe(addr, len), 0);
}

/* libfabric has dropped what it had, and has something new before the plug-in
 * sees that: it may be pinned before the change. */
static void what_comes_meanwhile_is_told_again(void)
{
	char *memory = map(LENGTH);

	expect(memory);
	host_told = subscribe_once;
	EXPECT_EQ(host_subscribe(memory, LENGTH), 0);
	remap(memory, LENGTH);
	EXPECT(is_told(2));
	EXPECT(settles(memory, LENGTH));
}

/* Pinned before a change, subscribed after it: found if the range was known. */
static void a_change_before_subscribing_shows(void)
{
	char *memory = map(LENGTH);

	/* libfabric was told of a change, and has no registration left. */
	expect(memory);
	EXPECT_EQ(host_subscribe(memory, LENGTH), 0);
	remap(memory, LENGTH);
	EXPECT(is_told(1));
	host_hold();
	/* Here it pins. */
	remap(memory, LENGTH);
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	EXPECT(!host_locked_valid(memory, LENGTH));
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	EXPECT(host_locked_valid(memory, LENGTH));
	/* It learnt of the first change by asking. */
	remap(memory, LENGTH);
	EXPECT(!host_locked_valid(memory, LENGTH));
	remap(memory, LENGTH);
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	EXPECT(!host_locked_valid(memory, LENGTH));
	host_release();
}

static void unsubscribing_is_counted(void)
{
	char *memory = map(LENGTH);

	host_hold();
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	host_locked_unsubscribe(memory, LENGTH);	/* evicted */
	EXPECT(host_locked_valid(memory, LENGTH));
	remap(memory, LENGTH);
	/* Two are left.  Each is refused, and dropped. */
	EXPECT(!host_locked_valid(memory, LENGTH));
	host_locked_unsubscribe(memory, LENGTH);
	EXPECT(!host_locked_valid(memory, LENGTH));
	host_locked_unsubscribe(memory, LENGTH);
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	EXPECT(host_locked_valid(memory, LENGTH));
	/* What was refused, and then unsubscribed, was counted once. */
	EXPECT_EQ(host_locked_subscribe(memory, LENGTH), 0);
	remap(memory, LENGTH);
	EXPECT(!host_locked_valid(memory, LENGTH));
	EXPECT(!host_locked_valid(memory, LENGTH));
	host_release();
}

static void nonsense_is_refused(void)
{
	char *memory = map(LENGTH);

	EXPECT(host_subscribe(memory, 0) < 0);
	EXPECT(host_subscribe((void *)~0UL, LENGTH) < 0);
	host_hold();
	host_locked_unsubscribe(memory, LENGTH);	/* never subscribed */
	EXPECT(!host_locked_valid(memory, LENGTH));
	host_release();
}

static long resident_kib(void)
{
	long pages = 0, unused;
	FILE *file = fopen("/proc/self/statm", "r");

	if (!file || fscanf(file, "%ld %ld", &unused, &pages) != 2)
		err(1, "/proc/self/statm");
	fclose(file);
	return pages * 4;
}

static void as_many_changes_as_you_like(void)
{
	char *memory = map(PAGE);
	long before = 0;
	int stale = 0;

	host_hold();
	for (int n = 0; n < 100000; n++) {
		if (n == 1000)
			before = resident_kib();
		EXPECT_EQ(host_locked_subscribe(memory, PAGE), 0);
		remap(memory, PAGE);
		stale += !host_locked_valid(memory, PAGE);
	}
	host_release();
	EXPECT_EQ(stale, 100000);
	EXPECT(resident_kib() - before < 1024);
}

/* No range is ever unsubscribed, and none changes. */
static void as_many_ranges_as_you_like(void)
{
	enum { COUNT = 100000 };
	char *memory = map(COUNT + PAGE);
	long before = resident_kib();
	int refused = 0;

	for (int n = 0; n < COUNT; n++)
		refused += !!host_subscribe(memory + n, PAGE);
	printf("# %d of %d ranges were not watched; %ld KiB\n", refused, COUNT,
	       resident_kib() - before);
	/* Twice 16384, of less than 200 bytes. */
	EXPECT(resident_kib() - before < 10000);
	/* And it goes on, as soon as the oldest have been given up. */
	for (int n = 0; n < 10000 && host_subscribe(memory, LENGTH); n++)
		usleep(1000);
	EXPECT(settles(memory, LENGTH));
	host_hold();
	remap(memory, LENGTH);
	EXPECT(!host_locked_valid(memory, LENGTH));
	host_release();
}

static void dawdle(const void *addr, size_t len)
{
	(void)addr, (void)len;
	usleep(500);
}

/* A child knows nothing of its parent's memory, and of its own what it asks. */
static void a_child_begins_anew(void)
{
	char *memory = map(LENGTH);
	int status;

	EXPECT_EQ(host_subscribe(memory, LENGTH), 0);
	EXPECT(host_valid(memory, LENGTH));
	fflush(stdout);
	if (!fork()) {
		int bad = 0;

		alarm(60);
		bad |= host_valid(memory, LENGTH) << 0;
		bad |= (host_subscribe(memory, LENGTH) != -EPERM) << 1;
		bad |= !!host_start() << 2;
		bad |= !!host_subscribe(memory, LENGTH) << 3;
		bad |= !host_valid(memory, LENGTH) << 4;
		host_hold();
		remap(memory, LENGTH);
		bad |= host_locked_valid(memory, LENGTH) << 5;
		_exit(bad);
	}
	EXPECT(wait(&status) > 0);
	EXPECT_EQ(status, 0);
	EXPECT(host_valid(memory, LENGTH));
}

/* While libfabric is told, and its lock is held, nobody forks. */
static void a_child_finds_no_lock_held(void)
{
	char *memory = map(LENGTH);
	int hung = 0;

	host_notified = dawdle;
	for (int n = 0; n < 100 && !hung; n++) {
		int status;

		EXPECT_EQ(host_subscribe(memory, LENGTH), 0);
		remap(memory, LENGTH);
		usleep(n * 10);
		if (!fork()) {
			alarm(5);
			pthread_mutex_lock(&host_lock);
			_exit(0);
		}
		EXPECT(wait(&status) > 0);
		hung += status != 0;
	}
	host_notified = NULL;
	EXPECT_EQ(hung, 0);
}

static void it_stops_and_starts_again(void)
{
	char *memory = map(LENGTH);

	/* Without caches there is nothing to tell. */
	expect(memory);
	EXPECT_EQ(host_subscribe(memory, LENGTH), 0);
	host_stop();
	remap(memory, LENGTH);
	usleep(50000);
	EXPECT_EQ(times_told, 0);
	EXPECT_EQ(host_start(), 0);
	for (int n = 0; n < 100; n++) {
		EXPECT_EQ(host_subscribe(memory, LENGTH), 0);
		if (n & 1)
			remap(memory, LENGTH);
		host_stop();
		EXPECT_EQ(host_start(), 0);
		EXPECT(settles(memory, LENGTH));
		pthread_mutex_lock(&host_lock);
		remap(memory, LENGTH);
		EXPECT(!host_locked_valid(memory, LENGTH));
		pthread_mutex_unlock(&host_lock);
	}
}

/* The number of the only eventfd of this program, or -1. */
static int find_eventfd(void)
{
	char link[64], target[64];

	for (int fd = 3; fd < 256; fd++) {
		ssize_t len;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		len = readlink(link, target, sizeof(target));
		if (len == 20 && !strncmp(target, "anon_inode:[eventfd]", 20))
			return fd;
	}
	return -1;
}

/* Other code closes what wakes the thread, and its own eventfd has the number.
 * From here on the thread looks by itself. */
static void a_number_that_was_lost_is_left_alone(void)
{
	const uint64_t count = 7;
	uint64_t left = 0;
	int fd = find_eventfd(), other = eventfd(count, EFD_CLOEXEC);
	struct timespec before, after;
	char *memory = map(10 * LENGTH), *another = map(LENGTH);

	EXPECT_EQ(host_subscribe(another, LENGTH), 0);
	EXPECT(fd >= 0);
	if (fd < 0)
		return;
	EXPECT_EQ(dup2(other, fd), fd);
	for (int n = 0; n < 10; n++, memory += LENGTH) {
		expect(memory);
		EXPECT_EQ(host_subscribe(memory, LENGTH), 0);
		EXPECT(host_valid(memory, LENGTH));
		unmap(memory, LENGTH);
		/* This takes the news, which the thread must learn of. */
		EXPECT(host_valid(another, LENGTH));
		EXPECT(is_told(1));
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	usleep(500000);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	EXPECT((after.tv_sec - before.tv_sec) * 1000 +
	       (after.tv_nsec - before.tv_nsec) / 1000000 < 250);
	EXPECT_EQ(read(other, &left, sizeof(left)), sizeof(left));
	EXPECT_EQ(left, count);
}

int main(void)
{
	PLAN(16);
	host_load();
	RUN(a_change_shows_at_once);
	RUN(a_part_that_goes_is_the_whole);
	RUN(a_new_registration_hides_no_old_one);
	RUN(one_answer_tells_of_all);
	RUN(libfabric_is_told_unasked);
	RUN(until_it_is_told_it_is_invalid);
	RUN(what_comes_meanwhile_is_told_again);
	RUN(a_change_before_subscribing_shows);
	RUN(unsubscribing_is_counted);
	RUN(nonsense_is_refused);
	RUN(a_child_begins_anew);
	RUN(a_child_finds_no_lock_held);
	RUN(it_stops_and_starts_again);
	RUN(a_number_that_was_lost_is_left_alone);
	RUN(as_many_changes_as_you_like);
	RUN(as_many_ranges_as_you_like);
	return tap_any_failed;
}
