// SPDX-License-Identifier: GPL-2.0
/*
 * The interface as a 32-bit process sees it on a 64-bit kernel.
 *
 * Built with -m32 and without a C library, which many machines have in
 * 64 bits only.  Built for anything but i386 it is a program that says that
 * it was skipped.
 */
#ifndef __i386__
#include <stdio.h>

int main(void)
{
	puts("TAP version 13\n1..0 # SKIP the compiler makes no 32-bit programs");
	return 0;
}
#else

#include <stddef.h>

#include <linux/errno.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/poll.h>
#include <linux/unistd.h>
#include <linux/ummunotify.h>

#define PAGE	4096U

_Static_assert(sizeof(void *) == 4, "32 bits");
_Static_assert(sizeof(struct ummunotify_register_ioctl) == 32, "register");
_Static_assert(sizeof(struct ummunotify_event) == 32, "event");
_Static_assert(UMMUNOTIFY_REGISTER_REGION == 0x40205502, "ioctl 2");

static long sys(long nr, long a, long b, long c)
{
	long ret;

	asm volatile("int $0x80" : "=a" (ret)
		     : "a" (nr), "b" (a), "c" (b), "d" (c) : "memory");
	return ret;
}

/* The compiler calls these by itself. */
void *memset(void *p, int c, size_t n)
{
	volatile char *q = p;

	while (n--)
		*q++ = c;
	return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
	volatile char *q = to;
	const char *r = from;

	while (n--)
		*q++ = *r++;
	return to;
}

static long length(const char *s)
{
	long n = 0;

	while (s[n])
		n++;
	return n;
}

static void say(const char *s)
{
	sys(__NR_write, 1, (long)s, length(s));
}

static void say_number(unsigned int n)
{
	char digits[11];
	int i = 10;

	digits[i] = 0;
	do {
		digits[--i] = '0' + n % 10;
		n /= 10;
	} while (n);
	say(digits + i);
}

static int failed;

static void check(int ok, const char *what, unsigned int line)
{
	if (ok)
		return;
	failed = 1;
	say("# abi32.c:");
	say_number(line);
	say(": not true: ");
	say(what);
	say("\n");
}

#define EXPECT(cond) check(!!(cond), #cond, __LINE__)

/* The call with all its arguments in memory: no sixth register is needed. */
static long map(unsigned long len, long prot, long flags, long fd)
{
	unsigned long arg[6] = { 0, len, prot, flags, fd, 0 };

	return sys(__NR_mmap, (long)arg, 0, 0);
}

static int map_failed(long p)
{
	return (unsigned long)p > -4096UL;
}

static char *memory(unsigned long pages)
{
	long p = map(pages * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1);

	EXPECT(!map_failed(p));
	memset((void *)p, 1, pages * PAGE);
	return (void *)p;
}

static int fd;
static const volatile __u64 *gen;

static void device(void)
{
	long p;

	fd = sys(__NR_open, (long)"/dev/ummunotify", O_RDONLY | O_NONBLOCK, 0);
	EXPECT(fd >= 0);
	p = map(PAGE, PROT_READ, MAP_SHARED, fd);
	EXPECT(!map_failed(p));
	gen = (void *)p;
}

static long watch_range(__u64 start, __u64 end, __u64 cookie)
{
	struct ummunotify_register_ioctl r = {
		start, end, cookie, 0xdeadbeef, 0xdeadbeef,
	};

	return sys(__NR_ioctl, fd, UMMUNOTIFY_REGISTER_REGION, (long)&r);
}

static long watch(const char *p, unsigned long len, __u64 cookie)
{
	return watch_range((unsigned long)p, (unsigned long)p + len, cookie);
}

static long unwatch(__u64 cookie)
{
	return sys(__NR_ioctl, fd, UMMUNOTIFY_UNREGISTER_REGION, (long)&cookie);
}

static void opens(void)
{
	EXPECT(sys(__NR_open, (long)"/dev/ummunotify", O_RDWR, 0) == -EINVAL);
	device();
	EXPECT(*gen == 0);
}

static void exchanges(void)
{
	__u32 mask = 0xa5a5a5a5;

	device();
	EXPECT(!sys(__NR_ioctl, fd, UMMUNOTIFY_EXCHANGE_FEATURES, (long)&mask));
	EXPECT(mask == 0);
	EXPECT(sys(__NR_ioctl, fd, UMMUNOTIFY_EXCHANGE_FEATURES, (long)&mask) ==
	       -EINVAL);
	EXPECT(sys(__NR_ioctl, fd, _IO('U', 200), 0) == -ENOTTY);
	EXPECT(sys(__NR_ioctl, fd, UMMUNOTIFY_REGISTER_REGION, 0) == -EFAULT);
}

