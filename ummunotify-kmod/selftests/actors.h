/* SPDX-License-Identifier: GPL-2.0 */
/* Others than the thread itself who change its memory when told. */
#ifndef ACTORS_H
#define ACTORS_H

#include "change.h"

#include <sys/socket.h>

/* A process that does what comes over a socket, and says how it went. */
struct helper {
	int here, there;
};

static inline bool helper_init(struct helper *h)
{
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock))
		return false;
	h->here = sock[0];
	h->there = sock[1];
	return true;
}

static inline long helper_tell(struct helper *h, const struct change *c)
{
	long ret;

	if (write(h->here, c, sizeof(*c)) != sizeof(*c))
		return -EPIPE;
	return read(h->here, &ret, sizeof(ret)) == sizeof(ret) ? ret : -EPIPE;
}

static inline void helper_quit(struct helper *h)
{
	struct change c = { .verb = QUIT };

	if (write(h->here, &c, sizeof(c)) != sizeof(c))
		abort();
}

/* @more does what is no change of memory. */
static inline void helper_serve(struct helper *h,
				long (*more)(const struct change *c))
{
	struct change c;
	long ret;

	while (read(h->there, &c, sizeof(c)) == sizeof(c) && c.verb != QUIT) {
		ret = c.verb < NR_VERBS ? change_do(&c) : more(&c);
		if (write(h->there, &ret, sizeof(ret)) != sizeof(ret))
			return;
	}
}

/*
 * While it works its creator waits, so that they can share even what belongs
 * to a thread.
 */
static inline int sibling_main(void *arg)
{
	helper_serve(arg, NULL);
	return 0;
}

static inline pid_t sibling_start(struct helper *h)
{
	size_t len = 16 * PAGE;
	char *stack = mmap(NULL, len, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (stack == MAP_FAILED || !helper_init(h))
		return -1;
	return clone(sibling_main, stack + len, CLONE_VM | SIGCHLD, h);
}

/* An io_uring for one request at a time. */
struct ring {
	int fd;
	struct io_uring_sqe *sqe;
	char *rings;
	struct io_uring_params params;
};

static inline bool ring_init(struct ring *r)
{
	int prot = PROT_READ | PROT_WRITE;
	size_t len;

	memset(r, 0, sizeof(*r));
	r->fd = syscall(SYS_io_uring_setup, 1, &r->params);
	if (r->fd < 0)
		return false;
	len = r->params.cq_off.cqes +
	      r->params.cq_entries * sizeof(struct io_uring_cqe);
	r->rings = mmap(NULL, len, prot, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	r->sqe = mmap(NULL, PAGE, prot, MAP_SHARED, r->fd, IORING_OFF_SQES);
	return r->rings != MAP_FAILED && r->sqe != MAP_FAILED;
}

static inline __u32 *ring_word(struct ring *r, __u32 offset)
{
	return (__u32 *)(r->rings + offset);
}

/* madvise() by a thread of the kernel. */
static inline long ring_madvise(struct ring *r, const struct change *c)
{
	struct io_uring_params *p = &r->params;
	__u32 *tail = ring_word(r, p->sq_off.tail);
	__u32 *head = ring_word(r, p->cq_off.head);
	struct io_uring_cqe *cqe;

	memset(r->sqe, 0, sizeof(*r->sqe));
	r->sqe->opcode = IORING_OP_MADVISE;
	r->sqe->fd = -1;
	r->sqe->addr = addr(change_start(c));
	r->sqe->len = change_len(c);
	r->sqe->fadvise_advice = advice_of(c->verb);
	*ring_word(r, p->sq_off.array) = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0) != 1)
		return -errno;
	cqe = (struct io_uring_cqe *)(r->rings + p->cq_off.cqes);
	cqe += *head & *ring_word(r, p->cq_off.ring_mask);
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return cqe->res;
}

/* All who are at the command of one thread. */
struct actors {
	struct helper sibling, foreign;
	struct ring ring;
	bool has_ring;
};

static inline long actors_do(struct actors *a, const struct change *c)
{
	switch (c->actor) {
	case SIBLING:
		return helper_tell(&a->sibling, c);
	case FOREIGN:
		return helper_tell(&a->foreign, c);
	case RING:
		return ring_madvise(&a->ring, c);
	default:
		return change_do(c);
	}
}

#endif /* ACTORS_H */
