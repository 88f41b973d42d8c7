// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/ummunotify: tells a process when its own memory mappings change.
 *
 * The interface began as that of Roland Dreier's driver of 2009; see
 * include/uapi/linux/ummunotify.h.
 */
#include <linux/compat.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "file.h"

/* What one read() returns at most. */
#define UMN_READ_MAX	(4096 / sizeof(struct ummunotify_event))

/* Enough for a cache for each protection domain of each of many devices. */
static unsigned int max_files = 1024;
module_param(max_files, uint, 0644);
MODULE_PARM_DESC(max_files, "Files that one address space may have open");

static int umn_open(struct inode *inode, struct file *filp)
{
	struct umn_file *file;
	int ret;

	if (filp->f_mode & FMODE_WRITE)
		return -EINVAL;

	file = kzalloc(sizeof(*file), GFP_KERNEL_ACCOUNT);
	if (!file)
		return -ENOMEM;
	ret = umn_file_alloc_page(file);
	if (ret)
		goto err_file;
	umn_watcher_init(&file->watcher, page_address(file->page));
	mutex_init(&file->reading);
	init_waitqueue_head(&file->readable);

	file->user = umn_user_get();
	if (IS_ERR(file->user)) {
		ret = PTR_ERR(file->user);
		goto err_page;
	}
	file->space = umn_space_get();
	if (IS_ERR(file->space)) {
		ret = PTR_ERR(file->space);
		goto err_user;
	}
	ret = umn_space_add(file->space, file, READ_ONCE(max_files));
	if (ret)
		goto err_space;

	filp->private_data = file;
	return nonseekable_open(inode, filp);

err_space:
	umn_space_put(file->space);
err_user:
	umn_user_put(file->user);
err_page:
	umn_file_free_page(file);
err_file:
	kfree(file);
	return ret;
}

static int umn_release(struct inode *inode, struct file *filp)
{
	struct umn_file *file = filp->private_data;

	umn_unregister_all(file);
	umn_space_del(file->space, file);
	umn_space_put(file->space);
	umn_file_free_slots(file, file->watcher.slots, file->nr_slots);
	umn_file_free_page(file);
	umn_user_put(file->user);
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
		raw_spin_lock(&space->lock);
		ret = umn_report(&space->core, &file->watcher, events, max);
		raw_spin_unlock(&space->lock);
	} while (ret == -EBUSY);
	return ret;
}

static void events_were_read(struct umn_file *file,
			     const struct ummunotify_event *events,
			     unsigned int n)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	LIST_HEAD(forgotten);

	raw_spin_lock(&space->lock);
	umn_report_done(&space->core, &file->watcher, events, n, &forgotten);
	list_for_each_entry(region, &forgotten, event)
		space->nr_regions--;
	raw_spin_unlock(&space->lock);
	umn_free_regions(file, &forgotten);
}

static void events_were_not_read(struct umn_file *file)
{
	raw_spin_lock(&file->space->lock);
	umn_report_failed(&file->space->core, &file->watcher);
	raw_spin_unlock(&file->space->lock);
}

static ssize_t read_events(struct file *filp, char __user *buf, size_t count)
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
		if (wait_event_interruptible(file->readable,
					     umn_readable(&file->watcher))) {
			ret = -ERESTARTSYS;
			goto out_free;
		}
	}

	ret = n * sizeof(*events);
	if (copy_to_user(buf, events, ret)) {
		events_were_not_read(file);
		ret = -EFAULT;
	} else {
		events_were_read(file, events, n);
	}
	mutex_unlock(&file->reading);
out_free:
	kfree(events);
	return ret;
}

static ssize_t umn_read(struct file *filp, char __user *buf, size_t count,
			loff_t *pos)
{
	return read_events(filp, buf, count);
}

static __poll_t umn_poll(struct file *filp, struct poll_table_struct *wait)
{
	struct umn_file *file = filp->private_data;

	if (!umn_space_is_current(file->space))
		return EPOLLERR;
	poll_wait(filp, &file->readable, wait);
	return umn_readable(&file->watcher) ? EPOLLIN | EPOLLRDNORM : 0;
}

