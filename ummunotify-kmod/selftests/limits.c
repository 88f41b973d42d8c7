// SPDX-License-Identifier: GPL-2.0
/* What a file, an address space and a user may have; and the statistics. */
#include "feature.h"

#include <sys/stat.h>
#include <grp.h>

#define COOKIE	2
#define ONESHOT	UMMUNOTIFY_REGISTER_ONESHOT
#define OTHER_UID 54321

TEST(max_regions_is_a_limit_of_each_file)
{
	struct ummunotify_negotiate n = { .size = sizeof(n) };
	char *p = area(1);
	struct dev d, other;
	int i;

	LIMIT(max, "max_regions", "3");
	ASSERT(dev_open(&d));
	EXPECT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(n.max_regions, 3);
	ASSERT(dev_open(&other));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(watch(d.fd, p, PAGE, i), 0);
		EXPECT_EQ(watch(other.fd, p, PAGE, i), 0);
	}
	EXPECT_EQ(watch(d.fd, p, PAGE, 3), -ENOSPC);
	EXPECT_EQ(watch(other.fd, p, PAGE, 3), -ENOSPC);
	EXPECT_EQ(unwatch(d.fd, 3), -EINVAL);
	EXPECT_EQ(unwatch(d.fd, 0), 0);
	EXPECT_EQ(watch(d.fd, p, PAGE, 3), 0);
	EXPECT_EQ(watch(d.fd, p, PAGE, 4), -ENOSPC);
	EXPECT_EQ(watch(other.fd, p, PAGE, 4), -ENOSPC);
	/* An event frees nothing. */
	ASSERT(hit(p));
	EXPECT_EQ(drain(d.fd), 3);
	EXPECT_EQ(watch(d.fd, p, PAGE, 4), -ENOSPC);
}

TEST(max_mm_regions_is_a_limit_of_the_address_space)
{
	struct ummunotify_batch b;
	char *p = area(1);
	struct dev d, other;
	pid_t pid;

	LIMIT(max, "max_mm_regions", "3");
	ASSERT(dev_open_with(&d, FEATURE(BATCH), 0));
	ASSERT(dev_open(&other));
	EXPECT_EQ(watch(d.fd, p, PAGE, 1), 0);
	EXPECT_EQ(watch(d.fd, p, PAGE, 2), 0);
	EXPECT_EQ(watch(other.fd, p, PAGE, 1), 0);
	EXPECT_EQ(watch(other.fd, p, PAGE, 2), -ENOSPC);
	EXPECT_EQ(watch(d.fd, p, PAGE, 3), -ENOSPC);
	pid = fork();
	if (!pid) {
		struct dev own;

		ASSERT(dev_open(&own));
		EXPECT_EQ(watch(own.fd, p, PAGE, 1), 0);
		EXPECT_EQ(watch(own.fd, p, PAGE, 2), 0);
		EXPECT_EQ(watch(own.fd, p, PAGE, 3), 0);
		EXPECT_EQ(watch(own.fd, p, PAGE, 4), -ENOSPC);
		child_exit();
	}
	EXPECT_CHILD_OK(pid);
	EXPECT_EQ(unwatch(d.fd, 1), 0);
	EXPECT_EQ(watch(other.fd, p, PAGE, 2), 0);
	EXPECT_EQ(watch(other.fd, p, PAGE, 3), -ENOSPC);
	EXPECT_EQ(unwatch_all(d.fd), 0);
	EXPECT_EQ(watch(other.fd, p, PAGE, 3), 0);
	dev_close(&other);
	EXPECT_EQ(batch(d.fd, UMMUNOTIFY_REGISTER_BATCH,
			(struct ummunotify_register_ioctl[4]) {
				{ .user_cookie = 1 }, { .user_cookie = 2 },
				{ .user_cookie = 3 }, { .user_cookie = 4 } },
			4, &b), 0);
	EXPECT_EQ(b.done, 3);
	EXPECT_EQ(b.error, ENOSPC);
}

/* Anybody may open it, until the end of the scope. */
static void mode_restore(mode_t *mode)
{
	if (*mode && chmod(DEVICE, *mode))
		abort();
}

#define OPEN_TO_ALL()							\
	struct stat st_;						\
	mode_t mode_ __attribute__((cleanup(mode_restore))) =		\
		stat(DEVICE, &st_) ? 0 : st_.st_mode & 07777;		\
									\
	if (!mode_ || geteuid() || chmod(DEVICE, 0666))			\
		SKIP("only root can change the mode of the device")

static void become(uid_t uid)
{
	if (uid != geteuid() && (setgroups(0, NULL) || setuid(uid)))
		_exit(HARNESS_FAIL);
}

