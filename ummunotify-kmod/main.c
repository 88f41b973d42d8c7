// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/ummunotify: tells a process when its own memory mappings change.
 *
 * The interface is that of Roland Dreier's driver of 2009; see
 * include/uapi/linux/ummunotify.h.
 */
#include <linux/compat.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "space.h"

/* What one read() returns at most. */
#define UMN_READ_MAX	(4096 / sizeof(struct ummunotify_event))

static unsigned int max_regions = 4 << 20;
module_param(max_regions, uint, 0644);
MODULE_PARM_DESC(max_regions, "Ranges that one open file may watch");

static unsigned int max_files = 64;
module_param(max_files, uint, 0644);
MODULE_PARM_DESC(max_files, "Files that one address space may have open");

static struct kmem_cache *region_cache;

/* What a foreign address space sees where the counter should be. */
static struct page *ones_page;

static int umn_open(struct inode *inode, struct file *filp)
{
	struct umn_space *space;
	struct umn_file *file;
	int ret;

	if (filp->f_mode & FMODE_WRITE)
		return -EINVAL;

	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return -ENOMEM;
	file->page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!file->page) {
		ret = -ENOMEM;
		goto err_file;
	}
	umn_watcher_init(&file->watcher, page_address(file->page));
	mutex_init(&file->reading);

	space = umn_space_get();
	if (IS_ERR(space)) {
		ret = PTR_ERR(space);
		goto err_page;
	}
	file->space = space;
	ret = umn_space_add(space, file, READ_ONCE(max_files));
	if (ret)
		goto err_space;

	filp->private_data = file;
	return nonseekable_open(inode, filp);

err_space:
	umn_space_put(space);
err_page:
	__free_page(file->page);
err_file:
	kfree(file);
	return ret;
}

static int umn_release(struct inode *inode, struct file *filp)
{
	struct umn_file *file = filp->private_data;
	struct umn_space *space = file->space;
	struct umn_region *region, *next;
	struct rb_node *node;
	LIST_HEAD(dead);
	unsigned int n;

	/* Invalidations go on meanwhile: a bounded number in each hold. */
	do {
		spin_lock(&space->lock);
		for (n = 0; n < UMN_BATCH; n++) {
			node = rb_first(&file->watcher.cookies);
			if (!node)
				break;
			region = rb_entry(node, struct umn_region, by_cookie);
			umn_remove(&space->core, region);
			list_add(&region->event, &dead);
		}
		spin_unlock(&space->lock);

		list_for_each_entry_safe(region, next, &dead, event)
			kmem_cache_free(region_cache, region);
		INIT_LIST_HEAD(&dead);
		cond_resched();
	} while (n == UMN_BATCH);

	umn_space_del(space, file);
	umn_space_put(space);
	__free_page(file->page);
	kfree_rcu(file, rcu);
	return 0;
}

static int take_events(struct umn_file *file, struct ummunotify_event *events,
		       unsigned int max)
{
	struct umn_space *space = file->space;
	int ret;

	do {
		ret = umn_space_wait_unpaused(space);
		if (ret)
			break;
		spin_lock(&space->lock);
		ret = umn_report(&space->core, &file->watcher, events, max);
		spin_unlock(&space->lock);
	} while (ret == -EBUSY);
	return ret;
}

