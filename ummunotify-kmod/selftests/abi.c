// SPDX-License-Identifier: GPL-2.0
/* open() and the ioctls: what they accept, what they refuse, and how. */
#include "util.h"

#define COOKIE 0x5eedULL

/* The numbers and layouts of 2009, spelled out. */
_Static_assert(UMMUNOTIFY_EXCHANGE_FEATURES == 0xc0045501, "ioctl 1");
_Static_assert(UMMUNOTIFY_REGISTER_REGION == 0x40205502, "ioctl 2");
_Static_assert(UMMUNOTIFY_UNREGISTER_REGION == 0x40085503, "ioctl 3");
_Static_assert(sizeof(struct ummunotify_register_ioctl) == 32, "register");
_Static_assert(sizeof(struct ummunotify_event) == 32, "event");

TEST(open_for_writing_is_refused)
{
	int fd = open(DEVICE, O_RDONLY);

	EXPECT_GE(fd, 0);
	EXPECT_EQ(ret_errno(open(DEVICE, O_RDWR)), -EINVAL);
	EXPECT_EQ(ret_errno(open(DEVICE, O_WRONLY)), -EINVAL);
}

TEST(exchange_answers_zero_to_any_mask)
{
	static const __u32 masks[] = { 0, 1, 0x80000000, 0xdeadbeef, ~0u };
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(masks); i++) {
		__u32 mask = masks[i];
		struct dev d;

		ASSERT(dev_open(&d));
		EXPECT_EQ(exchange(d.fd, &mask), 0);
		EXPECT_EQ(mask, 0);
		close(d.fd);
	}
}

TEST(exchange_is_refused_once_the_file_was_used)
{
	struct ummunotify_event ev;
	__u32 mask = 0;
	struct dev d;
	char *p = area(1);

	ASSERT(dev_open(&d));
	EXPECT_EQ(exchange(d.fd, &mask), 0);
	EXPECT_EQ(exchange(d.fd, &mask), -EINVAL);

	ASSERT(dev_open(&d));
	EXPECT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	EXPECT_EQ(exchange(d.fd, &mask), -EINVAL);

	ASSERT(dev_open(&d));
	EXPECT_EQ(read_events(d.fd, &ev, 1), -EAGAIN);
	EXPECT_EQ(exchange(d.fd, &mask), -EINVAL);
}

TEST(exchange_with_a_bad_pointer_changes_nothing)
{
	__u32 mask = 5;
	struct dev d;

	ASSERT(dev_open(&d));
	EXPECT_EQ(exchange(d.fd, NULL), -EFAULT);
	EXPECT_EQ(exchange(d.fd, &mask), 0);
}

TEST(register_refuses_a_cookie_in_use)
{
	struct dev d;
	char *p = area(1), *q = area(1);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	EXPECT_EQ(watch(d.fd, p, PAGE, COOKIE), -EINVAL);
	EXPECT_EQ(watch(d.fd, q, PAGE, COOKIE), -EINVAL);

	/* The second range is not watched, the first still is. */
	munmap(q, PAGE);
	EXPECT_QUIET(&d);
	munmap(p, PAGE);
	EXPECT_ONLY_HINT(&d, COOKIE, p, p + PAGE);

	/* Nor is the cookie free after its event. */
	EXPECT_EQ(watch(d.fd, q, PAGE, COOKIE), -EINVAL);
}

TEST(register_refuses_an_end_below_the_start)
{
	struct dev d;
	char *p = area(2);

	ASSERT(dev_open(&d));
	EXPECT_EQ(watch_range(d.fd, addr(p) + 1, addr(p), COOKIE), -EINVAL);
	EXPECT_EQ(watch_range(d.fd, ~0ULL, 0, COOKIE), -EINVAL);
	EXPECT_EQ(unwatch(d.fd, COOKIE), -EINVAL);
	EXPECT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
}

/* Portals4 registers nothing at all, zhpe the last byte for the end. */
TEST(register_of_no_bytes_watches_a_page)
{
	struct dev d;
	char *p = area(3), *q = area(1);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p + PAGE, 0, 1), 0);
	ASSERT_EQ(watch(d.fd, p + PAGE + 77, 0, 2), 0);
	munmap(p, PAGE);
	munmap(p + 2 * PAGE, PAGE);
	EXPECT_EQ(*d.gen, 0);
	munmap(p + PAGE, PAGE);
	EXPECT_EQ(drain(d.fd), 2);

	ASSERT_EQ(watch(d.fd, q + 77, 0, 3), 0);
	munmap(q, PAGE);
	EXPECT_ONLY_HINT(&d, 3, q + 77, q + 77);
}