/* A process of @uid registers, and waits. */
static pid_t start_user(uid_t uid, int want, long error, struct gate *ready,
			struct gate *go)
{
	struct dev d;
	pid_t pid = fork();
	char *p;
	int i;

	if (pid) {
		gate_wait(ready);
		return pid;
	}
	become(uid);
	p = area(1);
	if (dev_open(&d)) {
		for (i = 0; i < want; i++)
			EXPECT_EQ(watch(d.fd, p, PAGE, i), 0);
		if (error)
			EXPECT_EQ(watch(d.fd, p, PAGE, i), error);
	} else {
		EXPECT(!"open");
	}
	gate_open(ready);
	gate_wait(go);
	child_exit();
}

TEST(max_user_regions_is_a_limit_of_the_user)
{
	struct gate ready, go[4];
	pid_t pid[4];
	int i;

	OPEN_TO_ALL();
	LIMIT(max, "max_user_regions", "5");
	ASSERT(gate_init(&ready));
	for (i = 0; i < 4; i++)
		ASSERT(gate_init(&go[i]));
	pid[0] = start_user(OTHER_UID, 3, 0, &ready, &go[0]);
	pid[1] = start_user(OTHER_UID, 2, -ENOSPC, &ready, &go[1]);
	/* Another user's is another matter. */
	pid[2] = start_user(OTHER_UID + 1, 5, -ENOSPC, &ready, &go[2]);
	gate_open(&go[0]);
	EXPECT_CHILD_OK(pid[0]);
	pid[3] = start_user(OTHER_UID, 3, -ENOSPC, &ready, &go[3]);
	for (i = 1; i < 4; i++) {
		gate_open(&go[i]);
		EXPECT_CHILD_OK(pid[i]);
	}
}

/* The note of a range that is large enough to have memory for it is one more. */
TEST(max_user_regions_limits_notes)
{
	const size_t chunk = 2UL << 20, size = 9 * chunk;
	pid_t pid;

	OPEN_TO_ALL();
	LIMIT(max, "max_user_regions", "3");
	pid = fork();
	if (!pid) {
		char *p = area((size + chunk) / PAGE);
		struct dev d;
		int i;

		ASSERT(p);
		p = (char *)((addr(p) + chunk - 1) & ~(chunk - 1));
		become(OTHER_UID);
		ASSERT(dev_open_with(&d, FEATURE(VERIFY), 0));
		EXPECT_EQ(watch(d.fd, p, size, 1), 0);
		EXPECT_EQ(watch(d.fd, p, size, 2), 0);
		for (i = 0; i < 5; i++) {
			EXPECT_EQ(note(d.fd, 1), 0);
			EXPECT_EQ(verify(d.fd, 1), 1);
			EXPECT_EQ(note(d.fd, 2), -ENOSPC);
			EXPECT_EQ(verify(d.fd, 2), -EINVAL);
			EXPECT_EQ(watch(d.fd, p, size, 3), -ENOSPC);
			EXPECT_EQ(unwatch(d.fd, 1), 0);
			EXPECT_EQ(watch(d.fd, p, size, 1), 0);
		}
		child_exit();
	}
	EXPECT_CHILD_OK(pid);
}

TEST(max_user_files_is_a_limit_of_the_user)
{
	struct gate ready, go;
	pid_t pid, other;
	int fd[4], i;

	OPEN_TO_ALL();
	LIMIT(max, "max_user_files", "3");
	ASSERT(gate_init(&ready));
	ASSERT(gate_init(&go));
	pid = start_user(OTHER_UID, 1, 0, &ready, &go);
	other = fork();
	if (!other) {
		become(OTHER_UID);
		for (i = 0; i < 2; i++)
			fd[i] = open(DEVICE, O_RDONLY);
		EXPECT_GE(fd[1], 0);
		EXPECT_EQ(ret_errno(open(DEVICE, O_RDONLY)), -EMFILE);
		EXPECT_EQ(ret_errno(open(DEVICE, O_RDONLY)), -EMFILE);
		close(fd[0]);
		EXPECT_GE(open(DEVICE, O_RDONLY), 0);
		EXPECT_EQ(ret_errno(open(DEVICE, O_RDONLY)), -EMFILE);
		child_exit();
	}
	EXPECT_CHILD_OK(other);
	/* Not this user's. */
	for (i = 0; i < 3; i++)
		EXPECT_GE(open(DEVICE, O_RDONLY), 0);
	EXPECT_EQ(ret_errno(open(DEVICE, O_RDONLY)), -EMFILE);
	gate_open(&go);
	EXPECT_CHILD_OK(pid);
}