static ssize_t umn_read(struct file *filp, char __user *buf, size_t count,
			loff_t *pos)
{
	struct umn_file *file = filp->private_data;
	struct umn_space *space = file->space;
	struct ummunotify_event *events;
	unsigned int max;
	ssize_t ret;
	int n;

	if (!umn_space_is_current(space))
		return -EPERM;
	WRITE_ONCE(file->used, true);
	if (!count)
		return 0;
	max = min_t(size_t, count / sizeof(*events), UMN_READ_MAX);
	if (!max)
		return -EINVAL;
	events = kmalloc_array(max, sizeof(*events), GFP_KERNEL_ACCOUNT);
	if (!events)
		return -ENOMEM;

	for (;;) {
		if (mutex_lock_interruptible(&file->reading)) {
			ret = -ERESTARTSYS;
			goto out_free;
		}
		n = take_events(file, events, max);
		if (n > 0)
			break;
		mutex_unlock(&file->reading);
		if (n < 0) {
			ret = n;
			goto out_free;
		}

		if (filp->f_flags & O_NONBLOCK) {
			ret = -EAGAIN;
			goto out_free;
		}
		if (wait_event_interruptible(space->readable,
					     umn_readable(&file->watcher))) {
			ret = -ERESTARTSYS;
			goto out_free;
		}
	}

	ret = n * sizeof(*events);
	if (copy_to_user(buf, events, ret))
		ret = -EFAULT;

	spin_lock(&space->lock);
	if (ret < 0)
		umn_report_failed(&space->core, &file->watcher);
	else
		umn_report_done(&space->core, &file->watcher, events, n);
	spin_unlock(&space->lock);
	mutex_unlock(&file->reading);
out_free:
	kfree(events);
	return ret;
}

static __poll_t umn_poll(struct file *filp, struct poll_table_struct *wait)
{
	struct umn_file *file = filp->private_data;

	if (!umn_space_is_current(file->space))
		return EPOLLERR;
	poll_wait(filp, &file->space->readable, wait);
	return umn_readable(&file->watcher) ? EPOLLIN | EPOLLRDNORM : 0;
}

static long exchange_features(struct umn_file *file, u32 __user *arg)
{
	if (READ_ONCE(file->used))
		return -EINVAL;
	/* Nothing is ever granted here, so what was asked for is no matter. */
	if (put_user(0, arg))
		return -EFAULT;
	return xchg(&file->used, true) ? -EINVAL : 0;
}

static long register_region(struct umn_file *file,
			    const struct ummunotify_register_ioctl __user *arg)
{
	struct ummunotify_register_ioctl parm;
	struct umn_space *space = file->space;
	struct umn_region *region, *found;
	unsigned long start, last;
	u64 seq, cookie;
	bool doubt;
	long ret;

	if (copy_from_user(&parm, arg, sizeof(parm)))
		return -EFAULT;
	WRITE_ONCE(file->used, true);
	if (parm.end < parm.start || parm.end > ULONG_MAX)
		return -EINVAL;

	region = kmem_cache_alloc(region_cache, GFP_KERNEL);
	if (!region)
		return -ENOMEM;
	umn_region_init(region, &file->watcher, &parm, PAGE_SIZE);
	start = region->span.start;
	last = region->span.last;
	cookie = region->cookie;

	do {
		ret = umn_space_wait_unpaused(space);
		if (ret)
			goto err_free;
		spin_lock(&space->lock);
		if (file->watcher.nr_regions < READ_ONCE(max_regions))
			ret = umn_insert(&space->core, region);
		else
			ret = -ENOSPC;
		/* Once unlocked, another thread may unregister the region. */
		seq = space->core.seq;
		doubt = space->core.nr_untracked;
		spin_unlock(&space->lock);
	} while (ret == -EBUSY);
	if (ret)
		goto err_free;

	if (!doubt)
		doubt = umn_space_wait_inflight(space, start, last, seq);
	if (!doubt)
		return 0;

	spin_lock(&space->lock);
	found = umn_find(&file->watcher, cookie);
	if (found)
		umn_doubt(&space->core, found);
	spin_unlock(&space->lock);
	umn_space_wake_readers(space);
	return 0;

err_free:
	kmem_cache_free(region_cache, region);
	/* What the interface has always said of a cookie that is in use. */
	return ret == -EEXIST ? -EINVAL : ret;
}

