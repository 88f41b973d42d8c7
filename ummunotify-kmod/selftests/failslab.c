// SPDX-License-Identifier: GPL-2.0
/*
 * In every call, every allocation fails once, and so does every copy from and
 * to user space.  The call says so, or does without; the file is as good as
 * before; and the same call then succeeds.
 */
#include "inject.h"

#include <sys/epoll.h>

#define PAGES	8
#define COOKIE	1
#define OTHER	2
#define MANY	300
#define SLOTS	1024

/* At most so often does everything fail. */
#define ROUNDS	10

/* A child's exit status: a failure was injected, and all was well. */
#define INJECTED 2

/* One file, used by one call, after which it must still be in order. */
struct scene {
	struct dev d;
	char *p;
	struct ummunotify_register_ioctl *entries;
	struct ummunotify_batch b;
	struct ummunotify_event *events;
	volatile __u64 *mapped;
	__u32 feature;
	int other;
};

/*
 * @before and @run return what a system call does, as ret_errno() has it;
 * @run is what fails.  @after sees what @run returned the last time.
 */
struct call {
	__u32 features;
	long (*before)(struct scene *s);
	long (*run)(struct scene *s);
	void (*after)(struct scene *s, long ret);
	/* What else it may say. */
	int error;
	/* So many places of the module fail, at least. */
	unsigned int sites;
	/* Not every allocation, since there are thousands. */
	bool sparse;
	/* It closes the file. */
	bool closes;
};

static void scene_end(struct scene *s)
{
	if (s->other >= 0)
		close(s->other);
	if (s->mapped)
		munmap((void *)s->mapped, PAGE);
	if (s->d.fd >= 0)
		dev_close(&s->d);
	munmap(s->p - PAGE, (PAGES + 2) * PAGE);
	munmap(s->events, PAGE);
	free(s->entries);
}

static bool scene_init(struct scene *s, const struct call *c)
{
	__u32 i;

	memset(s, 0, sizeof(*s));
	s->other = -1;
	s->p = area(PAGES);
	s->events = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	s->entries = calloc(MANY, sizeof(*s->entries));
	if (!s->p || s->events == MAP_FAILED || !s->entries)
		return false;
	for (i = 0; i < MANY; i++) {
		s->entries[i].start = addr(s->p);
		s->entries[i].end = addr(s->p) + PAGE;
		s->entries[i].user_cookie = 100 + i;
	}
	if (!(c->features ? dev_open_with(&s->d, c->features, SLOTS) :
			    dev_open(&s->d)))
		return false;
	return !c->before || c->before(s) >= 0;
}

static bool is_clean(const struct call *c, long ret)
{
	return ret >= 0 || ret == -ENOMEM || ret == -EFAULT || ret == c->error;
}

/* What was done to the file: it still watches, tells, and forgets. */
static void expect_usable(struct scene *s)
{
	const __u64 cookie = 77;
	bool found = false;
	long i, n;

	EXPECT_EQ(watch(s->d.fd, s->p, PAGE, cookie), 0);
	EXPECT(hit(s->p));
	EXPECT_EQ(poll_now(s->d.fd), POLLIN | POLLRDNORM);
	while ((n = read_events(s->d.fd, s->events, READ_MAX)) > 0) {
		for (i = 0; i < n; i++)
			found |= s->events[i].user_cookie_counter == cookie &&
				s->events[i].type ==
				UMMUNOTIFY_EVENT_TYPE_INVAL;
	}
	EXPECT_EQ(n, -EAGAIN);
	EXPECT(found);
	/* Or how many events it had. */
	EXPECT_GE(unwatch(s->d.fd, cookie), 0);
}

static unsigned int next(const struct call *c, unsigned int n)
{
	return n + 1 + (c->sparse && n > 40 ? n / 20 : 0);
}

/* Returns false if nothing failed, since the call was over before. */
static bool fail_once(const struct call *c, unsigned int n, int inject,
		      struct sites *sites)
{
	struct scene s;
	bool injected;
	long ret;

