// SPDX-License-Identifier: GPL-2.0
/*
 * Processes that do with it what nobody should: the kernel survives that (the
 * console says so if not), and nothing is left over.
 */
#include "feature.h"

#include <sched.h>

#define COOKIE	17
#define SLOT	UMMUNOTIFY_REGISTER_SLOT
#define BIG	300000u

/* A file with all there is, its slots mapped. */
static bool full_open(struct dev *d, const volatile __u64 **slots)
{
	struct ummunotify_negotiate n = {
		.size = sizeof(n), .slots = 1, .features = ALL_FEATURES &
			~(FEATURE(STRICT) | FEATURE(DELIVERED)),
	};

	if (!dev_open_flags(d, O_NONBLOCK) || negotiate(d->fd, &n))
		return false;
	*slots = map_slots(d->fd, SLOTS_PER_PAGE);
	return *slots && !**slots;
}

static void refused_everything(int fd)
{
	struct ummunotify_negotiate n = { .size = sizeof(n) };
	struct ummunotify_event ev[2];
	struct ummunotify_batch b;

	EXPECT_EQ(watch_range(fd, 0, PAGE, 1), -EPERM);
	EXPECT_EQ(unwatch(fd, COOKIE), -EPERM);
	EXPECT_EQ(read_events(fd, ev, 2), -EPERM);
	EXPECT_EQ(negotiate(fd, &n), -EPERM);
	EXPECT_EQ(batch(fd, UMMUNOTIFY_REGISTER_BATCH, NULL, 0, &b), -EPERM);
	EXPECT_EQ(batch(fd, UMMUNOTIFY_UNREGISTER_BATCH, NULL, 0, &b), -EPERM);
	EXPECT_EQ(unwatch_all(fd), -EPERM);
	EXPECT_EQ(note(fd, COOKIE), -EPERM);
	EXPECT_EQ(verify(fd, COOKIE), -EPERM);
	EXPECT(!map_gen(fd));
	EXPECT(!map_slots(fd, 1));
}

struct sharer {
	struct dev d;
	const volatile __u64 *slots;
	char *p;
};

static int sharing_child(void *arg)
{
	struct sharer *s = arg;

	EXPECT_EQ(watch_flags(s->d.fd, s->p, PAGE, COOKIE, SLOT, 5), 0);
	EXPECT_EQ(note(s->d.fd, COOKIE), 0);
	EXPECT_EQ(verify(s->d.fd, COOKIE), 1);
	EXPECT_EQ(s->slots[5], 0);
	munmap(s->p, PAGE);
	EXPECT_EQ(s->slots[5], 1);
	EXPECT_ONLY_KINDS(&s->d, COOKIE, KIND(UNMAP));
	EXPECT_EQ(unwatch(s->d.fd, COOKIE), 0);
	EXPECT_EQ(watch_flags(s->d.fd, s->p + PAGE, PAGE, COOKIE, SLOT, 6), 0);
	return harness_failed;
}

/* Another process, but the same memory: it is at home. */
static void shares_memory(int flags)
{
	char *stack = area(16);
	struct sharer s;
	pid_t pid;

	ASSERT(full_open(&s.d, &s.slots));
	s.p = area(2);
	pid = clone(sharing_child, stack + 16 * PAGE, CLONE_VM | SIGCHLD |
		    flags, &s);
	ASSERT_GT(pid, 0);
	EXPECT_CHILD_OK(pid);
	/* What it has registered stays. */
	ASSERT(hit(s.p + PAGE));
	EXPECT_EQ(s.slots[6], 1);
	EXPECT_ONLY_KINDS(&s.d, COOKIE, KIND(CLEAR));
}

TEST(a_vforked_child)
{
	shares_memory(CLONE_VFORK);
}

TEST(a_child_that_shares_memory)
{
	shares_memory(0);
	shares_memory(CLONE_FILES);
}

/* Called in a new program: argv is --refused FD. */
static int helper(int argc, char **argv)
{
	int fd = argc > 2 ? atoi(argv[2]) : -1;

	if (fcntl(fd, F_GETFD) >= 0)
		refused_everything(fd);
	return harness_failed ? HARNESS_FAIL : HARNESS_PASS;
}

static void __attribute__((constructor)) helper_set(void)
{
	harness_helper = helper;
}

/* Bits of the order in which a process takes leave. */
enum {
	CLOSE = 1, UNMAP_COUNTER = 2, UNMAP_SLOTS = 4, UNMAP_MEMORY = 8,
	EVENTS = 16, EXEC = 32, HEIR = 64, ORDERS = 128,
};

