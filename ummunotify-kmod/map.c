// SPDX-License-Identifier: GPL-2.0
/*
 * What user space maps: the page of the generation counter, and the pages of
 * the generation slots.
 */
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>

#include "compat.h"
#include "file.h"

#define SLOTS_PER_PAGE	(PAGE_SIZE / sizeof(u64))

static unsigned int max_slots = 4 << 20;
module_param(max_slots, uint, 0644);
MODULE_PARM_DESC(max_slots, "Generation slots that one open file may have");

/* What a foreign address space sees where a generation should be. */
static struct page *ones_page;

int umn_map_init(void)
{
	ones_page = alloc_page(GFP_KERNEL);
	if (!ones_page)
		return -ENOMEM;
	memset(page_address(ones_page), 0xff, PAGE_SIZE);
	return 0;
}

void umn_map_exit(void)
{
	__free_page(ones_page);
}

static struct page *alloc_mapped_page(void)
{
	return alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
}

int umn_file_alloc_page(struct umn_file *file)
{
	file->page = alloc_mapped_page();
	return file->page ? 0 : -ENOMEM;
}

static unsigned int nr_slot_pages(const struct umn_file *file)
{
	return file->nr_slots / SLOTS_PER_PAGE;
}

static void free_slots(u64 **slots, unsigned int nr_pages)
{
	unsigned int i;

	for (i = 0; i < nr_pages; i++)
		free_page((unsigned long)slots[i]);
	kvfree(slots);
}

/*
 * Only called by the one who negotiates, before anybody else uses the file.
 * Returns how many slots there are; umn_file_set_slots() makes them known.
 */
long umn_file_alloc_slots(struct umn_file *file, u64 ***slots_ret, u32 wanted)
{
	u32 granted = min3(wanted, READ_ONCE(max_slots), (u32)INT_MAX);
	unsigned int i, nr_pages = DIV_ROUND_UP(granted, SLOTS_PER_PAGE);
	long ret = -ENOMEM;
	u64 **slots;

	granted = nr_pages * SLOTS_PER_PAGE;
	if (!umn_user_charge_slots(file->user, granted))
		return -ENOSPC;
	slots = kvcalloc(nr_pages, sizeof(*slots), GFP_KERNEL_ACCOUNT);
	if (!slots)
		goto err_uncharge;
	for (i = 0; i < nr_pages; i++) {
		struct page *page = alloc_mapped_page();

		if (!page)
			goto err_free;
		slots[i] = page_address(page);
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			i++;
			goto err_free;
		}
		cond_resched();
	}
	*slots_ret = slots;
	return granted;

err_free:
	free_slots(slots, i);
err_uncharge:
	umn_user_uncharge_slots(file->user, granted);
	return ret;
}

void umn_file_set_slots(struct umn_file *file, u64 **slots, u32 nr_slots)
{
	file->watcher.slots = slots;
	file->watcher.slots_per_page = SLOTS_PER_PAGE;
	/* Pairs with the acquire of who maps: the pages are there. */
	smp_store_release(&file->nr_slots, nr_slots);
}

void umn_file_free_slots(struct umn_file *file, u64 **slots, u32 nr_slots)
{
	free_slots(slots, nr_slots / SLOTS_PER_PAGE);
	umn_user_uncharge_slots(file->user, nr_slots);
}

void umn_file_free_page(struct umn_file *file)
{
	__free_page(file->page);
}

/*
 * A forked child inherits the mapping but not the pages: the kernel copies no
 * page table entries of a file mapping without private pages.  So the child
 * faults, and finds that the generations are not those it knew.
 */
static vm_fault_t umn_fault(struct vm_fault *vmf)
{
	struct umn_file *file = vmf->vma->vm_file->private_data;
	struct page *page;

	if (vmf->pgoff > nr_slot_pages(file))
		return VM_FAULT_SIGBUS;
	if (vmf->vma->vm_mm != file->space->notifier.mm)
		page = ones_page;
	else if (vmf->pgoff == 0)
		page = file->page;
	else
		page = virt_to_page(file->watcher.slots[vmf->pgoff - 1]);
	/* One page serves all foreigners: its count must not overflow. */
	if (page_ref_count(page) > INT_MAX / 2)
		return VM_FAULT_SIGBUS;
	get_page(page);
	vmf->page = page;
	return 0;
}

static const struct vm_operations_struct umn_vm_ops = {
	.fault		= umn_fault,
};

int umn_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct umn_file *file = filp->private_data;
	/* Pairs with the release of who negotiates. */
	unsigned int nr_slots = smp_load_acquire(&file->nr_slots);

	if (!umn_space_is_current(file->space))
		return -EPERM;
	if (vma->vm_pgoff == 0) {
		if (vma_pages(vma) != 1)
			return -EINVAL;
	} else if (vma->vm_pgoff > nr_slots / SLOTS_PER_PAGE ||
		   vma_pages(vma) > nr_slots / SLOTS_PER_PAGE -
				    vma->vm_pgoff + 1) {
		return -EINVAL;
	}
	if (vma->vm_flags & VM_WRITE)
		return -EACCES;
	vm_flags_mod(vma, VM_DONTEXPAND | VM_DONTDUMP, VM_MAYWRITE);
	vma->vm_ops = &umn_vm_ops;
	return 0;
}
