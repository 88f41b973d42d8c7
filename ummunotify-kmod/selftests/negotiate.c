// SPDX-License-Identifier: GPL-2.0
/* NEGOTIATE: what is granted, what is refused, and that all else is as it was. */
#include "feature.h"

#define COOKIE 6

_Static_assert(UMMUNOTIFY_NEGOTIATE == 0x5504, "ioctl 4");
_Static_assert(UMMUNOTIFY_REGISTER_BATCH == 0x5505, "ioctl 5");
_Static_assert(UMMUNOTIFY_UNREGISTER_BATCH == 0x5506, "ioctl 6");
_Static_assert(UMMUNOTIFY_UNREGISTER_ALL == 0x5507, "ioctl 7");
_Static_assert(UMMUNOTIFY_NOTE == 0x40085508, "ioctl 8");
_Static_assert(UMMUNOTIFY_VERIFY == 0x40085509, "ioctl 9");
_Static_assert(sizeof(struct ummunotify_negotiate) == 24, "negotiate");
_Static_assert(sizeof(struct ummunotify_batch) == 24, "batch");
_Static_assert(sizeof(struct ummunotify_stats) == 40, "stats");

/* As a caller of a later version would pass it. */
struct longer {
	struct ummunotify_negotiate n;
	__u32 more[14];
};

static struct ummunotify_negotiate want(__u32 features, __u32 slots)
{
	return (struct ummunotify_negotiate){
		.size = sizeof(struct ummunotify_negotiate),
		.features = features, .slots = slots,
		.kinds = 0xdead, .max_regions = 0xdead, .max_batch = 0xdead,
	};
}

TEST(each_feature_is_granted_by_itself)
{
	struct ummunotify_negotiate n;
	struct dev d;
	__u32 bit;

	for (bit = 1; bit < ALL_FEATURES; bit <<= 1) {
		n = want(bit, 1);
		ASSERT(dev_open(&d));
		EXPECT_EQ(negotiate(d.fd, &n), 0);
		EXPECT_EQ(n.size, sizeof(n));
		EXPECT_EQ(n.features, bit);
		EXPECT_EQ(n.kinds, bit == FEATURE(FILTER) ?
			  UMMUNOTIFY_KINDS_FILTERABLE : 0);
		EXPECT_EQ(n.slots, bit == FEATURE(GENSLOT) ? SLOTS_PER_PAGE : 0);
		EXPECT_EQ(n.max_batch > 0, bit == FEATURE(BATCH));
		EXPECT_GT(n.max_regions, 0);
		dev_close(&d);
	}
}

/* None that was not wanted, and none that nobody knows. */
TEST(granted_is_wanted_and_known)
{
	struct ummunotify_negotiate n;
	struct dev d;
	__u32 wanted, i;

	for (i = 0; i < 64; i++) {
		wanted = i * 0x9e3779b1u;
		n = want(wanted, 1);
		ASSERT(dev_open(&d));
		EXPECT_EQ(negotiate(d.fd, &n), 0);
		EXPECT_EQ(n.features, wanted & ALL_FEATURES);
		dev_close(&d);
	}
	n = want(~0u, 1);
	ASSERT(dev_open(&d));
	EXPECT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(n.features, ALL_FEATURES);
}

TEST(it_is_the_first_call_or_busy)
{
	struct ummunotify_negotiate n = want(ALL_FEATURES, 1);
	struct ummunotify_event ev;
	struct dev d;
	char *p = area(1);
	__u32 mask = 0;

	ASSERT(dev_open(&d));
	EXPECT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(negotiate(d.fd, &n), -EBUSY);
	EXPECT_EQ(exchange(d.fd, &mask), -EINVAL);

	/* Nothing granted is an answer too. */
	n = want(0, 0);
	ASSERT(dev_open(&d));
	EXPECT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(n.features, 0);
	n = want(ALL_FEATURES, 1);
	EXPECT_EQ(negotiate(d.fd, &n), -EBUSY);
	EXPECT_EQ(n.kinds, 0xdead);

	ASSERT(dev_open(&d));
	EXPECT_EQ(exchange(d.fd, &mask), 0);
	EXPECT_EQ(negotiate(d.fd, &n), -EBUSY);

	ASSERT(dev_open(&d));
	EXPECT_EQ(watch(d.fd, p, PAGE, COOKIE), 0);
	EXPECT_EQ(negotiate(d.fd, &n), -EBUSY);

	ASSERT(dev_open(&d));
	EXPECT_EQ(read_events(d.fd, &ev, 1), -EAGAIN);
	EXPECT_EQ(negotiate(d.fd, &n), -EBUSY);
}

