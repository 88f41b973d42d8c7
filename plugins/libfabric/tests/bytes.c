// SPDX-License-Identifier: MIT OR Apache-2.0
/* libfabric with the plug-in over verbs, judged by the bytes that arrive. */
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "link.h"
#include "memory.h"
#include "tap.h"
#include "ways.h"

enum { PAGE = 4096, LENGTH = 16 * PAGE, TIMES = 5 };

static struct link *link_a, *link_b;

/* How many of some transfers arrive wrong if memory changes before each. */
static int corrupted(const struct way *way)
{
	struct buffer buffer = make_buffer(way, LENGTH);
	int wrong = !link_delivers(link_a, buffer.addr, buffer.len);

	for (int n = 0; n < TIMES; n++) {
		way->change(&buffer);
		wrong += !link_delivers(link_a, buffer.addr, buffer.len);
	}
	return wrong;
}

/* A process that has no plug-in, to see that these ways do corrupt. */
static int without_plugin(void)
{
	int unharmed = 0;

	link_a = link_open();
	for (size_t n = 1; n < way_count; n++) {
		int wrong = corrupted(&ways[n]);

		printf("# without the plug-in, %s: %d of %d corrupted\n", ways[n].name, wrong,
		       TIMES);
		unharmed += !wrong;
	}
	return unharmed;
}

static void stock_corrupts(void)
{
	int status;

	fflush(stdout);
	if (!fork()) {
		setenv("REGCACHE_TEST_STOCK", "1", 1);
		execl("/proc/self/exe", "fi-bytes", NULL);
		_exit(127);
	}
	EXPECT(wait(&status) > 0);
	EXPECT_EQ(status, 0);
}

static void no_way_corrupts(void)
{
	for (size_t n = 0; n < way_count; n++) {
		unsigned long before = link_registered;
		int wrong = corrupted(&ways[n]);
		unsigned long registered = link_registered - before;

		printf("# %s: %d of %d corrupted, %lu registrations\n", ways[n].name, wrong,
		       TIMES, registered);
		EXPECT_EQ(wrong, 0);
		/* One to begin with, and one for each change at least; nothing
		 * that does not change is registered twice. */
		EXPECT(n ? registered > TIMES : registered == 1);
	}
}

static void what_does_not_change_stays(void)
{
	char *memory = map(LENGTH);
	unsigned long before;

	EXPECT(link_delivers(link_a, memory, LENGTH));
	before = link_registered;
	for (int n = 0; n < 100; n++) {
		unmap(map(LENGTH), LENGTH);
		EXPECT(link_delivers(link_a, memory, LENGTH));
	}
	EXPECT_EQ(link_registered, before);
}

static void many_registrations_under_one_munmap(void)
{
	enum { COUNT = 64 };
	char *memory = map(COUNT * LENGTH);
	unsigned long before;

	for (int n = 0; n < COUNT; n++)
		EXPECT(link_delivers(link_a, memory + n * LENGTH, LENGTH));
	remap(memory, COUNT * LENGTH);
	before = link_registered;
	for (int n = COUNT - 1; n >= 0; n--)
		EXPECT(link_delivers(link_a, memory + n * LENGTH, LENGTH));
	EXPECT(link_registered - before >= COUNT);
}

static void a_part_is_unmapped(void)
{
	static const int pages[] = { 0, 7, LENGTH / PAGE - 1 };
	char *memory = map(LENGTH);

	for (int n = 0; n < 3; n++) {
		unsigned long before;

		EXPECT(link_delivers(link_a, memory, LENGTH));
		before = link_registered;
		remap(memory + pages[n] * PAGE, PAGE);
		EXPECT(link_delivers(link_a, memory, LENGTH));
		EXPECT(link_registered > before);
		/* What is left, and what is next to it. */
		EXPECT(link_delivers(link_a, memory + PAGE, LENGTH - 2 * PAGE));
	}
}

/* Each has a registration of the same range, and only one is asked about first. */
static void two_domains_share_a_range(void)
{
	char *memory = map(LENGTH);

	for (int n = 0; n < 10; n++) {
		struct link *first = n & 1 ? link_a : link_b;
		struct link *second = n & 1 ? link_b : link_a;

		EXPECT(link_delivers(first, memory, LENGTH));
		EXPECT(link_delivers(second, memory, LENGTH));
		remap(memory, LENGTH);
		EXPECT(link_delivers(first, memory, LENGTH));
		EXPECT(link_delivers(first, memory, LENGTH));
		EXPECT(link_delivers(second, memory, LENGTH));
	}
}

/* By the next registration, of whatever memory. */
static void what_has_gone_is_deregistered(void)
{
	char *memory = map(LENGTH), *other = map(LENGTH);
	unsigned long before;

	EXPECT(link_delivers(link_a, other, LENGTH));
	EXPECT(link_delivers(link_a, memory, LENGTH));
	before = link_deregistered;
	unmap(memory, LENGTH);
	for (int n = 0; n < 1000 && link_deregistered == before; n++) {
		usleep(1000);
		EXPECT(link_delivers(link_a, other, LENGTH));
	}
	EXPECT(link_deregistered > before);
}