static void leave(unsigned int how)
{
	const volatile __u64 *slots;
	char *p = area(8), number[16];
	struct dev d;
	pid_t pid;
	int i;

	ASSERT(full_open(&d, &slots));
	for (i = 0; i < 8; i++)
		ASSERT_EQ(watch_flags(d.fd, p, (i + 1) * PAGE, i, SLOT, i), 0);
	if (how & EVENTS)
		ASSERT(hit(p + 4 * PAGE));
	if (how & HEIR) {
		/* It goes at any time, and nobody waits for it. */
		pid = fork();
		if (!pid) {
			if (how & CLOSE)
				sleep_ms(5);
			EXPECT_EQ(slots[3], ALL_ONES);
			_exit(harness_failed);
		}
		ASSERT_GT(pid, 0);
	}
	if (how & CLOSE)
		close(d.fd);
	if (how & UNMAP_COUNTER)
		munmap((void *)d.gen, PAGE);
	if (how & UNMAP_MEMORY)
		munmap(p, 8 * PAGE);
	if (how & UNMAP_SLOTS)
		munmap((void *)slots, PAGE);
	if (how & EXEC) {
		snprintf(number, sizeof(number), "%d", d.fd);
		execl("/proc/self/exe", "hostile", "--refused", number, NULL);
		_exit(HARNESS_FAIL);
	}
}

TEST_TIMEOUT(exit_in_every_order, 120)
{
	int keeper = balance_begin();
	unsigned int how;
	pid_t pid;

	for (how = 0; how < ORDERS; how++) {
		pid = fork();
		if (!pid) {
			leave(how);
			child_exit();
		}
		EXPECT_CHILD_OK(pid);
	}
	expect_balance(keeper);
}

/*
 * The wait ends with the process, not a second later.  It is another process
 * that changes the memory: the death of a thread that does would end it too.
 */
static pid_t kill_me(int m, struct gate *punch, struct gate *ready)
{
	pid_t pid = fork();
	struct stage s;

	if (pid)
		return pid;
	if (!stage_init(&s, 1, NULL, 0))
		abort();
	s.p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
	if (s.p == MAP_FAILED || hold(s.hold, s.p, PAGE))
		abort();
	s.p[0] = 1;
	gate_open(punch);
	if (!WAIT_FOR(held(s.hold) == 1, 5000))
		abort();
	gate_open(ready);
	watch(s.d.fd, s.p, PAGE, COOKIE);
	for (;;)
		pause();
}

TEST(kill_while_register_waits)
{
	int i, m = memfd_create("shared", MFD_CLOEXEC), keeper;
	struct gate ready, punch;
	bool in_time = false;
	pid_t pid, other;
	long began;

	i = hold_open();
	if (i < 0)
		SKIP("ummunotify_hold is not loaded");
	close(i);
	keeper = balance_begin();
	ASSERT(gate_init(&ready) && gate_init(&punch) && !ftruncate(m, PAGE));
	for (i = 0; i < TRIES && !in_time; i++) {
		other = fork();
		if (!other) {
			gate_wait(&punch);
			_exit(!!fallocate(m, FALLOC_FL_PUNCH_HOLE |
					  FALLOC_FL_KEEP_SIZE, 0, PAGE));
		}
		pid = kill_me(m, &punch, &ready);
		gate_wait(&ready);
		began = now_ms();
		sleep_ms(100);
		kill(pid, SIGKILL);
		EXPECT_EQ(child_status(pid), SIGKILL);
		in_time = now_ms() - began < IN_TIME_MS;
		EXPECT_CHILD_OK(other);
	}
	EXPECT(in_time);
	expect_balance(keeper);
}

static struct {
	struct dev d;
	char *p;
	unsigned char *seen;
	unsigned long events;
	__u64 registered;
	bool stop;
} big;

static bool stopped(void)
{
	return __atomic_load_n(&big.stop, __ATOMIC_SEQ_CST);
}

static void stop(void)
{
	__atomic_store_n(&big.stop, true, __ATOMIC_SEQ_CST);
}