TEST(sizes)
{
	struct longer l = { .n = want(FEATURE(KINDS), 0) };
	__u32 size, *last = &l.more[ARRAY_LEN(l.more) - 1];
	struct dev d;

	ASSERT(dev_open(&d));
	for (size = 0; size < sizeof(l.n); size++) {
		l.n.size = size;
		EXPECT_EQ(negotiate(d.fd, &l.n), -EINVAL);
	}
	l.n.size = sizeof(l);
	*last = 1;
	EXPECT_EQ(negotiate(d.fd, &l.n), -E2BIG);
	*last = 0;
	l.more[0] = 1;
	EXPECT_EQ(negotiate(d.fd, &l.n), -E2BIG);
	l.n.size = sizeof(l.n) + 1;
	EXPECT_EQ(negotiate(d.fd, &l.n), -E2BIG);
	l.more[0] = 0;
	l.n.size = ~0u;
	EXPECT_LT(negotiate(d.fd, &l.n), 0);
	EXPECT_EQ(l.n.features, FEATURE(KINDS));

	/* After all that the file is as good as new. */
	l.n.size = sizeof(l);
	EXPECT_EQ(negotiate(d.fd, &l.n), 0);
	EXPECT_EQ(l.n.features, FEATURE(KINDS));
	EXPECT_EQ(l.n.size, sizeof(l.n));
}

TEST(a_bad_pointer_changes_nothing)
{
	struct ummunotify_negotiate n = want(ALL_FEATURES, 1);
	char *p = area(1);
	struct dev d;

	ASSERT(dev_open(&d));
	EXPECT_EQ(negotiate(d.fd, NULL), -EFAULT);
	EXPECT_EQ(negotiate(d.fd, (void *)(p - PAGE)), -EFAULT);
	memcpy(p + PAGE - 20, &n, 20);
	EXPECT_EQ(negotiate(d.fd, (void *)(p + PAGE - 20)), -EFAULT);
	EXPECT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(n.features, ALL_FEATURES);
}

/* It cannot tell what it granted, so it grants nothing. */
TEST(an_answer_that_cannot_be_written_grants_nothing)
{
	struct ummunotify_negotiate n = want(ALL_FEATURES, 1);
	struct ummunotify_batch b;
	char *p = area(1);
	struct dev d;

	memcpy(p, &n, sizeof(n));
	ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
	ASSERT(dev_open(&d));
	EXPECT_EQ(negotiate(d.fd, (void *)p), -EFAULT);
	EXPECT_EQ(batch(d.fd, UMMUNOTIFY_REGISTER_BATCH, NULL, 0, &b), -ENOTTY);
	EXPECT_EQ(note(d.fd, COOKIE), -ENOTTY);
	/* As of EXCHANGE_FEATURES: it did not happen. */
	EXPECT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(n.features, ALL_FEATURES);
	EXPECT_EQ(n.slots, SLOTS_PER_PAGE);
}

TEST(slots_fill_pages)
{
	const struct {
		__u32 wanted, granted;
	} cases[] = {
		{ 1, SLOTS_PER_PAGE },
		{ SLOTS_PER_PAGE, SLOTS_PER_PAGE },
		{ SLOTS_PER_PAGE + 1, 2 * SLOTS_PER_PAGE },
		{ 100 * SLOTS_PER_PAGE - 1, 100 * SLOTS_PER_PAGE },
	};
	struct ummunotify_negotiate n;
	struct dev d;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(cases); i++) {
		n = want(FEATURE(GENSLOT), cases[i].wanted);
		ASSERT(dev_open(&d));
		EXPECT_EQ(negotiate(d.fd, &n), 0);
		EXPECT_EQ(n.slots, cases[i].granted);
		dev_close(&d);
	}
	/* No slots, no feature. */
	n = want(FEATURE(GENSLOT) | FEATURE(KINDS), 0);
	ASSERT(dev_open(&d));
	EXPECT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(n.features, FEATURE(KINDS));
	EXPECT_EQ(n.slots, 0);

	/* No feature, no slots. */
	n = want(FEATURE(KINDS), 5);
	ASSERT(dev_open(&d));
	EXPECT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(n.slots, 0);
	EXPECT(!map_slots(d.fd, 1));
	EXPECT_EQ(errno, EINVAL);
}