/* No matter who uses it: who opened it pays. */
TEST(the_opener_pays)
{
	struct gate ready, go;
	char *p = area(1);
	struct dev d;
	pid_t pid, payer;
	int i;

	OPEN_TO_ALL();
	LIMIT(max, "max_user_regions", "3");
	ASSERT(gate_init(&ready));
	ASSERT(gate_init(&go));
	payer = fork();
	if (!payer) {
		ASSERT(dev_open(&d));
		become(OTHER_UID);
		for (i = 0; i < 3; i++)
			EXPECT_EQ(watch(d.fd, p, PAGE, i), 0);
		EXPECT_EQ(watch(d.fd, p, PAGE, 3), -ENOSPC);
		pid = start_user(OTHER_UID, 3, -ENOSPC, &ready, &go);
		gate_open(&go);
		EXPECT_CHILD_OK(pid);
		child_exit();
	}
	EXPECT_CHILD_OK(payer);
	ASSERT(dev_open(&d));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(watch(d.fd, p, PAGE, i), 0);
}

TEST(max_slots_is_a_limit)
{
	struct ummunotify_negotiate n;
	struct dev d;
	PARAM(none);

	{
		char slots[24];

		snprintf(slots, sizeof(slots), "%zu", SLOTS_PER_PAGE + 88);
		LIMIT(max, "max_slots", slots);
		n = (struct ummunotify_negotiate){ sizeof(n), FEATURE(GENSLOT),
						   100000, 0, 0, 0 };
		ASSERT(dev_open(&d));
		EXPECT_EQ(negotiate(d.fd, &n), 0);
		EXPECT_EQ(n.features, FEATURE(GENSLOT));
		EXPECT_EQ(n.slots, 2 * SLOTS_PER_PAGE);
		EXPECT(map_slots(d.fd, n.slots));
		EXPECT(!map_slots(d.fd, n.slots + 1));
	}
	/* None to be had: then the feature is not granted. */
	ASSERT(param_set(&none, "max_slots", "0"));
	n = (struct ummunotify_negotiate){ sizeof(n), FEATURE(GENSLOT), 1,
					   0, 0, 0 };
	ASSERT(dev_open(&d));
	EXPECT_EQ(negotiate(d.fd, &n), 0);
	EXPECT_EQ(n.features, 0);
	EXPECT_EQ(n.slots, 0);
	EXPECT(!map_slots(d.fd, 1));
}

/* Over files; a file that is closed, or not granted, gives its slots back. */
TEST(max_user_slots_is_a_limit)
{
	struct ummunotify_negotiate n;
	struct dev first, second;
	char slots[24];
	int i;

	snprintf(slots, sizeof(slots), "%zu", 2 * SLOTS_PER_PAGE);
	LIMIT(max, "max_user_slots", slots);
	for (i = 0; i < 3; i++) {
		ASSERT(dev_open_with(&first, FEATURE(GENSLOT),
				     SLOTS_PER_PAGE + 88));
		ASSERT(dev_open(&second));
		n = (struct ummunotify_negotiate){ sizeof(n), FEATURE(GENSLOT),
						   1, 0, 0, 0 };
		EXPECT_EQ(negotiate(second.fd, &n), -ENOSPC);
		dev_close(&first);
		EXPECT_EQ(negotiate(second.fd, &n), 0);
		EXPECT_EQ(n.slots, SLOTS_PER_PAGE);
		dev_close(&second);
	}
}

/* Every way in which a region comes, does not come, and goes. */
TEST(nothing_is_left_over)
{
	char *p = area(4);
	int i, keeper = balance_begin();
	struct dev d;

	for (i = 0; i < 1000; i++) {
		ASSERT(dev_open_with(&d, ALL_FEATURES, 1));
		EXPECT_EQ(watch(d.fd, p, PAGE, 1), 0);
		EXPECT_EQ(watch(d.fd, p, PAGE, 1), -EINVAL);
		EXPECT_EQ(watch_flags(d.fd, p, PAGE, 2, 1u << 31, 0), -EINVAL);
		EXPECT_EQ(watch_range(d.fd, 1, 0, 2), -EINVAL);
		EXPECT_EQ(watch_flags(d.fd, p, PAGE, 3, ONESHOT, 0), 0);
		if (i & 1)
			EXPECT_EQ(unwatch(d.fd, 1), 0);
		if (i & 2)
			ASSERT(hit(p));
		if (i & 4)
			drain(d.fd);
		if (i & 8)
			EXPECT_EQ(unwatch_all(d.fd), 0);
		dev_close(&d);
	}
	expect_balance(keeper);
}

