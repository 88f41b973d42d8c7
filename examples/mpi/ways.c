/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE
#include "ways.h"

#include <dlfcn.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uring.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* since Linux 5.18 */
#endif

#define READ_WRITE (PROT_READ | PROT_WRITE)

/* The kernel reports some changes by the block. */
static const size_t block = 2 << 20;

/* An address in the middle of nowhere: no other memory shares the buffer's
 * blocks, and no other mapping takes its place while it is unmapped. */
static void *reserve(size_t len)
{
	size_t size = (len + 2 * block - 1) / block * block + block;
	char *start = mmap(NULL, size, PROT_NONE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (start == MAP_FAILED)
		err(1, "cannot reserve %zu bytes of addresses", size);
	return start + (block - (uintptr_t)start % block) % block;
}

static void make_private(struct buffer *buffer)
{
	buffer->addr = mmap(reserve(buffer->len), buffer->len, READ_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (buffer->addr == MAP_FAILED)
		err(1, "cannot map %zu bytes", buffer->len);
}

static void make_shared(struct buffer *buffer)
{
	buffer->file = memfd_create("buffer", MFD_CLOEXEC);
	if (buffer->file < 0 || ftruncate(buffer->file, (off_t)buffer->len))
		err(1, "cannot make a memory file of %zu bytes", buffer->len);
	buffer->addr = mmap(reserve(buffer->len), buffer->len, READ_WRITE,
			    MAP_SHARED | MAP_FIXED, buffer->file, 0);
	if (buffer->addr == MAP_FAILED)
		err(1, "cannot map %zu bytes of a memory file", buffer->len);
}

/* A static buffer of a library that lies beside the program. */
static void make_static(struct buffer *buffer)
{
	const unsigned long *size;

	buffer->library = dlopen("libstatic_buffer.so", RTLD_NOW | RTLD_LOCAL);
	if (!buffer->library)
		errx(1, "%s", dlerror());
	buffer->addr = dlsym(buffer->library, "static_buffer");
	size = dlsym(buffer->library, "static_buffer_size");
	if (!buffer->addr || !size)
		errx(1, "%s", dlerror());
	if (*size < buffer->len)
		errx(1, "messages of %zu bytes are longer than the library's buffer, which has %lu",
		     buffer->len, *size);
}

static void leave(struct buffer *buffer)
{
	(void)buffer;
}

/* System calls that pass by libc's functions, and so by who has patched them. */
static void remap(struct buffer *buffer)
{
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;

	if (syscall(SYS_munmap, buffer->addr, buffer->len) ||
	    syscall(SYS_mmap, buffer->addr, buffer->len, READ_WRITE, flags, -1, 0) == -1)
		err(1, "cannot map memory anew at %p", buffer->addr);
}

static void dontneed_locked(struct buffer *buffer)
{
	if (madvise(buffer->addr, buffer->len, MADV_DONTNEED_LOCKED))
		err(1, "MADV_DONTNEED_LOCKED");
}

static void dontneed_by_uring(struct buffer *buffer)
{
	if (uring_madvise(buffer->addr, buffer->len, MADV_DONTNEED))
		err(1, "MADV_DONTNEED by io_uring");
}

static void truncate_and_grow(struct buffer *buffer)
{
	if (ftruncate(buffer->file, 0) ||
	    ftruncate(buffer->file, (off_t)buffer->len))
		err(1, "ftruncate");
}

static void punch_hole(struct buffer *buffer)
{
	if (fallocate(buffer->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      0, (off_t)buffer->len))
		err(1, "FALLOC_FL_PUNCH_HOLE");
}

static void reload(struct buffer *buffer)
{
	if (dlclose(buffer->library))
		errx(1, "%s", dlerror());
	make_static(buffer);
}

const struct way ways[] = {
	{ "none (memory untouched)", make_private, leave },
	{ "raw munmap + mmap", make_private, remap },
	{ "MADV_DONTNEED_LOCKED", make_private, dontneed_locked },
	{ "io_uring MADV_DONTNEED", make_private, dontneed_by_uring },
	{ "ftruncate shrink and grow", make_shared, truncate_and_grow },
	{ "memfd PUNCH_HOLE", make_shared, punch_hole },
	{ "dlclose + dlopen", make_static, reload },
};
const size_t way_count = sizeof(ways) / sizeof(ways[0]);

struct buffer make_buffer(const struct way *way, size_t len)
{
	struct buffer buffer = { .len = len, .file = -1 };

	way->make(&buffer);
	return buffer;
}
