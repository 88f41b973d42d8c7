/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory that changes by system calls, with no libc in between. */
#ifndef MEMORY_H
#define MEMORY_H

#include <err.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Writable memory that is there. */
static inline char *map(size_t len)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
	long addr = syscall(SYS_mmap, NULL, len, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (addr == -1)
		err(1, "cannot map %zu bytes", len);
	return memset((void *)addr, 0x5a, len);
}

static inline void unmap(void *addr, size_t len)
{
	if (syscall(SYS_munmap, addr, len))
		err(1, "cannot unmap %zu bytes at %p", len, addr);
}

/* Other pages at the same address, in one call: nobody else's memory gets in. */
static inline void remap(void *addr, size_t len)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;

	if (syscall(SYS_mmap, addr, len, PROT_READ | PROT_WRITE, flags, -1, 0) == -1)
		err(1, "cannot map %zu bytes at %p", len, addr);
	memset(addr, 0x5a, len);
}

#endif
