/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#ifndef REGCACHE_UCX_URING_H
#define REGCACHE_UCX_URING_H

#include <stddef.h>

/* madvise(2) by way of io_uring; 0, or -1 with errno. */
int uring_madvise(void *address, size_t length, int advice);

#endif
