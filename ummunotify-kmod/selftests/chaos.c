// SPDX-License-Identifier: GPL-2.0
/*
 * Many threads of many processes use the device and change memory, each other's
 * too, in any order: memory of their own, a file that all of them map, files of
 * the device that they hand to each other.  They fork, execute themselves anew,
 * and are killed at any time.
 *
 * Meanwhile a thread of each process has memory of its own, and looks whether
 * what happens there is told each time.  In the end nothing may be left over.
 *
 * CHAOS_SECONDS and CHAOS_SEED in the environment say how long, and what; with
 * CHAOS_INJECT=1, allocations and copies fail at random too.
 */
#include "chaos_change.h"
#include "chaos_device.h"
#include "chaos_own.h"

#include <sys/prctl.h>
#include <sys/time.h>

#define SECONDS	5
#define THREADS	3

/* A child with the same files, which are none of its business. */
static void do_fork(__u64 *s)
{
	pid_t pid = one_in(s, 4) ? vfork() : fork();

	if (!pid) {
		static char *const argv[] = { "chaos", "--nothing", NULL };

		if (one_in(s, 2))
			execv("/proc/self/exe", argv);
		_exit(0);
	}
	if (pid < 0)
		return;
	count(&chaos.totals->forks);
	if (one_in(s, 4))
		kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void some_action(__u64 *s)
{
	if (one_in(s, 4))
		do_change(s);
	else
		do_device(s);
}

/* So that no reader waits for ever. */
static void start_timer(void)
{
	struct itimerval timer = { { 0, 20000 }, { 0, 20000 } };

	setitimer(ITIMER_REAL, &timer, NULL);
}

/* The same, but the child lives on a little, and uses what it has. */
static void do_fork_and_use(__u64 *s)
{
	pid_t pid = fork();
	int i;

	if (!pid) {
		/* That one is the parent's. */
		inject = -1;
		start_timer();
		for (i = 0; i < 30; i++)
			some_action(s);
		_exit(0);
	}
	if (pid < 0)
		return;
	count(&chaos.totals->forks);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

static void *actor(void *arg)
{
	__u64 state = (uintptr_t)arg, *s = &state;

	aside = ASIDE + 4 * BLOCK * __atomic_fetch_add(&chaos.actors, 1,
						       __ATOMIC_RELAXED);
	if (chaos.injects)
		inject = inject_open();
	while (!__atomic_load_n(&chaos.totals->stop, __ATOMIC_RELAXED)) {
		bool fails = inject >= 0 && one_in(s, 4) &&
			inject_begin(inject, 1 + rnd(s) % (1 << rnd(s) % 9));

		if (one_in(s, 200))
			do_fork(s);
		else if (one_in(s, 200))
			do_fork_and_use(s);
		else
			some_action(s);
		if (fails && inject_end(inject))
			count(&chaos.totals->injected);
	}
	return NULL;
}

static void observe(__u64 seed)
{
	__u64 state = seed, *s = &state;

	while (!__atomic_load_n(&chaos.totals->stop, __ATOMIC_RELAXED)) {
		if (one_in(s, 4))
			verify_own(s, &chaos.own);
		else
			watch_own(s, &chaos.own, chaos.own_slots);
	}
}

static void ignore(int sig)
{
	(void)sig;
}

/* Lives until it is killed. */
static void __attribute__((noreturn)) process(__u64 seed)
{
	struct sigaction sa = { .sa_handler = ignore };
	pthread_t t;
	uintptr_t i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGALRM, &sa, NULL);
	sigaction(SIGIO, &sa, NULL);
	/* Before others, who may use a number of a file after it was closed. */
	if (!dev_open_with(&chaos.own, FEATURE(FILTER) | FEATURE(VERIFY) |
			   FEATURE(GENSLOT), 512))
		_exit(1);
	chaos.own_slots = map_slots(chaos.own.fd, 512);
	for (i = 0; i < FILES; i++)
		chaos.fd[i] = open(DEVICE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	chaos.block = map_here(HERE, 2 * BLOCK, MAP_PRIVATE | MAP_ANONYMOUS,
			       -1);
	chaos.p = map_here(HERE + 4 * BLOCK, PAGES * PAGE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1);
	chaos.shared = map_here(HERE + 8 * BLOCK, SHARED_PAGES * PAGE,
				MAP_SHARED, chaos.memfd);
	if (!chaos.own_slots || !chaos.p || !chaos.block || !chaos.shared)
		_exit(1);
	start_timer();
	for (i = 0; i < THREADS; i++)
		pthread_create(&t, NULL, actor, (void *)(seed * 31 + i));
	observe(seed * 31 + i);
	for (;;)
		pause();
}

static long setting(const char *name, long otherwise)
{
	const char *text = getenv(name);

	return text ? atol(text) : otherwise;
}

static void start(int i, __u64 *s)
{
	pid_t pid = fork();

	if (!pid) {
		setpgid(0, 0);
		process(rnd(s) | 1);
	}
	if (pid > 0)
		setpgid(pid, pid);
	/* The child had its seed from here. */
	rnd(s);
	__atomic_store_n(&chaos.totals->pid[i], pid, __ATOMIC_SEQ_CST);
}

static void end(int i)
{
	pid_t pid = chaos.totals->pid[i];

	if (pid <= 0)
		return;
	__atomic_store_n(&chaos.totals->pid[i], 0, __ATOMIC_SEQ_CST);
	kill(-pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void run_chaos(__u64 seed, long seconds)
{
	long until = now_ms() + seconds * 1000;
	__u64 state = seed, *s = &state;
	int i;

	for (i = 0; i < PROCESSES; i++)
		start(i, s);
	while (now_ms() < until) {
		sleep_ms(rnd(s) % 1000 * harness_slowdown());
		i = rnd(s) % PROCESSES;
		end(i);
		count(&chaos.totals->killed);
		start(i, s);
		/* Children of those that were killed. */
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	chaos.totals->stop = true;
	sleep_ms(200);
	for (i = 0; i < PROCESSES; i++)
		end(i);
	while (waitpid(-1, NULL, 0) > 0)
		;
}

static void report(const struct totals *t, __u64 seed)
{
	dprintf(STDOUT_FILENO,
		"# seed %llu: %lu calls, of which %lu were refused, "
		"%lu changes of memory, %lu forks, %lu processes killed, "
		"%lu files passed on, %lu failures injected\n"
		"# %lu changes of own memory: %lu not told, %lu answers "
		"wrong\n", (unsigned long long)seed,
		t->calls, t->refused, t->changes, t->forks, t->killed,
		t->passed_on, t->injected, t->checks, t->lost, t->wrong);
}

static int nothing(int argc, char **argv)
{
	struct dev d = { .fd = 0 };

	(void)argc;
	(void)argv;
	/* Files that came along are none of this program's business. */
	while (++d.fd < 64)
		watch(d.fd, &d, sizeof(d), 1);
	return 0;
}

static void __attribute__((constructor)) set_helper(void)
{
	harness_helper = nothing;
}

static void everything_at_once(void)
{
	__u64 seed = setting("CHAOS_SEED", time(NULL)) | 1;
	long seconds = setting("CHAOS_SECONDS", SECONDS);
	int keeper = balance_begin();
	struct totals *t;
	struct dev d;
	char *p;

	t = mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED |
		 MAP_ANONYMOUS, -1, 0);
	ASSERT(t != MAP_FAILED);
	chaos.totals = t;
	chaos.injects = setting("CHAOS_INJECT", 0) && can_inject() &&
		inject_init(false);
	/* Pages that are the same become one, where the kernel can do that. */
	file_set("/sys/kernel/mm/ksm/run", "1");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	chaos.memfd = memfd_create("chaos", 0);
	ASSERT_GE(chaos.memfd, 0);
	ASSERT_EQ(ftruncate(chaos.memfd, SHARED_PAGES * PAGE), 0);
	ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, chaos.socket), 0);

	run_chaos(seed, seconds);
	report(t, seed);
	file_set("/sys/kernel/mm/ksm/run", "0");
	EXPECT_GT(t->calls - t->refused, 100);
	EXPECT_GT(t->changes, 100);
	EXPECT_GT(t->checks, 0);
	EXPECT_EQ(t->lost, 0);
	EXPECT_EQ(t->wrong, 0);

	/* With the sockets go the files that nobody received. */
	close(chaos.socket[0]);
	close(chaos.socket[1]);
	expect_balance(keeper);
	p = area(1);
	ASSERT(dev_open(&d));
	EXPECT_EQ(watch(d.fd, p, PAGE, 1), 0);
	ASSERT(hit(p));
	EXPECT_ONLY(&d, 1);
}

/* Longer than it runs. */
static struct harness_test test = {
	.name = "everything_at_once", .fn = everything_at_once,
};

static void __attribute__((constructor)) add(void)
{
	test.seconds = 60 + setting("CHAOS_SECONDS", SECONDS);
	harness_add(&test);
}
