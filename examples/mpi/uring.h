/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* madvise(2) without calling it: an io_uring does. */
#ifndef URING_H
#define URING_H

#include <stddef.h>

/* 0, or -1 with errno set. */
int uring_madvise(void *addr, size_t len, int advice);

#endif
