/* SPDX-License-Identifier: GPL-2.0 */
/* Chaos: the device is used. */
#ifndef CHAOS_DEVICE_H
#define CHAOS_DEVICE_H

#include "chaos.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static void put_file(__u64 *s, int fd)
{
	int old = __atomic_exchange_n(some_slot(s), fd, __ATOMIC_SEQ_CST);

	if (old >= 0)
		close(old);
}

static void do_open(__u64 *s)
{
	struct ummunotify_negotiate n = {
		.size = sizeof(n), .features = rnd(s), .slots = rnd(s) % 2048,
	};
	int fd = open(DEVICE, O_RDONLY | (one_in(s, 2) ? O_CLOEXEC : 0) |
		      (one_in(s, 8) ? 0 : O_NONBLOCK));

	if (counted(fd) < 0)
		return;
	if (!one_in(s, 8))
		n.features |= FEATURE(BATCH) | FEATURE(VERIFY);
	if (!one_in(s, 8))
		counted(negotiate(fd, &n));
	put_file(s, fd);
}

static void fill(__u64 *s, struct ummunotify_register_ioctl *r)
{
	struct part m = some_memory(s);

	*r = (struct ummunotify_register_ioctl) {
		.start = addr(m.p), .end = addr(m.p) + m.len,
		.user_cookie = rnd(s) % COOKIES, .flags = rnd(s) & 0x77c,
		.reserved = rnd(s) % 1024,
	};
	if (!(r->flags & UMMUNOTIFY_REGISTER_SLOT))
		r->reserved = 0;
}

static void do_register(__u64 *s)
{
	struct ummunotify_register_ioctl r;

	fill(s, &r);
	counted(ioctl(some_file(s), UMMUNOTIFY_REGISTER_REGION, &r));
}

static void do_unregister(__u64 *s)
{
	counted(unwatch(some_file(s), rnd(s) % COOKIES));
}

static void do_batch(__u64 *s)
{
	struct ummunotify_register_ioctl r[COOKIES];
	__u32 i, n = rnd(s) % COOKIES;
	__u64 cookie[COOKIES];
	struct ummunotify_batch b;

	for (i = 0; i < n; i++) {
		fill(s, &r[i]);
		cookie[i] = r[i].user_cookie = (rnd(s) + i) % COOKIES;
	}
	switch (rnd(s) % 8) {
	case 0:
		counted(unwatch_all(some_file(s)));
		break;
	case 1:
	case 2:
		counted(batch(some_file(s), UMMUNOTIFY_UNREGISTER_BATCH, cookie,
			      n, &b));
		break;
	default:
		counted(batch(some_file(s), UMMUNOTIFY_REGISTER_BATCH, r, n,
			      &b));
	}
}

static void do_verify(__u64 *s)
{
	__u64 cookie = rnd(s) % COOKIES;
	int fd = some_file(s);

	counted(note(fd, cookie));
	if (one_in(s, 2))
		sched_yield();
	counted(verify(fd, cookie));
}

static void do_read(__u64 *s)
{
	struct ummunotify_event ev[READ_MAX];
	int fd = some_file(s);
	struct pollfd p = { .fd = fd, .events = POLLIN };

	/* A reader that waits is interrupted by a timer. */
	counted(read(fd, ev, sizeof(*ev) * (1 + rnd(s) % READ_MAX)));
	counted(poll(&p, 1, rnd(s) % 4));
	if (one_in(s, 8)) {
		fcntl(fd, F_SETOWN, getpid());
		counted(fcntl(fd, F_SETFL, O_NONBLOCK |
			      (one_in(s, 2) ? O_ASYNC : 0)));
	}
	if (one_in(s, 16)) {
		struct epoll_event ep = { .events = EPOLLIN | EPOLLET };
		int e = epoll_create1(EPOLL_CLOEXEC);

		counted(epoll_ctl(e, EPOLL_CTL_ADD, fd, &ep));
		counted(epoll_wait(e, &ep, 1, 1));
		close(e);
	}
}

/* Mapped pages come and go; the file may be closed meanwhile. */
static void do_map(__u64 *s)
{
	size_t len = (1 + rnd(s) % 3) * PAGE;
	void *p = mmap(NULL, len, PROT_READ,
		       one_in(s, 2) ? MAP_SHARED : MAP_PRIVATE, some_file(s),
		       rnd(s) % 4 * PAGE);

	if (counted(p == MAP_FAILED ? -1 : 0))
		return;
	touch(p, len, false);
	mprotect(p, PAGE, one_in(s, 2) ? PROT_NONE : PROT_READ);
	madvise(p, len, MADV_DONTNEED);
	touch(p, len, false);
	munmap(p, len);
}

static void do_fdinfo(__u64 *s)
{
	char path[64], text[1024];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", some_file(s));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	counted(read(fd, text, sizeof(text)));
	close(fd);
}

/* Files on their way to other processes, which outlive the sender. */
static void do_pass(__u64 *s)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fd = some_file(s);

	if (one_in(s, 2)) {
		*c = (struct cmsghdr) {
			.cmsg_len = CMSG_LEN(sizeof(int)),
			.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
		};
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
		counted(sendmsg(chaos.socket[0], &msg, MSG_DONTWAIT));
		return;
	}
	if (recvmsg(chaos.socket[1], &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
		return;
	c = CMSG_FIRSTHDR(&msg);
	if (!c || c->cmsg_len != CMSG_LEN(sizeof(int)))
		return;
	memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	count(&chaos.totals->passed_on);
	put_file(s, fd);
}

static void do_device(__u64 *s)
{
	static void (*const use[])(__u64 *) = {
		do_open, do_register, do_register, do_register, do_register,
		do_unregister, do_unregister, do_batch, do_batch, do_verify,
		do_read, do_read, do_map, do_fdinfo, do_pass,
	};

	use[rnd(s) % ARRAY_LEN(use)](s);
}

#endif /* CHAOS_DEVICE_H */
