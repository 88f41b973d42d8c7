/* SPDX-License-Identifier: GPL-2.0 */
/* Chaos: memory changes. */
#ifndef CHAOS_CHANGE_H
#define CHAOS_CHANGE_H

#include "chaos.h"

#include <sys/uio.h>

static void remap(char *p, size_t len, bool shared)
{
	int flags = MAP_FIXED | (shared ? MAP_SHARED :
				 MAP_PRIVATE | MAP_ANONYMOUS);
	off_t at = shared ? p - chaos.shared : 0;

	mmap(p, len, PROT_READ | PROT_WRITE, flags, shared ? chaos.memfd : -1,
	     at);
}

static void do_advise(__u64 *s)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_REMOVE,
		MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_DONTFORK, MADV_DOFORK, MADV_COLD,
		MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE,
		MADV_WIPEONFORK, MADV_KEEPONFORK, 25 /* MADV_COLLAPSE */,
	};
	struct part m = some_memory(s);

	madvise(m.p, m.len, advice[rnd(s) % ARRAY_LEN(advice)]);
}

static void do_remap(__u64 *s)
{
	struct part m = some_memory(s);
	char *to;

	switch (rnd(s) % 6) {
	case 0:
		munmap(m.p, m.len);
		remap(m.p, m.len, m.shared);
		break;
	case 1:
		/* Away, and something new in its place. */
		to = mremap(m.p, m.len, m.len, MREMAP_MAYMOVE |
			    MREMAP_DONTUNMAP, NULL);
		if (to != MAP_FAILED)
			munmap(to, m.len);
		break;
	case 2:
		if (mmap(aside, m.len, PROT_NONE, MAP_FIXED | MAP_PRIVATE |
			 MAP_ANONYMOUS, -1, 0) != aside)
			break;
		/* One that fails may have unmapped it, or not. */
		if (mremap(m.p, m.len, m.len, MREMAP_MAYMOVE | MREMAP_FIXED,
			   aside) == aside)
			remap(m.p, m.len, m.shared);
		munmap(aside, m.len);
		break;
	default:
		remap(m.p, m.len, m.shared);
	}
	touch(m.p, m.len, one_in(s, 2));
}

static void do_protect(__u64 *s)
{
	static const int prot[] = {
		PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
	};
	struct part m = some_memory(s);

	mprotect(m.p, m.len, prot[rnd(s) % ARRAY_LEN(prot)]);
	if (one_in(s, 2))
		mprotect(m.p, m.len, PROT_READ | PROT_WRITE);
	touch(m.p, m.len, true);
}

static void do_shared(__u64 *s)
{
	off_t at = rnd(s) % SHARED_PAGES * PAGE;
	size_t len = (1 + rnd(s) % 8) * PAGE;

	switch (rnd(s) % 3) {
	case 0:
		ftruncate(chaos.memfd, at);
		ftruncate(chaos.memfd, SHARED_PAGES * PAGE);
		break;
	case 1:
		fallocate(chaos.memfd, FALLOC_FL_PUNCH_HOLE |
			  FALLOC_FL_KEEP_SIZE, at, len);
		break;
	default:
		pwrite(chaos.memfd, chaos.totals, sizeof(*chaos.totals), at);
	}
}

/* Another process's memory, at the same address as here. */
static void do_foreign(__u64 *s)
{
	pid_t pid = __atomic_load_n(&chaos.totals->pid[rnd(s) % PROCESSES],
				    __ATOMIC_SEQ_CST);
	struct part m = some_memory(s);
	struct iovec here, there = { m.p, PAGE };
	char bytes[64], path[64];

	if (pid <= 0)
		return;
	if (one_in(s, 4)) {
		snprintf(path, sizeof(path), "/proc/%d/clear_refs", pid);
		file_set(path, one_in(s, 2) ? "4" : "1");
		return;
	}
	here = (struct iovec) { bytes, sizeof(bytes) };
	there.iov_len = sizeof(bytes);
	if (one_in(s, 2))
		process_vm_writev(pid, &here, 1, &there, 1, 0);
	else
		process_vm_readv(pid, &here, 1, &there, 1, 0);
}

static void do_pages(__u64 *s)
{
	struct part m = some_memory(s);
	void *page[16];
	int node[16], status[16];
	unsigned long i, n = m.len / PAGE < 16 ? m.len / PAGE : 16;

	switch (rnd(s) % 3) {
	case 0:
		for (i = 0; i < n; i++) {
			page[i] = m.p + i * PAGE;
			node[i] = rnd(s) % 2;
		}
		syscall(SYS_move_pages, 0, n, page, node, status, 2);
		break;
	case 1:
		mlock(m.p, m.len);
		munlock(m.p, m.len);
		break;
	default:
		i = pin(m.p, n * PAGE);
		if ((int)i >= 0) {
			do_remap(s);
			close(i);
		}
	}
}

static void do_huge(__u64 *s)
{
	char *p = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		       MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	__u64 cookie = rnd(s) % COOKIES;
	int fd = some_file(s);

	if (p == MAP_FAILED)
		return;
	counted(watch(fd, p, BLOCK, cookie));
	touch(p, BLOCK, true);
	if (one_in(s, 2))
		madvise(p, BLOCK, MADV_DONTNEED);
	munmap(p, BLOCK);
	counted(unwatch(fd, cookie));
}

static void do_change(__u64 *s)
{
	static void (*const change[])(__u64 *) = {
		do_advise, do_advise, do_remap, do_remap, do_remap, do_protect,
		do_shared, do_foreign, do_pages, do_huge,
	};

	change[rnd(s) % ARRAY_LEN(change)](s);
	count(&chaos.totals->changes);
}

#endif /* CHAOS_CHANGE_H */
