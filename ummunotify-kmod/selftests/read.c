// SPDX-License-Identifier: GPL-2.0
/* read(): what it returns, and what it keeps. */
#include "reading.h"

TEST(nothing_to_read_is_eagain)
{
	struct ummunotify_event ev;
	struct dev d;
	char *p;

	ASSERT(dev_open(&d));
	EXPECT_EQ(read_events(d.fd, &ev, 1), -EAGAIN);
	p = area(1);
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	EXPECT_EQ(read_events(d.fd, &ev, 1), -EAGAIN);
	EXPECT_EQ(poll_now(d.fd), 0);
	hit(p);
	EXPECT_ONLY(&d, COOKIE);
	EXPECT_EQ(read_events(d.fd, &ev, 1), -EAGAIN);
}

/* And the event is still there afterwards. */
TEST(short_buffers_are_einval)
{
	struct ummunotify_event ev;
	struct dev d;
	char *p;
	size_t n;

	ASSERT(scene_init(&d, &p, 1));
	hit(p);
	for (n = 1; n < sizeof(ev); n++)
		EXPECT_EQ(ret_errno(read(d.fd, &ev, n)), -EINVAL);
	EXPECT_ONLY_HINT(&d, 0, p, p + PAGE);
}

TEST(zero_length_reads_return_zero)
{
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p, 1));
	EXPECT_EQ(read(d.fd, NULL, 0), 0);
	hit(p);
	EXPECT_EQ(read(d.fd, NULL, 0), 0);
	EXPECT_ONLY_HINT(&d, 0, p, p + PAGE);
}

TEST(reads_return_whole_events)
{
	struct ummunotify_event ev[3];
	char *p[3];
	struct dev d;

	ASSERT(scene_init(&d, p, 3));
	hit(p[0]);
	hit(p[1]);
	hit(p[2]);
	memset(ev, 0xee, sizeof(ev));
	EXPECT_EQ(read(d.fd, ev, 2 * sizeof(*ev) - 1), sizeof(*ev));
	EXPECT_HINT(ev[0], 0, p[0], p[0] + PAGE);
	EXPECT_EQ(ev[1].type, 0xeeeeeeee);
	EXPECT_EQ(read(d.fd, ev, 2 * sizeof(*ev) + 1), 2 * sizeof(*ev));
	EXPECT_INVAL(ev[0], 1);
	EXPECT_INVAL(ev[1], 2);
	EXPECT_EQ(read_events(d.fd, ev, 1), 1);
	EXPECT_LAST(ev[0], 3);
}

/* Open MPI reads 4096 bytes at a time and copes with no more. */
TEST(reads_return_4096_bytes_at_most)
{
	static struct ummunotify_event ev[3 * READ_MAX];
	static char *p[300];
	struct dev d;
	unsigned int i;
	long n, total = 0;

	ASSERT(scene_init(&d, p, ARRAY_LEN(p)));
	for (i = 0; i < ARRAY_LEN(p); i++)
		hit(p[i]);
	for (i = 0; i < 2; i++) {
		n = read_events(d.fd, ev + total, ARRAY_LEN(ev) - total);
		EXPECT_EQ(n, READ_MAX);
		total += n;
	}
	n = read_events(d.fd, ev + total, ARRAY_LEN(ev) - total);
	EXPECT_EQ(n, ARRAY_LEN(p) - 2 * READ_MAX + 1);
	/* First in, first out. */
	for (i = 0; i < ARRAY_LEN(p); i++)
		EXPECT_HINT(ev[i], i, p[i], p[i] + PAGE);
	EXPECT_LAST(ev[i], ARRAY_LEN(p));
}

/* A full read leaves no room for LAST: it comes alone. */
TEST(last_follows_a_full_read)
{
	struct ummunotify_event ev[READ_MAX];
	static char *p[READ_MAX];
	struct dev d;
	unsigned int i;

	ASSERT(scene_init(&d, p, ARRAY_LEN(p)));
	for (i = 0; i < ARRAY_LEN(p); i++)
		hit(p[i]);
	EXPECT_EQ(read_events(d.fd, ev, READ_MAX), READ_MAX);
	EXPECT_INVAL(ev[READ_MAX - 1], READ_MAX - 1);
	EXPECT(poll_now(d.fd) & POLLIN);
	EXPECT_EQ(read_events(d.fd, ev, READ_MAX), 1);
	EXPECT_LAST(ev[0], *d.gen);
	EXPECT_QUIET(&d);
}

/* LAST says that the list was empty: an event in between puts it off. */
TEST(an_event_before_last_comes_first)
{
	struct ummunotify_event ev[2];
	char *p[2];
	struct dev d;

	ASSERT(scene_init(&d, p, 2));
	hit(p[0]);
	EXPECT_EQ(read_events(d.fd, ev, 1), 1);
	EXPECT_INVAL(ev[0], 0);
	hit(p[1]);
	EXPECT_EQ(read_events(d.fd, ev, 2), 2);
	EXPECT_INVAL(ev[0], 1);
	EXPECT_LAST(ev[1], 2);
	EXPECT_QUIET(&d);
}

