/* SPDX-License-Identifier: GPL-2.0 */
/* Stands in for the kernel's header of this name: what core.c needs of it. */
#ifndef SHIM_COMPILER_H
#define SHIM_COMPILER_H

#include <stddef.h>

#define READ_ONCE(x)		(*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, value)	(*(volatile __typeof__(x) *)&(x) = (value))

#define container_of(ptr, type, member)	\
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

/* Says what is wrong with a list or tree, and does not return. */
__attribute__((noreturn)) void shim_broken(const char *what);

#endif
