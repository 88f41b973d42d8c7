// SPDX-License-Identifier: GPL-2.0
/*
 * What a file can do beyond the interface of 2009.
 */
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "file.h"

#define UMN_FEATURES	(UMMUNOTIFY_FEATURE_FILTER | \
			 UMMUNOTIFY_FEATURE_VERIFY | \
			 UMMUNOTIFY_FEATURE_KINDS | \
			 UMMUNOTIFY_FEATURE_GENSLOT | \
			 UMMUNOTIFY_FEATURE_BATCH | \
			 UMMUNOTIFY_FEATURE_ONESHOT | \
			 UMMUNOTIFY_FEATURE_NOWAKE | \
			 UMMUNOTIFY_FEATURE_STRICT | \
			 UMMUNOTIFY_FEATURE_DELIVERED | \
			 UMMUNOTIFY_FEATURE_STATS | \
			 UMMUNOTIFY_FEATURE_IDENTITY)

/*
 * Copies a structure that begins with its size, as its caller knows it: a
 * shorter one is -EINVAL, and of a longer one the rest must be zero.
 */
int umn_copy_sized(void *to, size_t known, const void __user *arg)
{
	u32 size;

	if (get_user(size, (const u32 __user *)arg))
		return -EFAULT;
	if (size < known)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	return copy_struct_from_user(to, known, arg, size);
}

long umn_exchange_features(struct umn_file *file, u32 __user *arg)
{
	if (READ_ONCE(file->used))
		return -EINVAL;
	/* Nothing is ever granted here, so what was asked for is no matter. */
	if (put_user(0, arg))
		return -EFAULT;
	return xchg(&file->used, true) ? -EINVAL : 0;
}

long umn_negotiate(struct umn_file *file, void __user *arg)
{
	struct umn_watcher *watcher = &file->watcher;
	struct ummunotify_negotiate parm;
	u64 **slots = NULL;
	long nr_slots = 0;
	int ret;

	ret = umn_copy_sized(&parm, sizeof(parm), arg);
	if (ret)
		return ret;
	if (xchg(&file->used, true))
		return -EBUSY;

	parm.size = sizeof(parm);
	parm.features &= UMN_FEATURES;
	if (parm.features & UMMUNOTIFY_FEATURE_GENSLOT)
		nr_slots = umn_file_alloc_slots(file, &slots,
						parm.slots);
	if (nr_slots < 0) {
		WRITE_ONCE(file->used, false);
		return nr_slots;
	}
	if (!nr_slots)
		parm.features &= ~UMMUNOTIFY_FEATURE_GENSLOT;
	parm.slots = nr_slots;
	parm.kinds = parm.features & UMMUNOTIFY_FEATURE_FILTER ?
		     UMMUNOTIFY_KINDS_FILTERABLE : 0;
	parm.max_regions = umn_max_regions();
	parm.max_batch = parm.features & UMMUNOTIFY_FEATURE_BATCH ?
			 UMN_MAX_BATCH : 0;
	if (copy_to_user(arg, &parm, sizeof(parm))) {
		umn_file_free_slots(file, slots, nr_slots);
		WRITE_ONCE(file->used, false);
		return -EFAULT;
	}
	umn_file_set_slots(file, slots, nr_slots);

	raw_spin_lock(&file->space->lock);
	/* Pairs with those who look without the lock. */
	WRITE_ONCE(watcher->features, parm.features);
	if (parm.features & UMMUNOTIFY_FEATURE_STATS)
		watcher->mapped_stats = page_address(file->page) +
					UMMUNOTIFY_STATS_AT;
	raw_spin_unlock(&file->space->lock);
	return 0;
}

long umn_identify(struct umn_file *file, const u64 __user *arg)
{
	u64 identity;

	if (copy_from_user(&identity, arg, sizeof(identity)))
		return -EFAULT;
	if (!identity)
		return -EINVAL;
	if (xchg(&file->identifying, true))
		return -EBUSY;
	file->identity = identity;
	/* Pairs with the acquire in umn_has_identity(). */
	smp_store_release(&file->identified, true);
	return 0;
}

bool umn_has_identity(const struct umn_file *file, u64 identity)
{
	/* Pairs with the release in umn_identify(). */
	return smp_load_acquire(&file->identified) &&
	       file->identity == identity;
}
