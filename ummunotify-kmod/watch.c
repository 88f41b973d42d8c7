// SPDX-License-Identifier: GPL-2.0
/*
 * REGISTER and UNREGISTER, of one range, of many, and of all.
 */
#include <linux/moduleparam.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "frames.h"

static unsigned int max_regions = 4 << 20;
module_param(max_regions, uint, 0644);
MODULE_PARM_DESC(max_regions, "Ranges that one open file may watch");

static unsigned int max_mm_regions = 8 << 20;
module_param(max_mm_regions, uint, 0644);
MODULE_PARM_DESC(max_mm_regions, "Ranges that may be watched in one address space");

static struct kmem_cache *region_cache;

int umn_watch_init(void)
{
	region_cache = kmem_cache_create("ummunotify_region",
					 sizeof(struct umn_region), 0,
					 SLAB_ACCOUNT, NULL);
	return region_cache ? 0 : -ENOMEM;
}

void umn_watch_exit(void)
{
	kmem_cache_destroy(region_cache);
}

unsigned int umn_max_regions(void)
{
	return READ_ONCE(max_regions);
}

static struct umn_region *alloc_region(struct umn_file *file)
{
	struct umn_region *region;

	if (!umn_user_charge(file->user, 1))
		return ERR_PTR(-ENOSPC);
	region = kmem_cache_alloc(region_cache, GFP_KERNEL);
	if (region)
		return region;
	umn_user_uncharge(file->user, 1);
	return ERR_PTR(-ENOMEM);
}

static void free_region(struct umn_file *file, struct umn_region *region)
{
	if (region->flags & UMN_CHUNKED)
		umn_frames_put(file, umn_frames_of(region->note));
	kmem_cache_free(region_cache, region);
	umn_user_uncharge(file->user, 1);
}

/* Frees regions that were removed, linked by their events. */
void umn_free_regions(struct umn_file *file, struct list_head *regions)
{
	struct umn_region *region, *next;

	list_for_each_entry_safe(region, next, regions, event)
		free_region(file, region);
	INIT_LIST_HEAD(regions);
}

/* Takes what was not granted out of @parm, or refuses what makes no sense. */
static int check_register(const struct umn_file *file,
			  struct ummunotify_register_ioctl *parm)
{
	u32 features = READ_ONCE(file->watcher.features);
	u32 known = 0;

	if (features & UMMUNOTIFY_FEATURE_FILTER)
		known |= UMMUNOTIFY_REGISTER_IGNORE;
	if (features & UMMUNOTIFY_FEATURE_ONESHOT)
		known |= UMMUNOTIFY_REGISTER_ONESHOT;
	if (features & UMMUNOTIFY_FEATURE_NOWAKE)
		known |= UMMUNOTIFY_REGISTER_NOWAKE;
	if (features & UMMUNOTIFY_FEATURE_GENSLOT)
		known |= UMMUNOTIFY_REGISTER_SLOT;

	if (features & UMMUNOTIFY_FEATURE_STRICT) {
		if (parm->flags & ~known)
			return -EINVAL;
		if (parm->reserved && !(parm->flags & UMMUNOTIFY_REGISTER_SLOT))
			return -EINVAL;
	}
	parm->flags &= known;

	if (parm->flags & UMMUNOTIFY_REGISTER_IGNORE &
	    ~UMMUNOTIFY_KINDS_FILTERABLE)
		return -EINVAL;
	if (parm->flags & UMMUNOTIFY_REGISTER_SLOT &&
	    parm->reserved >= file->nr_slots)
		return -EINVAL;
	if (parm->end < parm->start || parm->end > ULONG_MAX)
		return -EINVAL;
	return 0;
}

static int insert(struct umn_file *file, struct umn_region *region)
{
	struct umn_space *space = file->space;
	int ret;

	lockdep_assert_held(&space->lock);
	if (file->watcher.stats.regions >= READ_ONCE(max_regions) ||
	    space->nr_regions >= READ_ONCE(max_mm_regions))
		return -ENOSPC;
	ret = umn_insert(&space->core, region);
	if (!ret)
		space->nr_regions++;
	/* What the interface has always said of a cookie that is in use. */
	return ret == -EEXIST ? -EINVAL : ret;
}

static int register_one(struct umn_file *file,
			struct ummunotify_register_ioctl *parm)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	unsigned long start, last;
	bool doubt, wake = false;
	u64 seq;
	int ret;

	ret = check_register(file, parm);
	if (ret)
		return ret;
	region = alloc_region(file);
	if (IS_ERR(region))
		return PTR_ERR(region);
	umn_region_init(region, &file->watcher, parm, PAGE_SIZE);
	start = region->span.start;
	last = region->span.last;

	do {
		ret = umn_space_wait_unpaused(space);
		if (ret)
			break;
		raw_spin_lock(&space->lock);
		ret = insert(file, region);
		/* Once unlocked, another thread may unregister the region. */
		seq = space->core.seq;
		doubt = space->core.nr_untracked;
		raw_spin_unlock(&space->lock);
	} while (ret == -EBUSY);
	if (ret) {
		free_region(file, region);
		return ret;
	}

	if (!doubt)
		doubt = umn_space_wait_inflight(space, start, last, seq);
	if (!doubt)
		return 0;

	raw_spin_lock(&space->lock);
	region = umn_find(&file->watcher, parm->user_cookie);
	if (region) {
		umn_doubt(&space->core, region);
		wake = !(region->flags & UMN_NOWAKE);
	}
	raw_spin_unlock(&space->lock);
	if (wake)
		umn_space_wake_readers(space);
	return 0;
}