/* From the second event on there is no hint: also from the third. */
TEST(hints_tell_of_single_events_only)
{
	struct ummunotify_event ev[2];
	struct dev d;
	char *p = area(8);
	int times, i;

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p + 1, 8 * PAGE - 2, COOKIE), 0);
	for (times = 1; times <= 6; times++) {
		for (i = 0; i < times; i++)
			hit(p + i * PAGE);
		EXPECT_EQ(read_events(d.fd, ev, 2), 2);
		if (times == 1)
			EXPECT_HINT(ev[0], COOKIE, p + 1, p + PAGE);
		else
			EXPECT_NO_HINT(ev[0], COOKIE, p + 1, p + 8 * PAGE - 1);
		EXPECT_LAST(ev[1], *d.gen);
	}
}

TEST(a_reported_region_is_armed_again)
{
	struct dev d;
	char *p = area(8);
	int i;

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, 8 * PAGE, COOKIE), 0);
	for (i = 0; i < 8; i++) {
		hit(p + i * PAGE);
		EXPECT_EQ(*d.gen, i + 1);
		EXPECT_ONLY_HINT(&d, COOKIE, p + i * PAGE, p + (i + 1) * PAGE);
		EXPECT_QUIET(&d);
	}
}

TEST(efault_loses_nothing)
{
	struct ummunotify_event ev[4], *edge;
	char *p[3], *buf = area(1);
	struct dev d;

	ASSERT(scene_init(&d, p, 3));
	hit(p[0]);
	hit(p[1]);
	hit(p[1]);
	hit(p[2]);

	/* Room for one event, the rest in the gap behind the area. */
	edge = (void *)(buf + PAGE - sizeof(*edge));
	EXPECT_EQ(read_events(d.fd, edge, 4), -EFAULT);
	EXPECT_EQ(read_events(d.fd, (void *)(buf + PAGE), 1), -EFAULT);
	EXPECT_EQ(read_events(d.fd, nowhere, 4), -EFAULT);
	EXPECT(poll_now(d.fd) & POLLIN);

	EXPECT_EQ(read_events(d.fd, ev, 4), 4);
	EXPECT_HINT(ev[0], 0, p[0], p[0] + PAGE);
	EXPECT_NO_HINT(ev[1], 1, p[1], p[1] + PAGE);
	EXPECT_HINT(ev[2], 2, p[2], p[2] + PAGE);
	EXPECT_LAST(ev[3], 4);
	EXPECT_QUIET(&d);
}

TEST(efault_loses_no_last)
{
	struct ummunotify_event ev;
	struct dev d;
	char *p;

	ASSERT(scene_init(&d, &p, 1));
	hit(p);
	EXPECT_EQ(read_events(d.fd, &ev, 1), 1);
	EXPECT_EQ(read_events(d.fd, nowhere, 1), -EFAULT);
	EXPECT(poll_now(d.fd) & POLLIN);
	EXPECT_EQ(read_events(d.fd, &ev, 1), 1);
	EXPECT_LAST(ev, 1);
}

/* A region that was hit, lost to EFAULT, and hit again has no hint. */
TEST(efault_then_another_hit)
{
	struct ummunotify_event ev[2];
	struct dev d;
	char *p = area(2);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, 2 * PAGE, COOKIE), 0);
	hit(p);
	EXPECT_EQ(read_events(d.fd, nowhere, 2), -EFAULT);
	hit(p + PAGE);
	EXPECT_EQ(read_events(d.fd, ev, 2), 2);
	EXPECT_NO_HINT(ev[0], COOKIE, p, p + 2 * PAGE);
	EXPECT_LAST(ev[1], *d.gen);
}

/* Portals4 spins until LAST brings the counter that it sees mapped. */
TEST(unregister_of_an_invalid_region_leaves_last)
{
	struct ummunotify_event ev[2];
	char *p[2];
	struct dev d;

	ASSERT(scene_init(&d, p, 2));
	hit(p[0]);
	EXPECT_EQ(unwatch(d.fd, 0), 0);
	EXPECT(poll_now(d.fd) & POLLIN);
	EXPECT_EQ(read_events(d.fd, ev, 2), 1);
	EXPECT_LAST(ev[0], 1);
	EXPECT_QUIET(&d);

	/* The others' events stay. */
	ASSERT_EQ(watch(d.fd, p[0], PAGE, 0), 0);
	hit(p[0]);
	hit(p[1]);
	EXPECT_EQ(unwatch(d.fd, 0), 0);
	EXPECT_ONLY_HINT(&d, 1, p[1], p[1] + PAGE);
}

/* Copying to watched memory raises events from within read(). */
TEST(a_buffer_in_watched_memory)
{
	char *p = area(1), *buf;
	struct ummunotify_event *ev;
	struct dev d;

	buf = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT(buf != MAP_FAILED);
	/* The zero page, which the first write replaces. */
	EXPECT_EQ(*(volatile char *)buf, 0);
	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, PAGE, 1), 0);
	ASSERT_EQ(watch(d.fd, buf, PAGE, 2), 0);
	hit(p);
	ev = (void *)buf;
	ASSERT_GT(read_events(d.fd, ev, READ_MAX), 0);
	EXPECT_HINT(ev[0], 1, p, p + PAGE);
	while (read_events(d.fd, ev, READ_MAX) > 0)
		;
	EXPECT_EQ(poll_now(d.fd), 0);
}
