/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE
#include "ways.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uring.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

#define PAGE	((size_t)4096)
#define SIZE	((size_t)65536)

/* By raw system calls, so that no hook sees what is not the way's own. */
static char *map(char *address, size_t length, int flags, int file)
{
	flags |= address ? MAP_FIXED : 0;
	return (char *)syscall(SYS_mmap, address, length, PROT_READ | PROT_WRITE,
			       flags, file, 0);
}

static int renew(struct buffer *buffer)
{
	return map(buffer->base, buffer->mapped, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1) == buffer->base ? 0 : -1;
}

static int make_private(struct buffer *buffer)
{
	*buffer = (struct buffer){ .size = SIZE, .mapped = SIZE, .file = -1 };
	buffer->base = map(NULL, SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	buffer->data = buffer->base;
	return buffer->base == MAP_FAILED ? -1 : 0;
}

/* The second half of a page. */
static int make_half(struct buffer *buffer)
{
	if (make_private(buffer))
		return -1;
	buffer->mapped = PAGE;
	buffer->size = PAGE / 2;
	buffer->data = buffer->base + PAGE / 2;
	return 0;
}

static int make_shared(struct buffer *buffer)
{
	*buffer = (struct buffer){ .size = SIZE, .mapped = SIZE };
	buffer->file = memfd_create("ways", MFD_CLOEXEC);
	if (buffer->file < 0 || ftruncate(buffer->file, SIZE))
		return -1;
	buffer->base = map(NULL, SIZE, MAP_SHARED, buffer->file);
	buffer->data = buffer->base;
	return buffer->base == MAP_FAILED ? -1 : 0;
}

static int make_library(struct buffer *buffer)
{
	*buffer = (struct buffer){ .size = SIZE, .mapped = SIZE, .file = -1 };
	buffer->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!buffer->library)
		return -1;
	buffer->base = dlsym(buffer->library, "library_buffer");
	buffer->data = buffer->base;
	return buffer->base ? 0 : -1;
}

static int raw_munmap(struct buffer *buffer)
{
	return syscall(SYS_munmap, buffer->base, buffer->mapped) ||
	       renew(buffer) ? -1 : 0;
}

static int unmap_for_parent(void *context)
{
	const struct buffer *buffer = context;

	return syscall(SYS_munmap, buffer->base, buffer->mapped) ? 1 : 0;
}

static int child_munmap(struct buffer *buffer)
{
	static char stack[65536] __attribute__((aligned(16)));
	int status = -1;
	pid_t child;

	child = clone(unmap_for_parent, stack + sizeof(stack),
		      CLONE_VM | SIGCHLD, buffer);
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		return -1;
	return renew(buffer);
}

/* The same file, most probably at the same address. */
static int dlclose_dlopen(struct buffer *buffer)
{
	const char *before = buffer->base;

	if (dlclose(buffer->library) || make_library(buffer))
		return -1;
	errno = EADDRNOTAVAIL;
	return buffer->base == before ? 0 : -1;
}

static int one_byte_munmap(struct buffer *buffer)
{
	return munmap(buffer->base, 1) || renew(buffer) ? -1 : 0;
}

static int one_byte_dontneed(struct buffer *buffer)
{
	return madvise(buffer->base, 1, MADV_DONTNEED);
}

static int dontneed_locked(struct buffer *buffer)
{
	return madvise(buffer->base, buffer->mapped, MADV_DONTNEED_LOCKED);
}

/* Linux has it for a process's own memory since 6.13. */
static int by_process_madvise(struct buffer *buffer)
{
	struct iovec range = { buffer->base, buffer->mapped };
	static int self = -1;
	ssize_t done;

	if (self < 0)
		self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	done = syscall(SYS_process_madvise, self, &range, 1, MADV_DONTNEED, 0);
	if (done < 0 && errno == EINVAL)
		errno = EOPNOTSUPP;
	return done == (ssize_t)buffer->mapped ? 0 : -1;
}

static int by_uring(struct buffer *buffer)
{
	return uring_madvise(buffer->base, buffer->mapped, MADV_DONTNEED);
}

static int punch_hole(struct buffer *buffer)
{
	return fallocate(buffer->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 0, (off_t)buffer->mapped);
}

static int truncate_and_grow(struct buffer *buffer)
{
	return ftruncate(buffer->file, 0) ||
	       ftruncate(buffer->file, (off_t)buffer->mapped) ? -1 : 0;
}

static int mremap_onto(struct buffer *buffer)
{
	char *other = map(NULL, buffer->mapped, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	if (other == MAP_FAILED)
		return -1;
	/* The hook in libc's would pass the kernel no address. */
	return (char *)syscall(SYS_mremap, other, buffer->mapped, buffer->mapped,
			       MREMAP_MAYMOVE | MREMAP_FIXED, buffer->base) ==
	       buffer->base ? 0 : -1;
}

const struct way ways[] = {
	{ "raw-munmap", make_private, raw_munmap },
	{ "clone-vm-child", make_private, child_munmap },
	{ "dlclose", make_library, dlclose_dlopen },
	{ "munmap-of-one-byte", make_half, one_byte_munmap },
	{ "madvise-of-one-byte", make_half, one_byte_dontneed },
	{ "dontneed-locked", make_private, dontneed_locked },
	{ "process-madvise", make_private, by_process_madvise },
	{ "io-uring-madvise", make_private, by_uring },
	{ "punch-hole", make_shared, punch_hole },
	{ "ftruncate", make_shared, truncate_and_grow },
	{ "mremap-onto", make_private, mremap_onto },
};
const size_t ways_count = sizeof(ways) / sizeof(ways[0]);

const struct way *way_find(const char *name)
{
	for (size_t n = 0; n < ways_count; n++)
		if (!strcmp(ways[n].name, name))
			return &ways[n];
	return NULL;
}