static long unregister_one(struct umn_file *file, u64 cookie)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	long delivered = 0;

	raw_spin_lock(&space->lock);
	region = umn_find(&file->watcher, cookie);
	if (region)
		umn_space_remove(space, region);
	raw_spin_unlock(&space->lock);

	if (!region)
		return -EINVAL;
	if (READ_ONCE(file->watcher.features) & UMMUNOTIFY_FEATURE_DELIVERED)
		delivered = min_t(u32, region->delivered, INT_MAX);
	free_region(file, region);
	return delivered;
}

long umn_register(struct umn_file *file, const void __user *arg)
{
	struct ummunotify_register_ioctl parm;

	if (copy_from_user(&parm, arg, sizeof(parm)))
		return -EFAULT;
	WRITE_ONCE(file->used, true);
	return register_one(file, &parm);
}

long umn_unregister(struct umn_file *file, const void __user *arg)
{
	u64 cookie;

	if (copy_from_user(&cookie, arg, sizeof(cookie)))
		return -EFAULT;
	return unregister_one(file, cookie);
}

/* Invalidations go on meanwhile: a bounded number in each hold of the lock. */
void umn_unregister_all(struct umn_file *file)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	LIST_HEAD(removed);
	unsigned int n;

	do {
		raw_spin_lock(&space->lock);
		for (n = 0; n < UMN_BATCH; n++) {
			region = umn_first(&file->watcher);
			if (!region)
				break;
			umn_space_remove(space, region);
			list_add(&region->event, &removed);
		}
		raw_spin_unlock(&space->lock);
		umn_free_regions(file, &removed);
		cond_resched();
	} while (n == UMN_BATCH);
}

static int register_entry(struct umn_file *file, const void *entry)
{
	struct ummunotify_register_ioctl parm =
		*(const struct ummunotify_register_ioctl *)entry;

	return register_one(file, &parm);
}

static int unregister_entry(struct umn_file *file, const void *entry)
{
	long ret = unregister_one(file, *(const u64 *)entry);

	return ret < 0 ? ret : 0;
}

/* Does @one to each entry, until one fails; the rest is told in the batch. */
static long do_batch(struct umn_file *file, void __user *arg, size_t entry_size,
		     int (*one)(struct umn_file *file, const void *entry))
{
	const unsigned int chunk = PAGE_SIZE / entry_size;
	struct ummunotify_batch __user *user_batch = arg;
	struct ummunotify_batch batch;
	unsigned int in_chunk, readable = 0;
	char *entries;
	int ret = 0;

	ret = umn_copy_sized(&batch, sizeof(batch), arg);
	if (ret)
		return ret;
	if (batch.count > UMN_MAX_BATCH)
		return -EINVAL;
	entries = (char *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (!entries)
		return -ENOMEM;
	WRITE_ONCE(file->used, true);

	for (batch.done = 0; batch.done < batch.count; batch.done++) {
		in_chunk = batch.done % chunk;
		if (!in_chunk) {
			u32 n = min(chunk, batch.count - batch.done);
			u64 from = batch.entries +
				   (u64)batch.done * entry_size;

			cond_resched();
			ret = fatal_signal_pending(current) ? -EINTR : 0;
			if (ret)
				break;
			readable = n - DIV_ROUND_UP(
				copy_from_user(entries, u64_to_user_ptr(from),
					       n * entry_size), entry_size);
		}
		/*
		 * Where a page is missing, arm64 gives up a whole block of
		 * its copy, in which there may be entries that are readable.
		 */
		if (in_chunk >= readable &&
		    !copy_from_user(entries + in_chunk * entry_size,
				    u64_to_user_ptr(batch.entries +
						    (u64)batch.done * entry_size),
				    entry_size))
			readable = in_chunk + 1;
		ret = in_chunk < readable ? 0 : -EFAULT;
		if (ret)
			break;
		ret = one(file, entries + in_chunk * entry_size);
		if (ret)
			break;
	}
	free_page((unsigned long)entries);
	if (ret == -ERESTARTSYS)
		ret = -EINTR;

	if (put_user(batch.done, &user_batch->done) ||
	    put_user((u32)-ret, &user_batch->error))
		return -EFAULT;
	return 0;
}

long umn_register_batch(struct umn_file *file, void __user *arg)
{
	return do_batch(file, arg, sizeof(struct ummunotify_register_ioctl),
			register_entry);
}

long umn_unregister_batch(struct umn_file *file, void __user *arg)
{
	return do_batch(file, arg, sizeof(u64), unregister_entry);
}
