/* SPDX-License-Identifier: GPL-2.0 */
/* Stands in for the kernel's header of this name: what core.c needs of it. */
#ifndef SHIM_BITOPS_H
#define SHIM_BITOPS_H

#include <linux/compiler.h>
#include <linux/types.h>

static inline unsigned long __ffs(unsigned long word)
{
	unsigned long n = 0;

	if (!word)
		shim_broken("__ffs(0)");
	while (!(word >> n & 1))
		n++;
	return n;
}

static inline unsigned long __ffs64(u64 word)
{
	return __ffs(word);
}

#define BIT_ULL(n)	(1ULL << (n))

#endif