	if (!scene_init(&s, c) || !inject_begin(inject, n)) {
		EXPECT(!"a scene");
		return false;
	}
	ret = c->run(&s);
	injected = inject_end(inject);
	sites_read(sites);
	sites->failures += injected;
	EXPECT(is_clean(c, ret));
	if (ret < 0) {
		sites->errors++;
		EXPECT(injected);
		ret = c->run(&s);
		EXPECT_GE(ret, 0);
	}
	if (c->after)
		c->after(&s, ret);
	if (!c->closes)
		expect_usable(&s);
	scene_end(&s);
	if (harness_failed)
		dprintf(STDOUT_FILENO, "# failure number %u\n", n);
	return injected && !harness_failed;
}

/*
 * Which allocation is the n-th varies a little: now and then a slab is empty,
 * and the kernel's own checks allocate, too.  So there is more than one round,
 * and more until all places had their turn.
 */
static void walk(const struct call *c)
{
	int inject, keeper = balance_begin();
	unsigned int n, round;
	struct sites sites;

	ASSERT(inject_init(true));
	inject = inject_open();
	ASSERT_GE(inject, 0);
	ASSERT(sites_init(&sites));
	signal(SIGIO, SIG_IGN);
	for (round = 0; round < 2 || (round < ROUNDS && sites.n < c->sites);
	     round++) {
		n = 1;
		while (fail_once(c, n, inject, &sites))
			n = next(c, n);
		ASSERT(!harness_failed);
	}
	sites_print(&sites);
	EXPECT_GE(sites.n, c->sites);
	close(inject);
	expect_balance(keeper);
}

