// SPDX-License-Identifier: GPL-2.0
/*
 * Changes of protection that split huge pages.
 *
 * fork() copies pinned pages for the child one by one, so it splits the huge
 * page that they belong to; userfaultfd's write protection, PAGEMAP_SCAN's and
 * a NUMA scan split one of which they change a part.  The kernel announces that
 * as a CLEAR within the change of protection: __split_huge_pmd() below
 * copy_page_range() and change_protection().  Nothing is taken away from
 * anonymous memory: the table that replaces the huge entry maps the same pages
 * in the same places, and where that was the huge page of zeroes, others.  (The
 * splits of mprotect() and of all that cuts mappings come earlier, by
 * themselves, and stay what they are.)
 *
 * Why such a CLEAR can be told from those that do take pages away:
 *
 *  - The task that raises it is between the start and the end of its own
 *    change of protection, which overlaps it.  In between fork() and its like
 *    run page table code of the kernel and nothing else: no system call, no
 *    access by a user's address, no fault.
 *  - But they allocate, and what an allocation reclaims, compacts or kills for
 *    may belong to the same address space.  All of that runs with PF_MEMALLOC,
 *    or in a task of its own.
 *  - It covers one block of the size of a huge page, aligned, and no more.
 *
 * And why it takes nothing away from a region that ignores it: since its last
 * event, NOTE or VERIFY has found that all of the region is private anonymous
 * memory.  Of a file, a split takes the huge page out and puts nothing in its
 * place; from then on the file may drop a page that is pinned, and nobody would
 * be told.  What is mapped there cannot become a file's without an UNMAP, which
 * is an event.
 *
 * A change of protection that stayed in the table after its end would make real
 * changes go unheard, unlike the table of umn_inflight, which errs to the safe
 * side.  So whatever may have no end is not entered.
 *
 * Everything is called with the lock of the address space held.
 */
#include <linux/mm.h>
#include <linux/sched.h>

#include "protection.h"

void umn_protection_begin(struct umn_protections *protections,
			  const struct mmu_notifier_range *range)
{
	unsigned int i;

	/*
	 * change_protection() takes a start of 0 for "not begun yet": it begins
	 * once more, or does not end.
	 */
	if (!range->start)
		return;
	/* What begins again has ended. */
	for (i = 0; i < protections->nr; i++) {
		if (protections->inflight[i].range == range)
			break;
	}
	if (i == UMN_PROTECTIONS)
		return;
	if (i == protections->nr)
		protections->nr++;
	protections->inflight[i] = (struct umn_protection) {
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
