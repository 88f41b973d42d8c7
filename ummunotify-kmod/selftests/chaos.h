/* SPDX-License-Identifier: GPL-2.0 */
/* What all parts of the chaos share. */
#ifndef CHAOS_H
#define CHAOS_H

#include "inject.h"

#define PROCESSES	4
#define FILES		6
#define PAGES		64
#define BLOCK		(2UL << 20)
#define SHARED_PAGES	64
#define COOKIES		64

/* What all processes share. */
struct totals {
	bool stop;
	unsigned long calls, refused, changes, forks, killed, passed_on;
	unsigned long injected, checks, lost, wrong;
	pid_t pid[PROCESSES];
};

static struct {
	struct totals *totals;
	int memfd;
	int socket[2];
	bool injects;
	/* Of this process only: */
	int fd[FILES];
	unsigned int actors;
	char *p, *block, *shared;
	struct dev own;
	const volatile __u64 *own_slots;
} chaos;

/*
 * All processes have their memory here, far below of where the kernel looks for
 * space: nothing else comes into the holes that they make.  Elsewhere, whoever
 * makes a hole and fills it, or unmaps what a call that failed may have unmapped
 * already, does so to the memory of another thread that came there meanwhile.
 */
#define HERE	((char *)(1UL << 40))
#define OWN	(HERE + 12 * BLOCK)
#define ASIDE	(HERE + 16 * BLOCK)

/* Of this thread: where to ask for a failure, or -1. */
static __thread int inject = -1;

/* Of this thread: where it moves memory to. */
static __thread char *aside;

static inline char *map_here(char *at, size_t len, int flags, int fd)
{
	return mmap(at, len, PROT_READ | PROT_WRITE, flags |
		    MAP_FIXED_NOREPLACE, fd, 0) == at ? at : NULL;
}

static inline void count(unsigned long *what)
{
	__atomic_add_fetch(what, 1, __ATOMIC_RELAXED);
}

/* xorshift64 */
static inline __u64 rnd(__u64 *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

static inline bool one_in(__u64 *s, unsigned int n)
{
	return !(rnd(s) % n);
}

/*
 * Memory may be gone at any time, so that nobody touches it: the kernel does,
 * and says EFAULT.
 */
static inline void touch(char *p, size_t len, bool write)
{
	madvise(p, len, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

struct part {
	char *p;
	size_t len;
	bool shared;
};

/* Some pages of the memory that all threads use. */
static inline struct part some_memory(__u64 *s)
{
	size_t first, n, all = PAGES;
	struct part m = { .p = chaos.p };

	switch (rnd(s) % 4) {
	case 0:
		m.p = chaos.shared;
		m.shared = true;
		all = SHARED_PAGES;
		break;
	case 1:
		m.p = chaos.block;
		all = 2 * BLOCK / PAGE;
		break;
	}
	first = rnd(s) % all;
	n = 1 + rnd(s) % (one_in(s, 4) ? all - first : 1 + (all - first) / 8);
	m.p += first * PAGE;
	m.len = n * PAGE;
	return m;
}

static inline int *some_slot(__u64 *s)
{
	return &chaos.fd[rnd(s) % FILES];
}

static inline int some_file(__u64 *s)
{
	return __atomic_load_n(some_slot(s), __ATOMIC_SEQ_CST);
}

static inline long counted(long ret)
{
	count(&chaos.totals->calls);
	if (ret < 0)
		count(&chaos.totals->refused);
	return ret;
}

#endif /* CHAOS_H */