static void cookies_have_64_bits(void)
{
	const __u64 one = 0x100000001ULL, two = 0x200000001ULL;
	char *p = memory(1);

	device();
	EXPECT(watch(p, PAGE, one) == 0);
	EXPECT(watch(p, PAGE, one) == -EINVAL);
	EXPECT(watch(p, PAGE, two) == 0);
	EXPECT(unwatch(1) == -EINVAL);
	EXPECT(unwatch(one) == 0);
	EXPECT(unwatch(one) == -EINVAL);
	EXPECT(unwatch(two) == 0);
}

/* A driver that cuts addresses to 32 bits takes these for others. */
static void addresses_have_64_bits(void)
{
	const __u64 high = 1ULL << 32;
	char *p = memory(1);

	device();
	EXPECT(watch_range(2 * high, high, 1) == -EINVAL);
	EXPECT(watch_range(high + 1, 2, 1) == -EINVAL);
	EXPECT(watch_range(high + (unsigned long)p,
			   high + (unsigned long)p + PAGE, 1) == 0);
	EXPECT(watch_range((unsigned long)p, ~0ULL, 2) == 0);
	sys(__NR_munmap, (long)p, PAGE, 0);
	EXPECT(*gen == 1);
	EXPECT(unwatch(1) == 0);
	EXPECT(unwatch(2) == 0);
}

static void reports(void)
{
	struct ummunotify_event ev[3];
	struct pollfd poll = { 0, POLLIN, 0 };
	char *p = memory(4);
	__u64 from = (unsigned long)p + PAGE;

	device();
	poll.fd = fd;
	EXPECT(watch(p, 4 * PAGE, 0x123456789abcdefULL) == 0);
	EXPECT(sys(__NR_poll, (long)&poll, 1, 0) == 0);
	EXPECT(sys(__NR_read, fd, (long)ev, sizeof(ev)) == -EAGAIN);
	EXPECT(sys(__NR_munmap, (long)p + PAGE, PAGE, 0) == 0);
	EXPECT(*gen == 1);
	EXPECT(sys(__NR_poll, (long)&poll, 1, 0) == 1);
	EXPECT(sys(__NR_read, fd, (long)ev, sizeof(ev[0]) - 1) == -EINVAL);
	EXPECT(sys(__NR_read, fd, (long)ev, sizeof(ev)) == 2 * sizeof(ev[0]));
	EXPECT(ev[0].type == UMMUNOTIFY_EVENT_TYPE_INVAL);
	EXPECT(ev[0].flags == UMMUNOTIFY_EVENT_FLAG_HINT);
	EXPECT(ev[0].hint_start == from);
	EXPECT(ev[0].hint_end == from + PAGE);
	EXPECT(ev[0].user_cookie_counter == 0x123456789abcdefULL);
	EXPECT(ev[1].type == UMMUNOTIFY_EVENT_TYPE_LAST);
	EXPECT(ev[1].user_cookie_counter == 1);
	EXPECT(sys(__NR_close, fd, 0, 0) == 0);
}

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{ "opens", opens },
	{ "exchanges", exchanges },
	{ "cookies_have_64_bits", cookies_have_64_bits },
	{ "addresses_have_64_bits", addresses_have_64_bits },
	{ "reports", reports },
};

#define NR_TESTS (sizeof(tests) / sizeof(tests[0]))

static int contains(const char *s, const char *part)
{
	long i;

	for (; ; s++) {
		for (i = 0; part[i] && s[i] == part[i]; i++)
			;
		if (!part[i])
			return 1;
		if (!*s)
			return 0;
	}
}

/* The stack as the kernel leaves it: argc, argv, ... */
__attribute__((noreturn, used)) void start(long *stack)
{
	const char *filter = stack[0] > 1 ? (const char *)stack[2] : "";
	unsigned int i, total = 0, number = 0, bad = 0;

	for (i = 0; i < NR_TESTS; i++)
		total += contains(tests[i].name, filter);
	say("TAP version 13\n1..");
	say_number(total);
	say("\n");
	for (i = 0; i < NR_TESTS; i++) {
		if (!contains(tests[i].name, filter))
			continue;
		failed = 0;
		tests[i].run();
		bad |= failed;
		say(failed ? "not ok " : "ok ");
		say_number(++number);
		say(" ");
		say(tests[i].name);
		say("\n");
	}
	if (!total)
		say("Bail out! no test matches\n");
	for (;;)
		sys(__NR_exit_group, bad || !total, 0, 0);
}

asm(".globl _start\n"
    "_start:\n"
    "	xor	%ebp, %ebp\n"
    "	mov	%esp, %eax\n"
    "	and	$-16, %esp\n"
    "	sub	$12, %esp\n"
    "	push	%eax\n"
    "	call	start\n");

#endif /* __i386__ */