static void *remapper(void *arg)
{
	while (!stopped())
		if (mmap(big.p, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED |
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != big.p)
			abort();
	return arg;
}

/* close() and the end of the mappings, in the middle of an invalidation. */
TEST(close_races_munmap)
{
	const volatile __u64 *slots;
	long until = now_ms() + 3000;
	int i, keeper = balance_begin();
	unsigned int rounds = 0;
	pthread_t t;

	big.p = area(16);
	ASSERT_EQ(pthread_create(&t, NULL, remapper, NULL), 0);
	while (now_ms() < until) {
		ASSERT(full_open(&big.d, &slots));
		for (i = 0; i < 16; i++)
			ASSERT_EQ(watch_flags(big.d.fd, big.p + i * PAGE, PAGE,
					      i, SLOT, i), 0);
		if (rounds & 1)
			munmap((void *)slots, PAGE);
		dev_close(&big.d);
		if (!(rounds++ & 1))
			munmap((void *)slots, PAGE);
	}
	stop();
	pthread_join(t, NULL);
	EXPECT_GT(rounds, 10);
	expect_balance(keeper);
}

static void *big_reader(void *arg)
{
	struct ummunotify_event ev[READ_MAX];
	bool last_round = false;
	long n, i;

	for (;;) {
		n = read_events(big.d.fd, ev, READ_MAX);
		if (n == -EAGAIN) {
			if (last_round)
				return arg;
			last_round = stopped();
			continue;
		}
		if (n <= 0) {
			EXPECT_GT(n, 0);
			return arg;
		}
		for (i = 0; i < n; i++) {
			if (ev[i].type != UMMUNOTIFY_EVENT_TYPE_INVAL)
				continue;
			big.events++;
			if (ev[i].user_cookie_counter < BIG)
				big.seen[ev[i].user_cookie_counter] = 1;
		}
	}
}

static void *big_registrar(void *arg)
{
	__u64 i;

	for (i = 0; !stopped() && i < 20 * BIG; i++) {
		EXPECT_EQ(watch(big.d.fd, big.p + i * 7919 % BIG * PAGE, PAGE,
				BIG + i), 0);
		big.registered = i + 1;
	}
	return arg;
}

/*
 * One munmap of very many regions, alone or with others at work: no region is
 * missed, nobody is kept for ever, and no watchdog barks.
 */
static void big_munmap(void *(*const run[])(void *), unsigned int n)
{
	unsigned long seen = 0, i;
	pthread_t t[2];

	big.seen = calloc(BIG, 1);
	big.p = mmap(NULL, BIG * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		     MAP_NORESERVE, -1, 0);
	ASSERT(big.p != MAP_FAILED && big.seen);
	ASSERT(dev_open_with(&big.d, FEATURE(BATCH) | FEATURE(STATS), 0));
	ASSERT(watch_pages(big.d.fd, big.p, BIG, 0));
	for (i = 0; i < n; i++)
		ASSERT_EQ(pthread_create(&t[i], NULL, run[i], NULL), 0);
	EXPECT_EQ(munmap(big.p, BIG * PAGE), 0);
	EXPECT_GE(stats_of(&big.d)->hits, BIG);
	stop();
	for (i = 0; i < n; i++)
		pthread_join(t[i], NULL);
	big_reader(NULL);
	for (i = 0; i < BIG; i++)
		seen += big.seen[i];
	EXPECT_EQ(seen, BIG);
	EXPECT_EQ(big.events, stats_of(&big.d)->hits);
	if (!n)
		EXPECT_EQ(big.events, BIG);
	/* At most twice for a munmap: at its start, and at its end. */
	EXPECT_GE(2 * (BIG + big.registered), big.events);
	EXPECT_EQ(stats_of(&big.d)->regions, BIG + big.registered);
	EXPECT_EQ(unwatch_all(big.d.fd), 0);
	EXPECT_EQ(stats_of(&big.d)->regions, 0);
}

TEST_TIMEOUT(many_regions_in_one_munmap, 240)
{
	big_munmap(NULL, 0);
}

TEST_TIMEOUT(read_races_a_big_munmap, 240)
{
	big_munmap((void *(*const[])(void *)){ big_reader }, 1);
}

TEST_TIMEOUT(register_races_a_big_munmap, 240)
{
	big_munmap((void *(*const[])(void *)){ big_registrar, big_reader }, 2);
}

/*
 * Another process that has the file may truncate it as often as it likes.
 * The second time finds nothing to do: were every region visited again, it
 * could keep the system busy at little cost.
 */
TEST_TIMEOUT(truncate_under_many_regions, 120)
{
	const __u32 n = 100000;
	int m = memfd_create("shared", MFD_CLOEXEC), took[2], i;
	struct ummunotify_register_ioctl *r = calloc(n, sizeof(*r));
	struct ummunotify_batch b = { 0 };
	long ms[3];
	__u32 done;
	struct gate go;
	pid_t pid;
	char *p;

	ASSERT(r && gate_init(&go) && !pipe(took) && !ftruncate(m, PAGE));
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, m, 0);
	ASSERT(p != MAP_FAILED);
	pid = fork();
	if (!pid) {
		munmap(p, PAGE);
		for (i = 0; i < 3; i++) {
			gate_wait(&go);
			ms[i] = -now_ms();
			EXPECT_EQ(ftruncate(m, 0), 0);
			ms[i] += now_ms();
			EXPECT_EQ(ftruncate(m, PAGE), 0);
			EXPECT_EQ(write(took[1], &ms[i], sizeof(*ms)),
				  sizeof(*ms));
		}
		child_exit();
	}
	ASSERT(dev_open_with(&big.d, FEATURE(BATCH) | FEATURE(STATS), 0));
	for (done = 0; done < n; done++) {
		r[done].start = addr(p);
		r[done].end = addr(p) + PAGE;
		r[done].user_cookie = done;
	}
	for (done = 0; done < n; done += b.done) {
		ASSERT_EQ(batch(big.d.fd, UMMUNOTIFY_REGISTER_BATCH, r + done,
				n - done < 65536 ? n - done : 65536, &b), 0);
		ASSERT_EQ(b.error, 0);
	}
	for (i = 0; i < 3; i++) {
		p[0] = 1;
		gate_open(&go);
		EXPECT_EQ(read(took[0], &ms[i], sizeof(*ms)), sizeof(*ms));
		EXPECT_EQ(stats_of(&big.d)->hits, n);
	}
	EXPECT_CHILD_OK(pid);
	EXPECT_LT(ms[2], ms[0] / 2 + 20);
	EXPECT_EQ(drain(big.d.fd), n);
}
