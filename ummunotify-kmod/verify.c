// SPDX-License-Identifier: GPL-2.0
/*
 * NOTE and VERIFY: does a range still have the pages that it had?
 *
 * Why the answer can be trusted.  The caller has kept the range pinned since
 * before NOTE, so none of the noted frames can have been freed and be another
 * page now: equal frames are the same pages.  VERIFY arms the region first and
 * waits for the invalidations that had begun before; one that begins later
 * finds the region armed and moves the generation, which the caller compares.
 * So when the frames are looked at, every change either shows in them or will
 * show in the generation.
 *
 * The frames are kept as a keyed hash of 64 bits.
 *
 * Both also find out for whom it is nothing that a huge page is split: see
 * protection.c.
 */
#include <linux/mm.h>
#include <linux/once.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/siphash.h>
#include <linux/uaccess.h>

#include "file.h"

/* Pages that are looked at in one go. */
#define UMN_WALK	64

/* Pages of a range that are faulted in, if they are not there. */
#define UMN_FAULTS	64

static const siphash_key_t *digest_key(void)
{
	static siphash_key_t key __read_mostly;

	get_random_once(&key, sizeof(key));
	return &key;
}

/*
 * The digest of the page frames of a range of the caller's.  What is pinned is
 * there, but for a moment (migration) or with its page table entry gone (a
 * file's): so UMN_FAULTS pages are faulted in, which may differ from those that
 * were noted.  More that are not there are -EFAULT and stay away: a range may
 * be larger than the machine's memory.
 */
static int digest_frames(unsigned long start, unsigned long last, u64 *digest)
{
	const siphash_key_t *key = digest_key();
	struct page *pages[UMN_WALK];
	unsigned long left = (last - start) / PAGE_SIZE + 1;
	unsigned int faults = 0;
	int i, n;

	*digest = 0;
	while (left) {
		n = get_user_pages_fast(start, min_t(unsigned long, left,
						     UMN_WALK), FOLL_NOFAULT,
					pages);
		if (n <= 0 && faults++ < UMN_FAULTS)
			n = get_user_pages_fast(start, 1, 0, pages);
		/* Some kernels say -EOVERFLOW at the end of the addresses. */
		if (n == 0 || n == -EOVERFLOW)
			return -EFAULT;
		if (n < 0)
			return n;
		for (i = 0; i < n; i++) {
			*digest = siphash_2u64(*digest, page_to_pfn(pages[i]),
					       key);
			put_page(pages[i]);
		}
		start += n * PAGE_SIZE;
		left -= n;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/* Is all of a range of the caller's private anonymous memory? */
static bool is_anonymous(unsigned long start, unsigned long last)
{
	struct vm_area_struct *vma;

	do {
		vma = find_vma(current->mm, start);
		if (!vma || vma->vm_start > start || !vma_is_anonymous(vma))
			return false;
		start = vma->vm_end;
	} while (start <= last);
	return true;
}

/*
 * The region of @cookie has the pages of @digest: notes it, or says once more
 * what it was @verified to be.  -EINVAL if it is another region by now.
 */
static int has_frames(struct umn_file *file, u64 cookie, unsigned long start,
		      unsigned long last, u64 digest, bool verified,
		      bool quiet)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	bool anonymous = false;
	int ret = 0;

	/*
	 * What is mapped there stays until the region knows what that is; a
	 * change after that is an event of it.
	 */
	if (quiet) {
		if (mmap_read_lock_killable(current->mm))
			return -EINTR;
		anonymous = is_anonymous(start, last);
	}
	spin_lock(&space->lock);
	region = umn_find(&file->watcher, cookie);
	if (!region || region->span.start != start ||
	    region->span.last != last ||
	    (verified && !(region->flags & UMN_NOTED &&
			   region->frames == digest))) {
		ret = -EINVAL;
	} else {
		region->frames = digest;
		region->flags |= UMN_NOTED;
		umn_ignore_splits(&space->core, region, anonymous);
		if (verified)
			umn_count(&file->watcher, verified, 1);
	}
	spin_unlock(&space->lock);
	if (quiet)
		mmap_read_unlock(current->mm);
	return ret;
}

long umn_note(struct umn_file *file, const u64 __user *arg)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	unsigned long start = 0, last = 0;
	bool quiet = false;
	u64 cookie, digest;
	int ret;

	if (copy_from_user(&cookie, arg, sizeof(cookie)))
		return -EFAULT;

	spin_lock(&space->lock);
	region = umn_find(&file->watcher, cookie);
	if (region) {
		start = region->span.start;
		last = region->span.last;
		quiet = umn_ignores_protection(region);
	}
	spin_unlock(&space->lock);
	if (!region)
		return -EINVAL;

	ret = digest_frames(start, last, &digest);
	if (ret)
		return ret;
	return has_frames(file, cookie, start, last, digest, false, quiet);
}

long umn_verify(struct umn_file *file, const u64 __user *arg)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	unsigned long start = 0, last = 0;
	u64 cookie, noted = 0, seq = 0, digest;
	bool doubt = false, quiet = false;
	int ret;

	if (copy_from_user(&cookie, arg, sizeof(cookie)))
		return -EFAULT;

	do {
		ret = umn_space_wait_unpaused(space);
		if (ret)
			return ret;
		spin_lock(&space->lock);
		region = umn_find(&file->watcher, cookie);
		if (!region || !(region->flags & UMN_NOTED)) {
			ret = -EINVAL;
		} else if (space->core.paused) {
			ret = -EBUSY;
		} else {
			doubt = !umn_take_back(&space->core, region) ||
				space->core.nr_untracked;
			start = region->span.start;
			last = region->span.last;
			noted = region->frames;
			quiet = umn_ignores_protection(region);
			seq = space->core.seq;
		}
		spin_unlock(&space->lock);
	} while (ret == -EBUSY);
	if (ret)
		return ret;

	if (doubt || umn_space_wait_inflight(space, start, last, seq))
		return 0;
	/* The event is gone, so that failing is no answer: only dying is. */
	ret = digest_frames(start, last, &digest);
	if (ret == -EINTR)
		return ret;
	if (ret || digest != noted)
		return 0;

	ret = has_frames(file, cookie, start, last, digest, true, quiet);
	return ret == -EINTR ? ret : !ret;
}