static long unregister_region(struct umn_file *file, const u64 __user *arg)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	u64 cookie;

	if (copy_from_user(&cookie, arg, sizeof(cookie)))
		return -EFAULT;

	spin_lock(&space->lock);
	region = umn_find(&file->watcher, cookie);
	if (region)
		umn_remove(&space->core, region);
	spin_unlock(&space->lock);

	if (!region)
		return -EINVAL;
	kmem_cache_free(region_cache, region);
	return 0;
}

static long umn_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct umn_file *file = filp->private_data;
	void __user *argp = (void __user *)arg;

	if (!umn_space_is_current(file->space))
		return -EPERM;

	switch (cmd) {
	case UMMUNOTIFY_EXCHANGE_FEATURES:
		return exchange_features(file, argp);
	case UMMUNOTIFY_REGISTER_REGION:
		return register_region(file, argp);
	case UMMUNOTIFY_UNREGISTER_REGION:
		return unregister_region(file, argp);
	default:
		return -ENOIOCTLCMD;
	}
}

/*
 * A forked child inherits the mapping but not the page: the kernel copies no
 * page table entries of a file mapping without private pages.  So the child
 * faults, and finds that the counter is not the one it knew.
 */
static vm_fault_t umn_fault(struct vm_fault *vmf)
{
	struct umn_file *file = vmf->vma->vm_file->private_data;
	struct page *page;

	if (vmf->pgoff != 0)
		return VM_FAULT_SIGBUS;
	if (vmf->vma->vm_mm == file->space->notifier.mm)
		page = file->page;
	else
		page = ones_page;
	get_page(page);
	vmf->page = page;
	return 0;
}

static const struct vm_operations_struct umn_vm_ops = {
	.fault		= umn_fault,
};

static int umn_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct umn_file *file = filp->private_data;

	if (!umn_space_is_current(file->space))
		return -EPERM;
	if (vma->vm_end - vma->vm_start != PAGE_SIZE || vma->vm_pgoff != 0)
		return -EINVAL;
	if (vma->vm_flags & VM_WRITE)
		return -EACCES;
	vm_flags_mod(vma, VM_DONTEXPAND | VM_DONTDUMP, VM_MAYWRITE);
	vma->vm_ops = &umn_vm_ops;
	return 0;
}

static int umn_fasync(int fd, struct file *filp, int on)
{
	struct umn_file *file = filp->private_data;

	return fasync_helper(fd, filp, on, &file->async);
}

static const struct file_operations umn_fops = {
	.owner		= THIS_MODULE,
	.open		= umn_open,
	.release	= umn_release,
	.read		= umn_read,
	.poll		= umn_poll,
	.unlocked_ioctl	= umn_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.mmap		= umn_mmap,
	.fasync		= umn_fasync,
};

static struct miscdevice umn_device = {
	.minor		= MISC_DYNAMIC_MINOR,
	.name		= "ummunotify",
	.fops		= &umn_fops,
};

static int __init umn_init(void)
{
	int ret = -ENOMEM;

	region_cache = kmem_cache_create("ummunotify_region",
					 sizeof(struct umn_region), 0,
					 SLAB_ACCOUNT, NULL);
	if (!region_cache)
		return ret;
	ones_page = alloc_page(GFP_KERNEL);
	if (!ones_page)
		goto err_cache;
	memset(page_address(ones_page), 0xff, PAGE_SIZE);
	ret = misc_register(&umn_device);
	if (ret)
		goto err_page;
	return 0;

err_page:
	__free_page(ones_page);
err_cache:
	kmem_cache_destroy(region_cache);
	return ret;
}

static void __exit umn_exit(void)
{
	misc_deregister(&umn_device);
	/* free_notifier runs after a grace period. */
	mmu_notifier_synchronize();
	__free_page(ones_page);
	kmem_cache_destroy(region_cache);
}

module_init(umn_init);
module_exit(umn_exit);

MODULE_AUTHOR("The regcache authors");
MODULE_DESCRIPTION("Tells processes when their memory mappings change");
MODULE_LICENSE("GPL");