/* The ioctls of BATCH and VERIFY answer where these are granted. */
static void expect_ioctls(int fd, __u32 features)
{
	bool has_batch = features & FEATURE(BATCH);
	bool has_verify = features & FEATURE(VERIFY);
	struct ummunotify_batch b;

	EXPECT_EQ(batch(fd, UMMUNOTIFY_REGISTER_BATCH, NULL, 0, &b),
		  has_batch ? 0 : -ENOTTY);
	EXPECT_EQ(batch(fd, UMMUNOTIFY_UNREGISTER_BATCH, NULL, 0, &b),
		  has_batch ? 0 : -ENOTTY);
	EXPECT_EQ(unwatch_all(fd), has_batch ? 0 : -ENOTTY);
	EXPECT_EQ(note(fd, COOKIE), has_verify ? -EINVAL : -ENOTTY);
	EXPECT_EQ(verify(fd, COOKIE), has_verify ? -EINVAL : -ENOTTY);
	/* What there never was. */
	EXPECT_EQ(ret_errno(ioctl(fd, _IO(UMMUNOTIFY_MAGIC, 10), NULL)),
		  -ENOTTY);
	EXPECT_EQ(ret_errno(ioctl(fd, _IO(UMMUNOTIFY_MAGIC, 0), NULL)),
		  -ENOTTY);
}

TEST(ioctls_that_were_not_granted_do_not_exist)
{
	struct dev d;
	__u32 bit;

	ASSERT(dev_open(&d));
	expect_ioctls(d.fd, 0);
	for (bit = 1; bit < ALL_FEATURES; bit <<= 1) {
		ASSERT(dev_open_with(&d, bit, bit == FEATURE(GENSLOT)));
		expect_ioctls(d.fd, bit);
		dev_close(&d);
	}
	ASSERT(dev_open_with(&d, ALL_FEATURES, 1));
	expect_ioctls(d.fd, ALL_FEATURES);
}

TEST(a_foreign_address_space_is_refused)
{
	struct ummunotify_negotiate n = want(ALL_FEATURES, 1);
	struct ummunotify_batch b;
	struct dev d, granted;
	pid_t pid;

	ASSERT(dev_open(&d));
	ASSERT(dev_open_with(&granted, ALL_FEATURES, 1));
	pid = fork();
	if (!pid) {
		EXPECT_EQ(negotiate(d.fd, &n), -EPERM);
		EXPECT_EQ(negotiate(d.fd, NULL), -EPERM);
		EXPECT_EQ(batch(granted.fd, UMMUNOTIFY_REGISTER_BATCH, NULL, 0,
				&b), -EPERM);
		EXPECT_EQ(unwatch_all(granted.fd), -EPERM);
		EXPECT_EQ(note(granted.fd, COOKIE), -EPERM);
		EXPECT_EQ(verify(granted.fd, COOKIE), -EPERM);
		EXPECT(!map_slots(granted.fd, 1));
		EXPECT_EQ(errno, EPERM);
		child_exit();
	}
	EXPECT_CHILD_OK(pid);
	EXPECT_EQ(negotiate(d.fd, &n), 0);
}

static struct {
	pthread_barrier_t barrier;
	int fd;
	unsigned int won;
} race;

static void *racer(void *arg)
{
	struct ummunotify_negotiate n = want(ALL_FEATURES, SLOTS_PER_PAGE + 88);
	long ret;

	(void)arg;
	pthread_barrier_wait(&race.barrier);
	ret = negotiate(race.fd, &n);
	if (!ret && n.features == ALL_FEATURES)
		__atomic_add_fetch(&race.won, 1, __ATOMIC_SEQ_CST);
	else
		EXPECT_EQ(ret, -EBUSY);
	return NULL;
}

