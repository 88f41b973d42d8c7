// SPDX-License-Identifier: GPL-2.0
/*
 * A mapping's flags are changed by vm_flags_mod() (Linux 6.3), or by whoever has
 * the mapping.
 */
#include <linux/mm.h>

void probe(struct vm_area_struct *vma);
void probe(struct vm_area_struct *vma)
{
#ifdef PROBE_HAS
	vm_flags_mod(vma, VM_DONTEXPAND, VM_MAYWRITE);
#else
	vma->vm_flags = (vma->vm_flags | VM_DONTEXPAND) & ~VM_MAYWRITE;
#endif
}