TEST(register_rounds_to_pages_and_keeps_the_bytes)
{
	struct dev d;
	char *p = area(4);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch_range(d.fd, addr(p) + 100, addr(p) + 200, 1), 0);
	ASSERT_EQ(watch_range(d.fd, addr(p) + 2 * PAGE - 1,
			      addr(p) + 3 * PAGE + 1, 2), 0);
	munmap(p, PAGE);
	EXPECT_ONLY_HINT(&d, 1, p + 100, p + 200);
	munmap(p + 3 * PAGE, PAGE);
	EXPECT_ONLY_HINT(&d, 2, p + 3 * PAGE, p + 3 * PAGE + 1);
	munmap(p + PAGE, PAGE);
	EXPECT_ONLY_HINT(&d, 2, p + 2 * PAGE - 1, p + 2 * PAGE);
}

TEST(register_takes_inclusive_ends)
{
	struct dev d;
	char *p = area(3);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch_range(d.fd, addr(p), addr(p) + 2 * PAGE - 1, 1), 0);
	munmap(p + 2 * PAGE, PAGE);
	EXPECT_QUIET(&d);
	munmap(p + PAGE, PAGE);
	EXPECT_ONLY_HINT(&d, 1, p + PAGE, p + 2 * PAGE - 1);
}

/* Rounding the end up must not wrap to an empty range. */
TEST(register_takes_the_whole_address_space)
{
	struct dev d;
	char *p = area(1);
	__u64 cookie;

	ASSERT(dev_open(&d));
	ASSERT(settle());
	EXPECT_EQ(watch_range(d.fd, 0, ~0ULL, 1), 0);
	EXPECT_EQ(watch_range(d.fd, addr(p), ~0ULL, 2), 0);
	EXPECT_EQ(watch_range(d.fd, addr(p), ~0ULL - PAGE + 1, 3), 0);
	EXPECT_EQ(watch_range(d.fd, 0, 0, 4), 0);
	EXPECT_EQ(watch_range(d.fd, ~0ULL, ~0ULL, 5), 0);
	EXPECT_EQ(watch_range(d.fd, ~0ULL - PAGE, ~0ULL, 6), 0);
	munmap(p, PAGE);
	EXPECT_GT(*d.gen, 0);
	EXPECT_EQ(drain(d.fd), 3);
	for (cookie = 1; cookie <= 6; cookie++)
		EXPECT_EQ(unwatch(d.fd, cookie), 0);
}

/* Open MPI passes what the stack held. */
TEST(register_ignores_flags_and_reserved)
{
	struct ummunotify_register_ioctl r = {
		.user_cookie = COOKIE, .flags = 0xdeadbeef, .reserved = ~0u,
	};
	struct dev d;
	char *p = area(1);

	r.start = addr(p);
	r.end = addr(p) + PAGE;
	ASSERT(dev_open(&d));
	EXPECT_EQ(ioctl(d.fd, UMMUNOTIFY_REGISTER_REGION, &r), 0);
	munmap(p, PAGE);
	EXPECT_ONLY_HINT(&d, COOKIE, p, p + PAGE);
}

TEST(register_with_a_bad_pointer_changes_nothing)
{
	struct ummunotify_register_ioctl r = { .user_cookie = COOKIE };
	struct dev d;
	char *p = area(1), *q = area(1), *half = p + PAGE - 24;

	/* The structure's tail lies in the gap behind the area. */
	r.start = addr(q);
	r.end = addr(q) + PAGE;
	memcpy(half, &r, 24);
	ASSERT(dev_open(&d));
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_REGISTER_REGION, half)),
		  -EFAULT);
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_REGISTER_REGION, NULL)),
		  -EFAULT);
	EXPECT_EQ(unwatch(d.fd, COOKIE), -EINVAL);
	EXPECT_EQ(watch(d.fd, q, PAGE, COOKIE), 0);
}

