// SPDX-License-Identifier: GPL-2.0
/*
 * An address space that is watched: the MMU notifier and its callbacks.
 *
 * The race that matters: an invalidation marks its regions at its start, and
 * changes the page tables after that.  Who registers a region and pins it in
 * between would pin the old pages and hear nothing.  So every invalidation is
 * known from its start to its end, and
 *
 *  - REGISTER arms the region first and then waits for the invalidations that
 *    had begun before; one that begins later finds the region armed;
 *  - read(), which arms what it reports and cannot wait, leaves a note with
 *    the invalidation, which hits its range once more at its end.
 *
 * The notifier was registered with all of the mm's locks held, so none began
 * before we could see it.
 */
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait_bit.h>

#include "file.h"

/* How long REGISTER waits before it says "invalid" instead. */
#define UMN_INFLIGHT_TIMEOUT	HZ

/* Spaces that are not freed. */
static atomic_t nr_spaces = ATOMIC_INIT(0);

static struct umn_space *space_of(struct mmu_notifier *notifier)
{
	return container_of(notifier, struct umn_space, notifier);
}

static u8 kind_of(const struct mmu_notifier_range *range)
{
	switch (range->event) {
	case MMU_NOTIFY_UNMAP:
		return UMMUNOTIFY_KIND_UNMAP;
	case MMU_NOTIFY_CLEAR:
		return UMMUNOTIFY_KIND_CLEAR;
	case MMU_NOTIFY_PROTECTION_VMA:
		return UMMUNOTIFY_KIND_PROTECTION_VMA;
	case MMU_NOTIFY_PROTECTION_PAGE:
		return UMMUNOTIFY_KIND_PROTECTION_PAGE;
	case MMU_NOTIFY_SOFT_DIRTY:
		return UMMUNOTIFY_KIND_SOFT_DIRTY;
	case MMU_NOTIFY_MIGRATE:
		return UMMUNOTIFY_KIND_MIGRATE;
	case MMU_NOTIFY_EXCLUSIVE:
		return UMMUNOTIFY_KIND_EXCLUSIVE;
	default:
		return UMMUNOTIFY_KIND_OTHER;
	}
}

static bool is_protection(const struct mmu_notifier_range *range)
{
	return kind_of(range) & UMN_KINDS_PROTECTION;
}

/*
 * Changes of protection leave every page where it is.  A region is told of
 * them, but there is nothing to wait for.
 */
static bool moves_pages(const struct mmu_notifier_range *range)
{
	return !(kind_of(range) & (UMN_KINDS_PROTECTION |
				   UMMUNOTIFY_KIND_SOFT_DIRTY));
}

/*
 * Wakes the readers of those files of which a region was hit that wakes.  Of
 * several callers one finds a mark; its region's event is queued by then, and
 * so are those of the others who found none.
 */
void umn_space_wake_readers(struct umn_space *space)
{
	struct umn_file *file;

	rcu_read_lock();
	list_for_each_entry_rcu(file, &space->files, node) {
		if (!READ_ONCE(file->watcher.wake) ||
		    !xchg(&file->watcher.wake, false))
			continue;
		wake_up_interruptible(&file->readable);
		if (READ_ONCE(file->async))
			kill_fasync(&file->async, SIGIO, POLL_IN);
	}
	rcu_read_unlock();
}

/* Called with the lock held, once for each invalidation: see touched.c. */
static void note_touched(struct umn_space *space,
			 const struct mmu_notifier_range *range)
{
	umn_touched_invalidate(&space->core.touched, range->start,
			       range->end - 1, kind_of(range),
			       umn_protection_splits(&space->protections,
						     range));
}

/* Called with the lock held; returns without it. */
static void invalidate_and_unlock(struct umn_space *space,
				  const struct mmu_notifier_range *range)
	__releases(&space->lock)
{
	struct umn_pass pass = {
		.start	= range->start,
		.last	= range->end - 1,
		.kind	= kind_of(range),
		.split	= umn_protection_splits(&space->protections, range),
	};

	while (!umn_invalidate(&space->core, &pass)) {
		raw_spin_unlock(&space->lock);
		if (mmu_notifier_range_blockable(range))
			cond_resched();
		raw_spin_lock(&space->lock);
	}
	raw_spin_unlock(&space->lock);

	/*
	 * Where nothing may sleep, nobody is woken, since wait queues have locks
	 * that do on a real-time kernel.  The address space is a dying process's:
	 * its threads were killed, which wakes them, and nobody else waits.
	 */
	if (!mmu_notifier_range_blockable(range))
		return;
	if (pass.was_paused)
		wake_up_all(&space->settled);
	if (pass.wake)
		umn_space_wake_readers(space);
}

static int range_start(struct mmu_notifier *notifier,
		       const struct mmu_notifier_range *range)
{
	struct umn_space *space = space_of(notifier);

	if (range->start >= range->end)
		return 0;

	raw_spin_lock(&space->lock);
	if (moves_pages(range))
		umn_inflight_begin(&space->core, range, range->start,
				   range->end - 1);
	else
		note_touched(space, range);
	if (is_protection(range))
		umn_protection_begin(&space->protections, range);
	invalidate_and_unlock(space, range);
	return 0;
}