static void *changed_by_another(void *memory)
{
	remap(memory, LENGTH);
	return NULL;
}

static void another_thread_changes_it(void)
{
	char *memory = map(LENGTH);

	for (int n = 0; n < 20; n++) {
		pthread_t thread;

		EXPECT(link_delivers(link_a, memory, LENGTH));
		if (pthread_create(&thread, NULL, changed_by_another, memory))
			err(1, "no thread");
		pthread_join(thread, NULL);
		EXPECT(link_delivers(link_a, memory, LENGTH));
	}
}

static void *send_and_change(void *context)
{
	struct link *link = context;
	char *memory = map(LENGTH);
	unsigned long wrong = 0;

	for (int n = 0; n < 200; n++) {
		if (n % 3 == 0)
			remap(memory + n % 16 * PAGE, PAGE);
		wrong += !link_delivers(link, memory, LENGTH);
	}
	return (void *)wrong;
}

static void two_threads_send(void)
{
	struct link *links[] = { link_a, link_b };
	pthread_t threads[2];

	for (int n = 0; n < 2; n++)
		if (pthread_create(&threads[n], NULL, send_and_change, links[n]))
			err(1, "no thread");
	for (int n = 0; n < 2; n++) {
		void *wrong;

		pthread_join(threads[n], &wrong);
		EXPECT_EQ((size_t)wrong, 0);
	}
}

/* The parent writes to pages that it shares with a child. */
static void a_fork_does_no_harm(void)
{
	char *memory = map(LENGTH);
	char end;

	for (int n = 0; n < 5; n++) {
		int fds[2];

		EXPECT(link_delivers(link_a, memory, LENGTH));
		if (pipe(fds))
			err(1, "pipe");
		if (!fork()) {
			close(fds[1]);
			_exit(read(fds[0], &end, 1) != 0);
		}
		EXPECT(link_delivers(link_a, memory, LENGTH));
		remap(memory, LENGTH);
		EXPECT(link_delivers(link_a, memory, LENGTH));
		close(fds[0]);
		close(fds[1]);
		EXPECT(wait(NULL) > 0);
		EXPECT(link_delivers(link_a, memory, LENGTH));
	}
}

static void domains_come_and_go(void)
{
	char *memory = map(LENGTH);

	for (int n = 0; n < 5; n++) {
		struct link *link = link_open();

		EXPECT(link_delivers(link, memory, LENGTH));
		remap(memory, LENGTH);
		EXPECT(link_delivers(link, memory, LENGTH));
		link_close(link);
	}
}

static void change_once(void *addr, size_t len)
{
	link_after_registering = NULL;
	remap(addr, len);
}

/* A change between registering and subscribing is seen if the range is watched
 * already.  Of a new one it is not, and no plug-in can: that is printed. */
static void the_window(void)
{
	char *memory = map(LENGTH), *fresh = map(LENGTH);

	EXPECT(link_delivers(link_a, memory, LENGTH));
	for (int n = 0; n < 10; n++) {
		remap(memory, LENGTH);
		link_after_registering = change_once;
		link_send(link_a, memory, LENGTH);
		EXPECT(!link_after_registering);
		EXPECT(link_delivers(link_a, memory, LENGTH));
	}
	link_after_registering = change_once;
	link_send(link_a, fresh, LENGTH);
	printf("# of a new range, the window is %s\n",
	       link_delivers(link_a, fresh, LENGTH) ? "closed" : "open");
}

/* With no cache left, and again with one. */
static void all_domains_go(void)
{
	char *memory = map(LENGTH);

	EXPECT(link_delivers(link_a, memory, LENGTH));
	link_close(link_a);
	link_close(link_b);
	remap(memory, LENGTH);
	link_a = link_open();
	EXPECT(link_delivers(link_a, memory, LENGTH));
	remap(memory, LENGTH);
	EXPECT(link_delivers(link_a, memory, LENGTH));
	link_close(link_a);
}

int main(void)
{
	if (getenv("REGCACHE_TEST_STOCK"))
		return without_plugin();
	PLAN(13);
	RUN(stock_corrupts);
	setenv("FI_PROVIDER_PATH", PLUGIN_DIRECTORY, 1);
	link_a = link_open();
	link_b = link_open();
	RUN(no_way_corrupts);
	RUN(what_does_not_change_stays);
	RUN(many_registrations_under_one_munmap);
	RUN(a_part_is_unmapped);
	RUN(two_domains_share_a_range);
	RUN(what_has_gone_is_deregistered);
	RUN(another_thread_changes_it);
	RUN(two_threads_send);
	RUN(a_fork_does_no_harm);
	RUN(the_window);
	RUN(domains_come_and_go);
	RUN(all_domains_go);
	return tap_any_failed;
}
