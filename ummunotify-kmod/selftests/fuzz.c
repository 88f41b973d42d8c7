// SPDX-License-Identifier: GPL-2.0
/*
 * Calls with arguments that make sense now and then, from several threads: no
 * oops, which the console would show, no hang, and nothing left over.
 */
#include "feature.h"

#define SECONDS	5
#define FILES	4
#define PAGES	64

static struct {
	int fd[FILES];
	char *p;
	long until;
	unsigned long good, bad;
} fuzz;

static const unsigned int cmds[] = {
	UMMUNOTIFY_REGISTER_REGION, UMMUNOTIFY_REGISTER_REGION,
	UMMUNOTIFY_UNREGISTER_REGION, UMMUNOTIFY_EXCHANGE_FEATURES,
	UMMUNOTIFY_NEGOTIATE, UMMUNOTIFY_REGISTER_BATCH,
	UMMUNOTIFY_UNREGISTER_BATCH, UMMUNOTIFY_UNREGISTER_ALL,
	UMMUNOTIFY_NOTE, UMMUNOTIFY_VERIFY, UMMUNOTIFY_IDENTIFY,
	UMMUNOTIFY_CALL, UMMUNOTIFY_CALL,
};

/* xorshift64 */
static __u64 rnd(__u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A pointer where nothing can be read or written. */
static void *bad_pointer(__u64 *s)
{
	const __u64 where[] = {
		0, 1, ~0ULL, 1ULL << 47, 0xffff888000000000, 0xffffffff81000000,
		(1ULL << 47) - PAGE, 1ULL << 63,
	};

	if (rnd(s) % 2)
		return fuzz.p - PAGE + rnd(s) % 64;
	return (void *)(uintptr_t)where[rnd(s) % ARRAY_LEN(where)];
}

static __u64 some_address(__u64 *s)
{
	switch (rnd(s) % 8) {
	case 0:
		return rnd(s);
	case 1:
		return -(rnd(s) % (4 * PAGE));
	default:
		return addr(fuzz.p) + rnd(s) % (PAGES * PAGE);
	}
}

static void some_region(__u64 *s, struct ummunotify_register_ioctl *r)
{
	r->start = some_address(s);
	r->end = rnd(s) % 8 ? r->start + rnd(s) % (8 * PAGE) : some_address(s);
	r->user_cookie = rnd(s) % 32;
	r->flags = rnd(s) % 4 ? rnd(s) & 0x77c : rnd(s);
	r->reserved = rnd(s) % 4 ? rnd(s) % 1024 : rnd(s);
}

static void some_ioctl(__u64 *s, int fd)
{
	struct ummunotify_register_ioctl r[200];
	unsigned int cmd = cmds[rnd(s) % ARRAY_LEN(cmds)], i;
	struct {
		union {
			struct ummunotify_negotiate n;
			struct ummunotify_batch b;
			struct ummunotify_register_ioctl r;
			struct ummunotify_call c;
			__u64 cookie;
		};
		__u64 more[8];
	} arg;
	void *ptr = &arg;
	long ret;

	for (i = 0; i < sizeof(arg) / sizeof(__u64); i++)
		((__u64 *)&arg)[i] = rnd(s) & rnd(s);
	switch (cmd) {
	case UMMUNOTIFY_NEGOTIATE:
		arg.n.size = rnd(s) % 8 ? sizeof(arg.n) : rnd(s) % 128;
		arg.n.slots = rnd(s) % 2048;
		break;
	case UMMUNOTIFY_REGISTER_BATCH:
	case UMMUNOTIFY_UNREGISTER_BATCH:
		for (i = 0; i < ARRAY_LEN(r); i++)
			some_region(s, &r[i]);
		for (i = 0; i < 50 && cmd == UMMUNOTIFY_UNREGISTER_BATCH; i++)
			((__u64 *)r)[i] = rnd(s) % 32;
		arg.b.size = rnd(s) % 8 ? sizeof(arg.b) : rnd(s) % 128;
		arg.b.count = rnd(s) % ARRAY_LEN(r);
		arg.b.entries = addr(rnd(s) % 8 ? r : bad_pointer(s));
		break;
	case UMMUNOTIFY_REGISTER_REGION:
		some_region(s, &arg.r);
		break;
	case UMMUNOTIFY_CALL:
		some_region(s, &r[0]);
		arg.c.size = rnd(s) % 8 ? sizeof(arg.c) : rnd(s) % 128;
		arg.c.call = rnd(s) % 4 ? cmds[rnd(s) % ARRAY_LEN(cmds)] :
			     UMMUNOTIFY_READ;
		arg.c.identity = 1 + rnd(s) % 2;
		arg.c.arg = addr(rnd(s) % 8 ? r : bad_pointer(s));
		arg.c.len = rnd(s) % 4 ? 0 : rnd(s) % sizeof(r);
		break;
	case UMMUNOTIFY_IDENTIFY:
		arg.cookie = rnd(s) % 3;
		break;
	default:
		arg.cookie = rnd(s) % 32;
	}
	if (!(rnd(s) % 16))
		ptr = bad_pointer(s);
	if (!(rnd(s) % 32))
		cmd = rnd(s) % 2 ? cmd ^ 1u << rnd(s) % 32 : rnd(s);
	ret = ioctl(fd, cmd, ptr);
	__atomic_add_fetch(ret < 0 ? &fuzz.bad : &fuzz.good, 1,
			   __ATOMIC_RELAXED);
}

static void some_mapping(__u64 *s, int fd)
{
	size_t len = 1 + rnd(s) % (4 * PAGE);
	int prot = rnd(s) % 8;
	volatile char *p;

	p = mmap(NULL, len, prot, rnd(s) % 2 ? MAP_SHARED : MAP_PRIVATE, fd,
		 rnd(s) % 16 ? rnd(s) % 4 * PAGE : rnd(s) & ~(PAGE - 1) &
		 LONG_MAX);
	if (p == MAP_FAILED)
		return;
	EXPECT(!(prot & PROT_WRITE));
	if (prot & PROT_READ)
		(void)p[0];
	if (rnd(s) % 2)
		mprotect((void *)p, len, rnd(s) % 2 ? PROT_READ : PROT_NONE);
	if (rnd(s) % 2)
		madvise((void *)p, len, MADV_DONTNEED);
	munmap((void *)p, len);
}

/* The memory under it changes too. */
static void some_change(__u64 *s)
{
	size_t first = rnd(s) % PAGES, n = 1 + rnd(s) % (PAGES - first);
	char *p = fuzz.p + first * PAGE;

	switch (rnd(s) % 4) {
	case 0:
		madvise(p, n * PAGE, MADV_DONTNEED);
		break;
	case 1:
		mprotect(p, n * PAGE, rnd(s) % 2 ? PROT_READ :
			 PROT_READ | PROT_WRITE);
		break;
	case 2:
		if (mmap(p, n * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED |
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != p)
			abort();
		break;
	default:
		if (!(rnd(s) % 16))
			clear_refs("4");
	}
}

static void some_read(__u64 *s, int fd)
{
	struct ummunotify_event ev[READ_MAX + 1];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t len = rnd(s) % 4 ? sizeof(ev) : rnd(s) % sizeof(ev);
	ssize_t ret;

	ret = read(fd, rnd(s) % 8 ? (void *)ev : bad_pointer(s), len);
	if (ret >= 0)
		EXPECT(ret <= 4096 && ret % sizeof(*ev) == 0);
	poll(&p, 1, 0);
	if (!(rnd(s) % 8))
		fcntl(fd, F_SETFL, O_NONBLOCK | (rnd(s) % 2 ? O_ASYNC : 0));
	fcntl(fd, F_SETOWN, getpid());
}

static void some_file(__u64 *s, int *fd)
{
	char path[64], text[1024];
	int info;

	if (rnd(s) % 2) {
		close(__atomic_exchange_n(fd, open(DEVICE, O_RDONLY | O_CLOEXEC |
						   O_NONBLOCK),
					  __ATOMIC_SEQ_CST));
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d",
		 __atomic_load_n(fd, __ATOMIC_SEQ_CST));
	info = open(path, O_RDONLY | O_CLOEXEC);
	if (info >= 0) {
		while (read(info, text, sizeof(text)) > 0)
			;
		close(info);
	}
}

static void *fuzzer(void *arg)
{
	__u64 state = (uintptr_t)arg * 0x9e3779b97f4a7c15ULL, *s = &state;

	while (now_ms() < fuzz.until) {
		int *slot = &fuzz.fd[rnd(s) % FILES];
		int fd = __atomic_load_n(slot, __ATOMIC_SEQ_CST);

		switch (rnd(s) % 16) {
		case 0:
			some_mapping(s, fd);
			break;
		case 1:
		case 2:
			some_change(s);
			break;
		case 3:
		case 4:
			some_read(s, fd);
			break;
		case 5:
			if (!(rnd(s) % 8))
				some_file(s, slot);
			break;
		default:
			some_ioctl(s, fd);
		}
	}
	return NULL;
}

TEST(calls_at_random)
{
	int keeper = balance_begin();
	pthread_t t[4];
	uintptr_t i;
	struct dev d;

	signal(SIGIO, SIG_IGN);
	fuzz.p = area(PAGES);
	ASSERT(fuzz.p);
	for (i = 0; i < FILES; i++)
		fuzz.fd[i] = open(DEVICE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	fuzz.until = now_ms() + SECONDS * 1000;
	for (i = 0; i < ARRAY_LEN(t); i++)
		ASSERT_EQ(pthread_create(&t[i], NULL, fuzzer, (void *)(i + 1)),
			  0);
	for (i = 0; i < ARRAY_LEN(t); i++)
		pthread_join(t[i], NULL);
	/* It was not only refused. */
	EXPECT_GT(fuzz.good, 100);
	EXPECT_GT(fuzz.bad, 100);
	for (i = 0; i < FILES; i++)
		close(fuzz.fd[i]);
	expect_balance(keeper);
	ASSERT(dev_open(&d));
	EXPECT_EQ(watch(d.fd, fuzz.p, PAGE, 1), 0);
	ASSERT(hit(fuzz.p));
	EXPECT_ONLY(&d, 1);
}