/* Where the kernel cannot do that, there is one test, and it is skipped. */
#define TEST_IF_INJECTED(name_, fn_, seconds_)				\
	static struct harness_test name_##_test = {			\
		.name = #name_, .fn = fn_, .seconds = seconds_,		\
	};								\
	static void __attribute__((constructor)) name_##_add(void)	\
	{								\
		if (can_inject())					\
			harness_add(&name_##_test);			\
	}

#define WALK(name_, ...)						\
	static void walk_##name_(void)					\
	{								\
		static const struct call c = { __VA_ARGS__ };		\
									\
		walk(&c);						\
	}								\
	TEST_IF_INJECTED(name_, walk_##name_, 120)

TEST(failures_can_be_injected)
{
	if (!can_inject())
		SKIP("this kernel injects no failures");
	EXPECT(inject_init(true));
}

/* open, close, mmap */

static long run_open(struct scene *s)
{
	s->other = open(DEVICE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	return ret_errno(s->other);
}

WALK(open, .run = run_open, .sites = 3)

/* The first file of an address space has more to allocate. */
static void __attribute__((noreturn)) first_open(unsigned int n)
{
	int inject = inject_open();
	bool injected;
	struct dev d;
	long ret;

	if (!inject_begin(inject, n))
		_exit(HARNESS_FAIL);
	ret = ret_errno(open(DEVICE, O_RDONLY | O_CLOEXEC));
	injected = inject_end(inject);
	EXPECT(ret >= 0 || ret == -ENOMEM || ret == -EFAULT);
	EXPECT(ret >= 0 || injected);
	EXPECT(dev_open(&d));
	EXPECT_EQ(watch(d.fd, inject_end, PAGE, COOKIE), 0);
	if (harness_failed)
		dprintf(STDOUT_FILENO, "# failure number %u\n", n);
	_exit(harness_failed ? HARNESS_FAIL : injected ? INJECTED : 0);
}

static void walk_first_open(void)
{
	int status = 0, keeper = balance_begin();
	unsigned int n, round;
	struct sites sites;

	ASSERT(inject_init(true));
	ASSERT(sites_init(&sites));
	for (round = 0; round < 2 || (round < ROUNDS && sites.n < 4);
	     round++) {
		for (n = 1; ; n++) {
			pid_t pid = fork();

			if (!pid)
				first_open(n);
			status = child_status(pid);
			sites_read(&sites);
			if (status != INJECTED << 8)
				break;
			sites.failures++;
		}
		ASSERT_EQ(status, 0);
	}
	sites_print(&sites);
	EXPECT_GE(sites.n, 4);
	expect_balance(keeper);
}

TEST_IF_INJECTED(first_open, walk_first_open, 120)

static long run_close(struct scene *s)
{
	int fd = s->d.fd;

	if (s->d.gen && munmap((void *)s->d.gen, PAGE))
		return -errno;
	s->d.gen = NULL;
	s->d.fd = -1;
	return ret_errno(close(fd));
}

static long with_regions(struct scene *s)
{
	long ret = batch(s->d.fd, UMMUNOTIFY_REGISTER_BATCH, s->entries, MANY,
			 &s->b);

	return ret ? ret : -(long)s->b.error;
}

WALK(close, .features = ALL_FEATURES, .before = with_regions,
     .run = run_close, .closes = true)

/* Where nothing else is mapped, so that page tables are allocated too. */
static long map_far(struct scene *s, off_t offset)
{
	void *p = mmap((void *)(1UL << 44), PAGE, PROT_READ,
		       MAP_SHARED | MAP_FIXED_NOREPLACE, s->d.fd, offset);

	if (p == MAP_FAILED)
		return -errno;
	s->mapped = p;
	return 0;
}

static long run_map(struct scene *s)
{
	return map_far(s, 0);
}

static long run_map_slots(struct scene *s)
{
	return map_far(s, PAGE);
}

static void after_map(struct scene *s, long ret)
{
	(void)ret;
	EXPECT_EQ(*s->mapped, 0);
	EXPECT_EQ(*s->mapped, *s->d.gen);
}

/* A fault whose page table cannot be had happens again. */
static long run_touch(struct scene *s)
{
	return *s->mapped;
}

WALK(map, .run = run_map, .after = after_map)
WALK(map_slots, .features = ALL_FEATURES, .run = run_map_slots,
     .after = after_map)
WALK(fault, .before = run_map, .run = run_touch, .after = after_map)
WALK(fault_slots, .features = ALL_FEATURES,
     .before = run_map_slots, .run = run_touch, .after = after_map)

/* What is negotiated */

static long run_exchange(struct scene *s)
{
	__u32 mask = 0;

	return exchange(s->d.fd, &mask);
}

static long run_negotiate(struct scene *s, __u32 features, __u32 slots)
{
	struct ummunotify_negotiate n = {
		.size = sizeof(n), .features = features, .slots = slots,
	};
	long ret = negotiate(s->d.fd, &n);

	if (!ret) {
		EXPECT_EQ(n.features, features);
		EXPECT_GE(n.slots, slots);
	}
	return ret;
}

WALK(exchange, .run = run_exchange)

#define WALK_FEATURE(name_, slots_, ...)				\
	static long run_negotiate_##name_(struct scene *s)		\
	{								\
		return run_negotiate(s, FEATURE(name_), slots_);	\
	}								\
	WALK(negotiate_##name_, .run = run_negotiate_##name_, __VA_ARGS__)

WALK_FEATURE(FILTER, 0)
WALK_FEATURE(VERIFY, 0)
WALK_FEATURE(KINDS, 0)
WALK_FEATURE(GENSLOT, 4096, .sites = 3)
WALK_FEATURE(BATCH, 0)
WALK_FEATURE(ONESHOT, 0)
WALK_FEATURE(NOWAKE, 0)
WALK_FEATURE(STRICT, 0)
WALK_FEATURE(DELIVERED, 0)
WALK_FEATURE(STATS, 0)

/* The array of pages takes more than one page itself. */
static long run_negotiate_all(struct scene *s)
{
	return run_negotiate(s, ALL_FEATURES, 1000 * SLOTS_PER_PAGE);
}

WALK(negotiate_everything, .run = run_negotiate_all, .sparse = true, .sites = 3)

/* REGISTER and UNREGISTER */

static long run_register_all_flags(struct scene *s)
{
	__u32 flags = UMMUNOTIFY_REGISTER_SLOT | UMMUNOTIFY_REGISTER_NOWAKE |
		UMMUNOTIFY_REGISTER_ONESHOT | UMMUNOTIFY_KINDS_FILTERABLE;

	return watch_flags(s->d.fd, s->p, PAGE, OTHER, flags, 5);
}

static long run_register_one(struct scene *s)
{
	return watch(s->d.fd, s->p, PAGE, OTHER);
}

static void after_register(struct scene *s, long ret)
{
	__u64 gen = *s->d.gen;

	EXPECT_EQ(ret, 0);
	EXPECT_EQ(watch(s->d.fd, s->p, PAGE, OTHER), -EINVAL);
	EXPECT(hit(s->p));
	EXPECT_EQ(*s->d.gen, gen + 1);
	EXPECT_ONLY(&s->d, OTHER);
}

WALK(register, .run = run_register_one, .after = after_register, .sites = 1)
WALK(register_with_everything, .features = ALL_FEATURES & ~FEATURE(KINDS),
     .run = run_register_all_flags, .after = after_register,
     .sites = 1)

static long run_register_batch(struct scene *s)
{
	return batch(s->d.fd, UMMUNOTIFY_REGISTER_BATCH, s->entries, MANY,
		     &s->b);
}

static bool batch_error_is_clean(const struct ummunotify_batch *b)
{
	return b->done == MANY ? !b->error :
		b->error == ENOMEM || b->error == EFAULT;
}

/* What it says is done is done, and the rest can be done by another. */
static void after_register_batch(struct scene *s, long ret)
{
	__u32 done = s->b.done;

	EXPECT_EQ(ret, 0);
	EXPECT(batch_error_is_clean(&s->b));
	EXPECT_EQ(stats_of(&s->d)->regions, done);
	EXPECT_EQ(batch(s->d.fd, UMMUNOTIFY_REGISTER_BATCH, s->entries + done,
			MANY - done, &s->b), 0);
	EXPECT_EQ(s->b.error, 0);
	EXPECT_EQ(stats_of(&s->d)->regions, MANY);
	EXPECT(hit(s->p));
	EXPECT_EQ(drain(s->d.fd), MANY);
}

WALK(register_batch, .features = ALL_FEATURES, .run = run_register_batch,
     .after = after_register_batch, .sparse = true, .sites = 2)

static long run_unregister(struct scene *s)
{
	return unwatch(s->d.fd, OTHER);
}

WALK(unregister, .before = run_register_one, .run = run_unregister)

static long run_unregister_batch(struct scene *s)
{
	__u64 cookie[MANY];
	__u32 i;

	for (i = 0; i < MANY; i++)
		cookie[i] = 100 + i;
	return batch(s->d.fd, UMMUNOTIFY_UNREGISTER_BATCH, cookie, MANY, &s->b);
}

static void after_unregister_batch(struct scene *s, long ret)
{
	EXPECT_EQ(ret, 0);
	EXPECT(batch_error_is_clean(&s->b));
	EXPECT_EQ(stats_of(&s->d)->regions, MANY - s->b.done);
	EXPECT_EQ(unwatch_all(s->d.fd), 0);
	EXPECT_EQ(stats_of(&s->d)->regions, 0);
}

WALK(unregister_batch, .features = ALL_FEATURES, .before = with_regions,
     .run = run_unregister_batch, .after = after_unregister_batch, .sites = 1)

static long run_unregister_all(struct scene *s)
{
	return unwatch_all(s->d.fd);
}

WALK(unregister_all, .features = ALL_FEATURES, .before = with_regions,
     .run = run_unregister_all)

/* NOTE and VERIFY, which fault the pages in */

/* New shared memory: also who only reads needs pages. */
static long make_absent(struct scene *s)
{
	return mmap(s->p, PAGES * PAGE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == s->p ?
		0 : -errno;
}

static long absent(struct scene *s)
{
	return watch(s->d.fd, s->p, PAGES * PAGE, OTHER) ?: make_absent(s);
}

static long run_note(struct scene *s)
{
	return note(s->d.fd, OTHER);
}

static long noted(struct scene *s)
{
	long ret = watch(s->d.fd, s->p, PAGES * PAGE, OTHER);

	s->other = ret ? -1 : pin(s->p, PAGES * PAGE);
	if (s->other < 0)
		return s->other;
	return note(s->d.fd, OTHER);
}

static long noted_and_gone(struct scene *s)
{
	long ret = noted(s);

	return ret ? ret : make_absent(s);
}

static long run_verify(struct scene *s)
{
	return verify(s->d.fd, OTHER);
}

/* What could not be looked at has changed: that is always a right answer. */
static void after_verify_gone(struct scene *s, long ret)
{
	EXPECT_EQ(ret, 0);
	EXPECT_EQ(drain(s->d.fd), 0);
}

static void after_verify(struct scene *s, long ret)
{
	EXPECT_GE(ret, 0);
	EXPECT_EQ(verify(s->d.fd, OTHER), 1);
}

WALK(note, .features = ALL_FEATURES, .before = absent, .run = run_note,
     .sites = 2)
WALK(verify_unchanged, .features = ALL_FEATURES, .before = noted,
     .run = run_verify, .after = after_verify, .sites = 1)
WALK(verify_changed, .features = ALL_FEATURES, .before = noted_and_gone,
     .run = run_verify, .after = after_verify_gone, .sites = 1)

/* read, poll and others who wait */

static long with_event(struct scene *s)
{
	long ret = watch(s->d.fd, s->p, PAGE, OTHER);

	return ret ? ret : hit(s->p) ? 0 : -EIO;
}

static long run_read(struct scene *s)
{
	return read_events(s->d.fd, s->events, READ_MAX);
}

static long with_event_and_absent_buffer(struct scene *s)
{
	madvise(s->events, PAGE, MADV_DONTNEED);
	return with_event(s);
}

/* Whatever failed before it: no event is lost. */
static void after_read(struct scene *s, long ret)
{
	EXPECT_EQ(ret, 2);
	EXPECT_HINT(s->events[0], OTHER, s->p, s->p + PAGE);
	EXPECT_LAST(s->events[1], *s->d.gen);
	EXPECT_QUIET(&s->d);
}

WALK(read, .before = with_event, .run = run_read, .after = after_read,
     .sites = 2)
WALK(read_to_absent_memory, .before = with_event_and_absent_buffer,
     .run = run_read, .after = after_read, .sites = 2)

static long run_poll(struct scene *s)
{
	return poll_now(s->d.fd);
}

static void after_poll(struct scene *s, long ret)
{
	(void)s;
	EXPECT_EQ(ret, POLLIN | POLLRDNORM);
}

WALK(poll, .before = with_event, .run = run_poll, .after = after_poll)

static long run_epoll(struct scene *s)
{
	struct epoll_event ev = { .events = EPOLLIN };
	long ret;

	if (s->other < 0)
		s->other = epoll_create1(EPOLL_CLOEXEC);
	if (s->other < 0)
		return -errno;
	if (epoll_ctl(s->other, EPOLL_CTL_ADD, s->d.fd, &ev) && errno != EEXIST)
		return -errno;
	ret = epoll_wait(s->other, &ev, 1, 0);
	/* What could not be copied is still there. */
	return ret_errno(ret ? ret : epoll_wait(s->other, &ev, 1, 0));
}

static void after_epoll(struct scene *s, long ret)
{
	(void)s;
	EXPECT_EQ(ret, 1);
}

WALK(epoll, .before = with_event, .run = run_epoll, .after = after_epoll)

static long run_fasync(struct scene *s)
{
	return ret_errno(fcntl(s->d.fd, F_SETFL, O_NONBLOCK | O_ASYNC));
}

static void after_fasync(struct scene *s, long ret)
{
	EXPECT_EQ(ret, 0);
	EXPECT(fcntl(s->d.fd, F_GETFL) & O_ASYNC);
}

WALK(fasync, .run = run_fasync, .after = after_fasync)

static long run_fdinfo(struct scene *s)
{
	char path[64], text[1024];
	long ret;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", s->d.fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = ret_errno(read(fd, text, sizeof(text) - 1));
	close(fd);
	if (ret > 0) {
		text[ret] = '\0';
		EXPECT(strstr(text, "ummunotify-verified:"));
	}
	return ret;
}

/* An inode that cannot be had reads as a file that is not there. */
WALK(fdinfo, .run = run_fdinfo, .error = -ENOENT)

/* Changes of memory that fail half-way: what was done is told. */

static long with_region(struct scene *s)
{
	return watch(s->d.fd, s->p, PAGES * PAGE, OTHER);
}

static long run_split(struct scene *s)
{
	return ret_errno(munmap(s->p + 3 * PAGE, PAGE));
}

static long run_protect(struct scene *s)
{
	return ret_errno(mprotect(s->p + 3 * PAGE, PAGE, PROT_READ));
}

static long run_move(struct scene *s)
{
	void *to = (void *)(1UL << 44);
	void *p = mremap(s->p + 3 * PAGE, PAGE, PAGE,
			 MREMAP_MAYMOVE | MREMAP_FIXED, to);

	if (p == MAP_FAILED)
		return -errno;
	s->mapped = p;
	return 0;
}

static void after_change(struct scene *s, long ret)
{
	EXPECT_EQ(ret, 0);
	EXPECT_GT(*s->d.gen, 0);
	EXPECT_ONLY(&s->d, OTHER);
}

WALK(munmap, .before = with_region, .run = run_split, .after = after_change)
WALK(mprotect, .before = with_region, .run = run_protect,
     .after = after_change)
WALK(mremap, .before = with_region, .run = run_move, .after = after_change)

static long run_fork(struct scene *s)
{
	pid_t pid = fork();

	if (!pid)
		_exit(ret_errno(read(s->d.fd, s->events, PAGE)) != -EPERM);
	if (pid < 0)
		return -errno;
	return child_status(pid);
}

static void after_fork(struct scene *s, long ret)
{
	EXPECT_EQ(ret, 0);
	EXPECT_GT(*s->d.gen, 0);
}

WALK(fork, .before = with_region, .run = run_fork, .after = after_fork,
     .error = -EAGAIN, .sparse = true)

/* Loading the module, which others must not use meanwhile */

/*
 * A copy in memory, open: the file system that it is on must not be the one
 * that fails.
 */
static int module_open(void)
{
	const char *path = getenv("UMMUNOTIFY_KO");
	const char *copy = "/dev/shm/ummunotify.ko";
	char bytes[4096];
	ssize_t n;
	int from, to;

	if (!path)
		SKIP("UMMUNOTIFY_KO does not name the module");
	from = open(path, O_RDONLY | O_CLOEXEC);
	to = open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	while ((n = read(from, bytes, sizeof(bytes))) > 0) {
		if (write(to, bytes, n) != n)
			return -1;
	}
	close(from);
	close(to);
	to = open(copy, O_RDONLY | O_CLOEXEC);
	unlink(copy);
	return n ? -1 : to;
}

static long load(int ko)
{
	return ret_errno(syscall(SYS_finit_module, ko, "", 0));
}

static bool unload(void)
{
	return !syscall(SYS_delete_module, "ummunotify", O_NONBLOCK);
}

static void load_module(void)
{
	unsigned int n, step, before = 0;
	bool dense = false;
	struct sites sites;
	bool injected;
	int inject, ko = module_open();
	long ret;

	ASSERT_GE(ko, 0);
	ASSERT(inject_init(true));
	inject = inject_open();
	ASSERT_GE(inject, 0);
	ASSERT(sites_init(&sites));
	for (n = 1; ; n += step) {
		struct dev d;

		ASSERT(WAIT_FOR(unload(), 10000));
		ASSERT(inject_begin(inject, n));
		ret = load(ko);
		injected = inject_end(inject);
		sites_read(&sites);
		sites.failures += injected;
		sites.errors += ret < 0;
		if (ret < 0)
			ASSERT_EQ(load(ko), 0);
		ASSERT(dev_open(&d));
		dev_close(&d);
		if (!injected)
			break;
		/* The many before those of the module itself are a sample. */
		step = dense ? 1 : 1 + n / 20;
		if (!dense && sites.n) {
			dense = true;
			n = before;
		}
		before = n;
	}
	EXPECT_EQ(ret, 0);
	EXPECT_GT(sites.errors, 0);
	sites_print(&sites);
	EXPECT_GE(sites.n, 2);
}

TEST_IF_INJECTED(load_module, load_module, 600)
