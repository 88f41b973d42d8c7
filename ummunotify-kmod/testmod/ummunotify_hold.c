// SPDX-License-Identifier: GPL-2.0
/*
 * Helper of ummunotify's selftests: an MMU notifier whose start callback
 * sleeps on request, so that an invalidation stays between its start and its
 * end for as long as a test needs.
 */

#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "ummunotify_hold.h"

/**
 * struct hold - one open file
 * @mn: the notifier on the opener's memory
 * @lock: protects @ranges, @nr_ranges and @dead; nothing nests inside
 * @ranges: invalidations that overlap one of these are held
 * @nr_ranges: how many of @ranges are in use
 * @dead: the memory or the file goes away; nothing is held any more
 * @held: how many invalidations sleep now
 * @wait: where they sleep
 */
struct hold {
	struct mmu_notifier		mn;
	spinlock_t			lock;
	struct ummunotify_hold_range	ranges[UMMUNOTIFY_HOLD_RANGES];
	unsigned int			nr_ranges;
	bool				dead;
	atomic_t			held;
	wait_queue_head_t		wait;
};

static bool overlaps(const struct ummunotify_hold_range *r, u64 start, u64 end)
{
	return r->start < end && start < r->end;
}

static bool hold_applies(struct hold *h, const struct mmu_notifier_range *range)
{
	bool ret = false;
	unsigned int i;

	spin_lock(&h->lock);
	for (i = 0; !h->dead && i < h->nr_ranges; i++) {
		if (overlaps(&h->ranges[i], range->start, range->end)) {
			ret = true;
			break;
		}
	}
	spin_unlock(&h->lock);

	return ret;
}

static int hold_start(struct mmu_notifier *mn,
		      const struct mmu_notifier_range *range)
{
	struct hold *h = container_of(mn, struct hold, mn);

	if (!mmu_notifier_range_blockable(range) || !hold_applies(h, range))
		return 0;

	atomic_inc(&h->held);
	/* Released, killed or late: the invalidation goes on all the same. */
	wait_event_killable_timeout(h->wait, !hold_applies(h, range),
				    UMMUNOTIFY_HOLD_SECONDS * HZ);
	atomic_dec(&h->held);

	return 0;
}

static void hold_let_go(struct hold *h)
{
	spin_lock(&h->lock);
	h->dead = true;
	spin_unlock(&h->lock);
	wake_up_all(&h->wait);
}

static void hold_mm_release(struct mmu_notifier *mn, struct mm_struct *mm)
{
	hold_let_go(container_of(mn, struct hold, mn));
}

static const struct mmu_notifier_ops hold_mn_ops = {
	.release		= hold_mm_release,
	.invalidate_range_start	= hold_start,
};

static int hold_open(struct inode *inode, struct file *file)
{
	struct hold *h;
	int ret;

	h = kzalloc(sizeof(*h), GFP_KERNEL);
	if (!h)
		return -ENOMEM;

	spin_lock_init(&h->lock);
	init_waitqueue_head(&h->wait);
	h->mn.ops = &hold_mn_ops;

	ret = mmu_notifier_register(&h->mn, current->mm);
	if (ret) {
		kfree(h);
		return ret == -EINTR ? -ERESTARTNOINTR : ret;
	}

	file->private_data = h;
	return 0;
}

static int hold_close(struct inode *inode, struct file *file)
{
	struct hold *h = file->private_data;

	/* Wake first: unregistering waits for the callbacks that run. */
	hold_let_go(h);
	mmu_notifier_unregister(&h->mn, h->mn.mm);
	kfree(h);

	return 0;
}

static long hold_add(struct hold *h, const struct ummunotify_hold_range *r)
{
	long ret = 0;

	if (r->end <= r->start)
		return -EINVAL;

	spin_lock(&h->lock);
	if (h->nr_ranges < ARRAY_SIZE(h->ranges))
		h->ranges[h->nr_ranges++] = *r;
	else
		ret = -ENOSPC;
	spin_unlock(&h->lock);

	return ret;
}

static void hold_drop(struct hold *h, const struct ummunotify_hold_range *r)
{
	unsigned int i, kept = 0;

	spin_lock(&h->lock);
	for (i = 0; i < h->nr_ranges; i++) {
		if (!overlaps(&h->ranges[i], r->start, r->end))
			h->ranges[kept++] = h->ranges[i];
	}
	h->nr_ranges = kept;
	spin_unlock(&h->lock);
	wake_up_all(&h->wait);
}

static long hold_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct hold *h = file->private_data;
	struct ummunotify_hold_range r;

	switch (cmd) {
	case UMMUNOTIFY_HOLD:
	case UMMUNOTIFY_HOLD_RELEASE:
		if (copy_from_user(&r, (void __user *)arg, sizeof(r)))
			return -EFAULT;
		if (cmd == UMMUNOTIFY_HOLD)
			return hold_add(h, &r);
		hold_drop(h, &r);
		return 0;
	case UMMUNOTIFY_HOLD_COUNT:
		return atomic_read(&h->held);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations hold_fops = {
	.owner		= THIS_MODULE,
	.open		= hold_open,
	.release	= hold_close,
	.unlocked_ioctl	= hold_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

static struct miscdevice hold_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "ummunotify_hold",
	.mode	= 0600,
	.fops	= &hold_fops,
};
module_misc_device(hold_misc);

MODULE_DESCRIPTION("Keeps MMU invalidations in flight, for ummunotify's selftests");
MODULE_LICENSE("GPL");