/* Two that both succeed would leak slots, or change them under a mapping. */
TEST(one_thread_wins)
{
	pthread_t t[4];
	unsigned int round, i;
	struct dev d;
	void *slots;

	for (round = 0; round < 100; round++) {
		ASSERT(dev_open(&d));
		race.fd = d.fd;
		race.won = 0;
		pthread_barrier_init(&race.barrier, NULL, ARRAY_LEN(t));
		for (i = 0; i < ARRAY_LEN(t); i++)
			ASSERT_EQ(pthread_create(&t[i], NULL, racer, NULL), 0);
		for (i = 0; i < ARRAY_LEN(t); i++)
			pthread_join(t[i], NULL);
		EXPECT_EQ(race.won, 1);
		slots = (void *)map_slots(d.fd, 2 * SLOTS_PER_PAGE);
		EXPECT(slots);
		munmap(slots, 2 * PAGE);
		dev_close(&d);
	}
}

TEST(strict_refuses_what_it_does_not_know)
{
	static const struct {
		__u32 feature, flags;
	} known[] = {
		{ FEATURE(FILTER), UMMUNOTIFY_KINDS_FILTERABLE },
		{ FEATURE(ONESHOT), UMMUNOTIFY_REGISTER_ONESHOT },
		{ FEATURE(NOWAKE), UMMUNOTIFY_REGISTER_NOWAKE },
		{ FEATURE(GENSLOT), UMMUNOTIFY_REGISTER_SLOT },
	};
	char *p = area(1);
	struct dev d;
	unsigned int i;
	__u32 bit;

	for (i = 0; i < ARRAY_LEN(known); i++) {
		ASSERT(dev_open_with(&d, FEATURE(STRICT) | known[i].feature,
				     known[i].feature == FEATURE(GENSLOT)));
		for (bit = 1; bit; bit <<= 1)
			EXPECT_EQ(watch_flags(d.fd, p, PAGE, bit, bit, 0),
				  known[i].flags & bit ? 0 : -EINVAL);
		/* Refused is not registered. */
		for (bit = 1; bit; bit <<= 1)
			EXPECT_EQ(unwatch(d.fd, bit),
				  known[i].flags & bit ? 0 : -EINVAL);
		EXPECT_EQ(watch_flags(d.fd, p, PAGE, COOKIE, 0, 1), -EINVAL);
		EXPECT_EQ(watch_flags(d.fd, p, PAGE, COOKIE, 0, 0), 0);
		dev_close(&d);
	}
	ASSERT(dev_open_with(&d, ALL_FEATURES, 2));
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, 1, UMMUNOTIFY_REGISTER_ONESHOT, 1),
		  -EINVAL);
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, 1, UMMUNOTIFY_REGISTER_SLOT, 1), 0);
}

/*
 * Granted nothing, or only what takes no flags: all of them are ignored, and
 * the region behaves as in 2009.
 */
static void flags_are_ignored(__u32 features, __u32 flags, bool negotiated)
{
	char *p = area(1);
	struct dev d;
	int i;

	ASSERT(negotiated ? dev_open_with(&d, features, 0) : dev_open(&d));
	EXPECT_EQ(watch_flags(d.fd, p, PAGE, COOKIE, flags, ~0u), 0);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(mprotect(p, PAGE, PROT_READ), 0);
		EXPECT_EQ(poll_now(d.fd), POLLIN | POLLRDNORM);
		EXPECT_ONLY_HINT(&d, COOKIE, p, p + PAGE);
		ASSERT_EQ(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
		EXPECT_ONLY_HINT(&d, COOKIE, p, p + PAGE);
	}
	EXPECT_EQ(unwatch(d.fd, COOKIE), 0);
	EXPECT_EQ(stats_of(&d)->hits, 0);
}

TEST(without_strict_unknown_flags_are_ignored)
{
	flags_are_ignored(0, ~0u, false);
	flags_are_ignored(0, ~0u, true);
	flags_are_ignored(FEATURE(BATCH) | FEATURE(VERIFY), ~0u, true);
	/* Known flags work beside unknown ones. */
	flags_are_ignored(FEATURE(NOWAKE) | FEATURE(ONESHOT) | FEATURE(FILTER),
			  0xfffff800, true);
}
