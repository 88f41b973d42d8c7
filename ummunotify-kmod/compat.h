/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels that this module is built for, 6.1 and
 * newer.  Nothing outside this file asks for a kernel's version.
 */
#ifndef _UMMUNOTIFY_COMPAT_H
#define _UMMUNOTIFY_COMPAT_H

#include <linux/mm.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_mod(struct vm_area_struct *vma, vm_flags_t set,
				vm_flags_t clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#endif

#endif /* _UMMUNOTIFY_COMPAT_H */