static long do_ioctl(struct umn_file *file, unsigned int cmd, void __user *argp)
{
	u32 features = READ_ONCE(file->watcher.features);

	switch (cmd) {
	case UMMUNOTIFY_EXCHANGE_FEATURES:
		return umn_exchange_features(file, argp);
	case UMMUNOTIFY_REGISTER_REGION:
		return umn_register(file, argp);
	case UMMUNOTIFY_UNREGISTER_REGION:
		return umn_unregister(file, argp);
	case UMMUNOTIFY_NEGOTIATE:
		return umn_negotiate(file, argp);
	}

	if (features & UMMUNOTIFY_FEATURE_BATCH) {
		switch (cmd) {
		case UMMUNOTIFY_REGISTER_BATCH:
			return umn_register_batch(file, argp);
		case UMMUNOTIFY_UNREGISTER_BATCH:
			return umn_unregister_batch(file, argp);
		case UMMUNOTIFY_UNREGISTER_ALL:
			umn_unregister_all(file);
			return 0;
		}
	}

	if (features & UMMUNOTIFY_FEATURE_VERIFY) {
		switch (cmd) {
		case UMMUNOTIFY_NOTE:
			return umn_note(file, argp);
		case UMMUNOTIFY_VERIFY:
			return umn_verify(file, argp);
		}
	}

	if (features & UMMUNOTIFY_FEATURE_IDENTITY &&
	    cmd == UMMUNOTIFY_IDENTIFY)
		return umn_identify(file, argp);
	return -ENOIOCTLCMD;
}

static long call(struct file *filp, struct ummunotify_call __user *arg)
{
	struct umn_file *file = filp->private_data;
	struct ummunotify_call parm;
	int ret;

	ret = umn_copy_sized(&parm, sizeof(parm), arg);
	if (ret)
		return ret;
	if (!umn_has_identity(file, parm.identity))
		return -ESTALE;
	if (parm.len && parm.call != UMMUNOTIFY_READ)
		return -EINVAL;
	if (parm.len > MAX_RW_COUNT)
		parm.len = MAX_RW_COUNT;
	/* First: whoever cannot be answered must not lose events. */
	if (put_user(~parm.identity, &arg->answer))
		return -EFAULT;

	switch (parm.call) {
	case 0:
		return 0;
	case UMMUNOTIFY_READ:
		return read_events(filp, u64_to_user_ptr(parm.arg), parm.len);
	default:
		return do_ioctl(file, parm.call, u64_to_user_ptr(parm.arg));
	}
}

static long umn_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct umn_file *file = filp->private_data;
	void __user *argp = (void __user *)arg;

	if (!umn_space_is_current(file->space))
		return -EPERM;
	if (cmd == UMMUNOTIFY_CALL && READ_ONCE(file->watcher.features) &
	    UMMUNOTIFY_FEATURE_IDENTITY)
		return call(filp, argp);
	return do_ioctl(file, cmd, argp);
}

static int umn_fasync(int fd, struct file *filp, int on)
{
	struct umn_file *file = filp->private_data;

	return fasync_helper(fd, filp, on, &file->async);
}

static void umn_show_fdinfo(struct seq_file *m, struct file *filp)
{
	struct umn_file *file = filp->private_data;
	struct ummunotify_stats stats;
	u64 generation;

	raw_spin_lock(&file->space->lock);
	stats = file->watcher.stats;
	generation = *file->watcher.counter;
	raw_spin_unlock(&file->space->lock);

	seq_printf(m, "ummunotify-features:\t%#x\n",
		   READ_ONCE(file->watcher.features));
	seq_printf(m, "ummunotify-slots:\t%u\n", file->nr_slots);
	seq_printf(m, "ummunotify-generation:\t%llu\n", generation);
	seq_printf(m, "ummunotify-regions:\t%llu\n", stats.regions);
	seq_printf(m, "ummunotify-hits:\t%llu\n", stats.hits);
	seq_printf(m, "ummunotify-delivered:\t%llu\n", stats.delivered);
	seq_printf(m, "ummunotify-doubts:\t%llu\n", stats.doubts);
	seq_printf(m, "ummunotify-verified:\t%llu\n", stats.verified);
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
	.show_fdinfo	= umn_show_fdinfo,
};

static struct miscdevice umn_device = {
	.minor		= MISC_DYNAMIC_MINOR,
	.name		= "ummunotify",
	.fops		= &umn_fops,
};

static int __init umn_init(void)
{
	int ret;

	ret = umn_watch_init();
	if (ret)
		return ret;
	ret = umn_map_init();
	if (ret)
		goto err_watch;
	ret = misc_register(&umn_device);
	if (ret)
		goto err_map;
	return 0;

err_map:
	umn_map_exit();
err_watch:
	umn_watch_exit();
	return ret;
}

static void __exit umn_exit(void)
{
	misc_deregister(&umn_device);
	umn_spaces_wait_freed();
	umn_map_exit();
	umn_watch_exit();
}

module_init(umn_init);
module_exit(umn_exit);

MODULE_AUTHOR("The regcache authors");
MODULE_DESCRIPTION("Tells processes when their memory mappings change");
MODULE_LICENSE("GPL");