TEST(oneshot_leaves_nothing_over)
{
	char *p = area(1);
	struct dev d;
	int i;

	LIMIT(file, "max_regions", "1");
	LIMIT(user, "max_user_regions", "1");
	LIMIT(mm, "max_mm_regions", "1");
	ASSERT(dev_open_with(&d, FEATURE(ONESHOT), 0));
	for (i = 0; i < 1000; i++) {
		ASSERT_EQ(watch_flags(d.fd, p, PAGE, i, ONESHOT, 0), 0);
		ASSERT_EQ(watch_flags(d.fd, p, PAGE, i + 1, ONESHOT, 0),
			  -ENOSPC);
		ASSERT(hit(p));
		EXPECT_ONLY(&d, i);
	}
}

/* The value behind "ummunotify-NAME:" in the fdinfo of a descriptor. */
static long long fdinfo(int fd, const char *name)
{
	char path[64], line[128], want[64];
	long long value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	snprintf(want, sizeof(want), "ummunotify-%s:\t", name);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		char *end;

		if (strncmp(line, want, strlen(want)))
			continue;
		if (value != -1)
			return -2;
		value = strtoll(line + strlen(want), &end, 0);
		if (end == line + strlen(want) || *end != '\n')
			return -3;
	}
	if (f)
		fclose(f);
	return value;
}

static void expect_stats(struct dev *d, const struct ummunotify_stats *want,
			 bool mapped)
{
	static const struct ummunotify_stats zero;
	struct ummunotify_stats got = *stats_of(d);

	if (!mapped)
		EXPECT_EQ(memcmp(&got, &zero, sizeof(got)), 0);
	else
		EXPECT_EQ(memcmp(&got, want, sizeof(got)), 0);
	EXPECT_EQ(fdinfo(d->fd, "generation"), *d->gen);
	EXPECT_EQ(fdinfo(d->fd, "regions"), want->regions);
	EXPECT_EQ(fdinfo(d->fd, "hits"), want->hits);
	EXPECT_EQ(fdinfo(d->fd, "delivered"), want->delivered);
	EXPECT_EQ(fdinfo(d->fd, "doubts"), want->doubts);
	EXPECT_EQ(fdinfo(d->fd, "verified"), want->verified);
}

static void statistics(__u32 features)
{
	bool mapped = features & FEATURE(STATS);
	struct ummunotify_stats want = { 0 };
	struct dev d;
	char *p = area(4);

	ASSERT(dev_open_with(&d, features | FEATURE(VERIFY) | FEATURE(GENSLOT),
			     SLOTS_PER_PAGE + 88));
	EXPECT_EQ(fdinfo(d.fd, "features"),
		  features | FEATURE(VERIFY) | FEATURE(GENSLOT));
	EXPECT_EQ(fdinfo(d.fd, "slots"), 2 * SLOTS_PER_PAGE);
	expect_stats(&d, &want, mapped);
	ASSERT_EQ(watch(d.fd, p, PAGE, 1), 0);
	ASSERT_EQ(watch(d.fd, p, 2 * PAGE, 2), 0);
	want.regions = 2;
	expect_stats(&d, &want, mapped);
	/* A second hit makes nothing invalid that was not so before. */
	ASSERT(hit(p));
	ASSERT(hit(p));
	want.hits = 2;
	expect_stats(&d, &want, mapped);
	EXPECT_EQ(drain(d.fd), 2);
	want.delivered = 2;
	expect_stats(&d, &want, mapped);
	EXPECT_EQ(note(d.fd, 1), 0);
	EXPECT_EQ(verify(d.fd, 1), 1);
	want.verified = 1;
	EXPECT_EQ(unwatch(d.fd, 2), 0);
	want.regions = 1;
	expect_stats(&d, &want, mapped);
	ASSERT(hit(p));
	want.hits = 3;
	EXPECT_EQ(unwatch(d.fd, 1), 0);
	want.regions = 0;
	EXPECT_EQ(drain(d.fd), 0);
	expect_stats(&d, &want, mapped);
}

TEST(statistics_are_mapped_where_granted)
{
	statistics(FEATURE(STATS));
}

TEST(statistics_are_not_mapped_otherwise)
{
	statistics(0);
}

TEST(doubts_are_counted)
{
	struct ummunotify_stats want = { .regions = 1, .hits = 1, .doubts = 1 };
	struct job change;
	struct stage s;

	ASSERT(stage_init(&s, 1, &change, 1));
	ASSERT(dev_negotiate(&s.d, FEATURE(STATS), 0));
	ASSERT(start_and_hold(&s, &change, run_dontneed, s.p, PAGE));
	EXPECT_EQ(watch(s.d.fd, s.p, PAGE, COOKIE), 0);
	EXPECT_EQ(held(s.hold), 1);
	expect_stats(&s.d, &want, true);
	ASSERT_EQ(release(s.hold, s.p, PAGE), 0);
	ASSERT(job_wait(&change));
	expect_stats(&s.d, &want, true);
}