/* A driver that keeps 32 bits, or takes a value for "none", fails here. */
TEST(cookies_are_any_64_bits)
{
	static const __u64 cookies[] = {
		0, 1, ~0ULL, 1ULL << 63, 1ULL << 32, (1ULL << 32) + 1,
		0x00007fffdeadb000, 0xffff888000000000,
	};
	struct ummunotify_event ev[ARRAY_LEN(cookies) + 1];
	struct dev d;
	char *p = area(1);
	unsigned int i;

	ASSERT(dev_open(&d));
	for (i = 0; i < ARRAY_LEN(cookies); i++)
		EXPECT_EQ(watch(d.fd, p, PAGE, cookies[i]), 0);
	for (i = 0; i < ARRAY_LEN(cookies); i++)
		EXPECT_EQ(watch(d.fd, p, PAGE, cookies[i]), -EINVAL);
	munmap(p, PAGE);
	ASSERT_EQ(read_events(d.fd, ev, ARRAY_LEN(ev)), ARRAY_LEN(ev));
	for (i = 0; i < ARRAY_LEN(cookies); i++) {
		unsigned int j, times = 0;

		for (j = 0; j < ARRAY_LEN(cookies); j++)
			times += ev[j].user_cookie_counter == cookies[i];
		EXPECT_EQ(times, 1);
		EXPECT_EQ(unwatch(d.fd, cookies[i]), 0);
	}
}

TEST(unregister_refuses_an_unknown_cookie)
{
	struct dev d;
	char *p = area(1);

	ASSERT(dev_open(&d));
	EXPECT_EQ(unwatch(d.fd, COOKIE), -EINVAL);
	ASSERT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	EXPECT_EQ(unwatch(d.fd, COOKIE + 1), -EINVAL);
	/* The 2010 test program takes any value but 0 for a failure. */
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
	EXPECT_EQ(unwatch(d.fd, COOKIE), -EINVAL);
}

TEST(unregister_ends_the_watch)
{
	struct dev d;
	char *p = area(2), *q = area(1);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, 2 * PAGE, 1), 0);
	ASSERT_EQ(watch(d.fd, p, PAGE, 2), 0);
	EXPECT_EQ(unwatch(d.fd, 1), 0);
	munmap(p + PAGE, PAGE);
	EXPECT_EQ(*d.gen, 0);
	EXPECT_QUIET(&d);
	munmap(p, PAGE);
	EXPECT_ONLY(&d, 2);

	/* The cookie is free for another range. */
	EXPECT_EQ(watch(d.fd, q, PAGE, 1), 0);
	munmap(q, PAGE);
	EXPECT_ONLY(&d, 1);
}

TEST(unregister_with_a_bad_pointer_changes_nothing)
{
	struct dev d;
	char *p = area(1);

	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, PAGE, 0), 0);
	EXPECT_EQ(ret_errno(ioctl(d.fd, UMMUNOTIFY_UNREGISTER_REGION, NULL)),
		  -EFAULT);
	EXPECT_EQ(unwatch(d.fd, 0), 0);
}

TEST(unknown_ioctls_are_enotty)
{
	static const unsigned int cmds[] = {
		0, _IO('U', 0), _IO('U', 2), _IO('U', 200),
		_IOW('U', 2, __u64), _IOW('U', 3, __u32), _IOR('U', 1, __u32),
		_IOW('V', 3, __u64), 0x5401 /* TCGETS */,
	};
	struct ummunotify_register_ioctl r = { 0 };
	unsigned int i;
	struct dev d;

	ASSERT(dev_open(&d));
	for (i = 0; i < ARRAY_LEN(cmds); i++)
		EXPECT_EQ(ret_errno(ioctl(d.fd, cmds[i], &r)), -ENOTTY);
}

