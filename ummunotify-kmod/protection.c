// SPDX-License-Identifier: GPL-2.0
/*
 * Changes of protection that split huge pages.
 *
 * fork() copies pinned pages for the child one by one, so it splits the huge
 * page that they belong to; mprotect() and userfaultfd's write protection split
 * one of which they change a part.  The kernel announces that as a CLEAR within
 * the change of protection: __split_huge_pmd() in copy_huge_pmd() and
 * change_pmd_range().  Nothing is taken away from anonymous memory: the table
 * that replaces the huge entry maps the same pages in the same places.
 *
 * Why such a CLEAR can be told from those that do take pages away:
 *
 *  - The task that raises it is between the start and the end of its own
 *    change of protection, which overlaps it.  In between fork(), mprotect()
 *    and their like run page table code of the kernel and nothing else: no
 *    system call, no access to user memory, no fault.
 *  - But they allocate, and what an allocation reclaims, compacts or kills for
 *    may belong to the same address space.  All of that runs with PF_MEMALLOC,
 *    or in a task of its own.
 *  - It covers one block of the size of a huge page, aligned, and no more.
 *
 * And why it takes nothing away from a region that ignores it: NOTE has found
 * that all of the region is private anonymous memory.  Of a file, a split takes
 * the huge page out and puts nothing in its place; from then on the file may
 * drop a page that is pinned, and nobody would be told.  What is mapped there
 * cannot become a file's later without an UNMAP, after which the region is not
 * good until it was registered again, or VERIFY has found the pages that were
 * noted, which are anonymous.
 *
 * Everything is called with the lock of the address space held.
 */
#include <linux/mm.h>
#include <linux/sched.h>

#include "protection.h"

void umn_protection_begin(struct umn_protections *protections,
			  const struct mmu_notifier_range *range)
{
	if (protections->nr == UMN_PROTECTIONS)
		return;
	protections->inflight[protections->nr++] = (struct umn_protection) {
		.range	= range,
		.task	= current,
		.start	= range->start,
		.end	= range->end,
	};
}

void umn_protection_end(struct umn_protections *protections,
			const struct mmu_notifier_range *range)
{
	unsigned int i;

	for (i = protections->nr; i-- > 0;) {
		if (protections->inflight[i].range != range)
			continue;
		protections->inflight[i] =
			protections->inflight[--protections->nr];
		return;
	}
}

/* Is @range cleared only because a change of protection splits a huge page? */
bool umn_protection_splits(const struct umn_protections *protections,
			   const struct mmu_notifier_range *range)
{
	unsigned int i;

	if (range->event != MMU_NOTIFY_CLEAR ||
	    current->flags & PF_MEMALLOC ||
	    !IS_ALIGNED(range->start, PMD_SIZE) ||
	    range->end - range->start != PMD_SIZE)
		return false;

	for (i = 0; i < protections->nr; i++) {
		const struct umn_protection *protection =
			&protections->inflight[i];

		if (protection->task == current &&
		    protection->start < range->end &&
		    range->start < protection->end)
			return true;
	}
	return false;
}