static void range_end(struct mmu_notifier *notifier,
		      const struct mmu_notifier_range *range)
{
	struct umn_space *space = space_of(notifier);

	if (range->start >= range->end)
		return;
	if (is_protection(range)) {
		raw_spin_lock(&space->lock);
		umn_protection_end(&space->protections, range);
		raw_spin_unlock(&space->lock);
	}
	if (!moves_pages(range))
		return;

	raw_spin_lock(&space->lock);
	note_touched(space, range);
	if (umn_inflight_end(&space->core, range))
		invalidate_and_unlock(space, range);
	else
		raw_spin_unlock(&space->lock);

	/* Pairs with the barrier of the waiter's prepare_to_wait(). */
	if (mmu_notifier_range_blockable(range) &&
	    wq_has_sleeper(&space->settled))
		wake_up_all(&space->settled);
}

static struct mmu_notifier *alloc_notifier(struct mm_struct *mm)
{
	struct umn_space *space;

	space = kzalloc(sizeof(*space), GFP_KERNEL_ACCOUNT);
	if (!space)
		return ERR_PTR(-ENOMEM);
	raw_spin_lock_init(&space->lock);
	umn_core_init(&space->core);
	INIT_LIST_HEAD(&space->files);
	init_waitqueue_head(&space->settled);
	atomic_inc(&nr_spaces);
	return &space->notifier;
}

static void free_notifier(struct mmu_notifier *notifier)
{
	kfree(space_of(notifier));
	if (atomic_dec_and_test(&nr_spaces))
		wake_up_var(&nr_spaces);
}

/*
 * Before the module goes.  mmu_notifier_synchronize() waits for a grace period,
 * but not for the calls of free_notifier() that other CPUs are about to make.
 */
void umn_spaces_wait_freed(void)
{
	mmu_notifier_synchronize();
	wait_var_event(&nr_spaces, !atomic_read(&nr_spaces));
	/* The last one may not have returned: it runs with softirqs disabled. */
	synchronize_rcu();
}

/*
 * No .release: when an address space dies none of its threads is left to wait
 * for an end that never comes, and every other caller is refused.
 */
static const struct mmu_notifier_ops notifier_ops = {
	.invalidate_range_start	= range_start,
	.invalidate_range_end	= range_end,
	.alloc_notifier		= alloc_notifier,
	.free_notifier		= free_notifier,
};

/* The caller's address space. */
struct umn_space *umn_space_get(void)
{
	struct mmu_notifier *notifier;

	if (!current->mm)
		return ERR_PTR(-EINVAL);
	notifier = mmu_notifier_get(&notifier_ops, current->mm);
	if (IS_ERR(notifier)) {
		/* Taking all locks of the mm gives up on a signal. */
		if (PTR_ERR(notifier) == -EINTR)
			return ERR_PTR(-ERESTARTNOINTR);
		return ERR_CAST(notifier);
	}
	return space_of(notifier);
}

void umn_space_put(struct umn_space *space)
{
	mmu_notifier_put(&space->notifier);
}

int umn_space_add(struct umn_space *space, struct umn_file *file,
		  unsigned int max_files)
{
	int ret = -EMFILE;

	raw_spin_lock(&space->lock);
	if (space->nr_files < max_files) {
		space->nr_files++;
		list_add_rcu(&file->node, &space->files);
		ret = 0;
	}
	raw_spin_unlock(&space->lock);
	return ret;
}

/* The caller holds the lock, and frees @region. */
void umn_space_remove(struct umn_space *space, struct umn_region *region)
{
	lockdep_assert_held(&space->lock);
	umn_remove(&space->core, region);
	space->nr_regions--;
}

/* The caller frees @file after an RCU grace period. */
void umn_space_del(struct umn_space *space, struct umn_file *file)
{
	raw_spin_lock(&space->lock);
	space->nr_files--;
	list_del_rcu(&file->node);
	raw_spin_unlock(&space->lock);
}

/*
 * The notifier holds the mm_struct, so that its address is not used again
 * while a file refers to it.
 */
bool umn_space_is_current(const struct umn_space *space)
{
	return current->mm == space->notifier.mm;
}

static bool is_paused(struct umn_space *space)
{
	bool paused;

	raw_spin_lock(&space->lock);
	paused = space->core.paused;
	raw_spin_unlock(&space->lock);
	return paused;
}

/* Waits until regions can be armed: see umn_insert(). */
int umn_space_wait_unpaused(struct umn_space *space)
{
	return wait_event_killable(space->settled, !is_paused(space));
}

static bool is_inflight(struct umn_space *space, unsigned long start,
			unsigned long last, u64 seq)
{
	bool inflight;

	raw_spin_lock(&space->lock);
	inflight = umn_inflight_overlaps(&space->core, start, last, seq);
	raw_spin_unlock(&space->lock);
	return inflight;
}

/*
 * Waits for the invalidations of a range that began no later than @seq.
 * Returns non-zero if they may not have ended.  The caller holds no lock, of
 * the mm or otherwise, so that they can.
 */
int umn_space_wait_inflight(struct umn_space *space, unsigned long start,
			    unsigned long last, u64 seq)
{
	long left;

	left = wait_event_interruptible_timeout(space->settled,
						!is_inflight(space, start,
							     last, seq),
						UMN_INFLIGHT_TIMEOUT);
	if (left < 0)
		return left;
	return left ? 0 : -ETIMEDOUT;
}