TEST(max_regions_is_a_limit_of_each_file)
{
	PARAM(max);
	struct dev d, other;
	char *p = area(1);
	__u64 i;

	if (!param_set(&max, "max_regions", "4"))
		SKIP("max_regions cannot be written");
	ASSERT(dev_open(&d));
	ASSERT(dev_open(&other));
	for (i = 0; i < 4; i++)
		EXPECT_EQ(watch(d.fd, p, PAGE, i), 0);
	EXPECT_EQ(watch(d.fd, p, PAGE, 4), -ENOSPC);
	EXPECT_EQ(unwatch(d.fd, 4), -EINVAL);
	EXPECT_EQ(watch(other.fd, p, PAGE, 4), 0);

	/* What was given back can be had again, as often as one likes. */
	for (i = 0; i < 100; i++) {
		EXPECT_EQ(unwatch(d.fd, i), 0);
		EXPECT_EQ(watch(d.fd, p, PAGE, i + 4), 0);
		EXPECT_EQ(watch(d.fd, p, PAGE, 9999), -ENOSPC);
	}
}

TEST(failed_registers_do_not_eat_the_limit)
{
	PARAM(max);
	struct dev d;
	char *p = area(1);
	int i;

	if (!param_set(&max, "max_regions", "2"))
		SKIP("max_regions cannot be written");
	ASSERT(dev_open(&d));
	ASSERT_EQ(watch(d.fd, p, PAGE, 0), 0);
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(watch(d.fd, p, PAGE, 0), -EINVAL);
		EXPECT_EQ(watch_range(d.fd, 2, 1, 1), -EINVAL);
	}
	EXPECT_EQ(watch(d.fd, p, PAGE, 1), 0);
}

TEST(max_files_is_a_limit_of_each_address_space)
{
	PARAM(max);
	int fd[3], i;
	pid_t pid;

	if (!param_set(&max, "max_files", "3"))
		SKIP("max_files cannot be written");
	for (i = 0; i < 3; i++) {
		fd[i] = open(DEVICE, O_RDONLY | O_CLOEXEC);
		EXPECT_GE(fd[i], 0);
	}
	EXPECT_EQ(ret_errno(open(DEVICE, O_RDONLY)), -EMFILE);

	pid = fork();
	if (!pid) {
		EXPECT_GE(open(DEVICE, O_RDONLY), 0);
		child_exit();
	}
	EXPECT_CHILD_OK(pid);

	for (i = 0; i < 100; i++) {
		close(fd[0]);
		fd[0] = open(DEVICE, O_RDONLY | O_CLOEXEC);
		EXPECT_GE(fd[0], 0);
		EXPECT_EQ(ret_errno(open(DEVICE, O_RDONLY)), -EMFILE);
	}
}

TEST(files_of_one_process_are_independent)
{
	struct dev a, b;
	char *p = area(1), *q = area(1);

	ASSERT(dev_open(&a));
	ASSERT(dev_open(&b));
	ASSERT_EQ(watch(a.fd, p, PAGE, COOKIE), 0);
	ASSERT_EQ(watch(b.fd, q, PAGE, COOKIE), 0);
	munmap(p, PAGE);
	EXPECT_EQ(*a.gen, 1);
	EXPECT_EQ(*b.gen, 0);
	EXPECT_QUIET(&b);
	EXPECT_EQ(unwatch(a.fd, COOKIE), 0);
	munmap((void *)a.gen, PAGE);
	close(a.fd);
	munmap(q, PAGE);
	EXPECT_EQ(*b.gen, 1);
	EXPECT_ONLY(&b, COOKIE);
}

/* The first client's test of 2010, in the order in which it did things. */
TEST(the_first_client)
{
	struct ummunotify_event ev[2];
	__u32 mask = 0xa5a5a5a5;
	__u64 cookie = 123456789;
	struct dev d;
	char *p;

	ASSERT((p = area(1)));
	d.fd = open(DEVICE, O_RDONLY | O_NONBLOCK);
	ASSERT_GE(d.fd, 0);
	EXPECT_EQ(exchange(d.fd, &mask), 0);
	ASSERT((d.gen = map_gen(d.fd)));
	EXPECT_EQ(*d.gen, 0);
	EXPECT_EQ(watch(d.fd, p, PAGE, cookie), 0);
	munmap(p, PAGE);
	EXPECT_EQ(*d.gen, 1);
	EXPECT_EQ(read(d.fd, ev, sizeof(ev)), sizeof(ev));
	EXPECT_HINT(ev[0], cookie, p, p + PAGE);
	EXPECT_LAST(ev[1], 1);
	EXPECT_EQ(unwatch(d.fd, cookie), 0);
	EXPECT_EQ(close(d.fd), 0);
}
