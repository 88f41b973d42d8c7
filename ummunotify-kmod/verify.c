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
 * Of a large range, only the chunks are looked at that invalidations touched:
 * see touched.c, and frames.c for what is kept of the frames.
 *
 * Both also find out for whom it is nothing that a huge page is split: see
 * protection.c.
 */
#include <linux/mm.h>
#include <linux/uaccess.h>

#include "frames.h"

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

/**
 * struct frames_of - what NOTE and VERIFY are about
 * @cookie: the region's
 * @start: its first byte
 * @last: its last byte
 * @ignore: what it ignores
 * @digest: of its frames
 * @frames: the same of a large range, with a reference; else NULL
 * @since: when that was touched last
 */
struct frames_of {
	u64			cookie;
	unsigned long		start;
	unsigned long		last;
	u8			ignore;
	u64			digest;
	struct umn_frames	*frames;
	u64			since;
};

static void describe(struct frames_of *of, const struct umn_region *region)
{
	of->start = region->span.start;
	of->last = region->span.last;
	of->ignore = region->ignore;
}

/* Was this noted for @region? */
static bool was_noted(const struct umn_region *region,
		      const struct frames_of *of)
{
	if (!(region->flags & UMN_NOTED))
		return false;
	if (of->frames || region->flags & UMN_CHUNKED)
		return of->frames && region->flags & UMN_CHUNKED &&
		       region->note == &of->frames->note;
	return region->digest == of->digest;
}

/* Notes this for @region.  Returns what was noted before and has memory. */
static struct umn_frames *set_noted(struct umn_space *space,
				    struct umn_region *region,
				    const struct frames_of *of)
{
	struct umn_frames *old = NULL;

	if (region->flags & UMN_CHUNKED) {
		old = umn_frames_of(region->note);
		umn_touched_remove(&space->core.touched, region->note);
		region->flags &= ~UMN_CHUNKED;
	}
	if (of->frames) {
		region->note = &of->frames->note;
		region->flags |= UMN_CHUNKED;
	} else {
		region->digest = of->digest;
	}
	region->flags |= UMN_NOTED;
	return old;
}

/*
 * The region has these frames: notes them, or says once more what it was
 * @verified to be.  -EINVAL if it is another region by now.
 */
static int has_frames(struct umn_file *file, const struct frames_of *of,
		      bool verified)
{
	bool quiet = umn_ignores_protection(of->ignore), anonymous = false;
	struct umn_space *space = file->space;
	struct umn_frames *old = NULL;
	struct umn_region *region;
	int ret = 0;

	/*
	 * What is mapped there stays until the region knows what that is; a
	 * change after that is an event of it.
	 */
	if (quiet) {
		if (mmap_read_lock_killable(current->mm))
			return -EINTR;
		anonymous = is_anonymous(of->start, of->last);
	}
	raw_spin_lock(&space->lock);
	region = umn_find(&file->watcher, of->cookie);
	if (!region || region->span.start != of->start ||
	    region->span.last != of->last ||
	    (verified && !was_noted(region, of))) {
		ret = -EINVAL;
	} else {
		if (!verified) {
			old = set_noted(space, region, of);
		} else {
			if (of->frames)
				of->frames->note.since =
					max(of->frames->note.since, of->since);
			umn_count(&file->watcher, verified, 1);
		}
		umn_ignore_splits(&space->core, region, anonymous);
	}
	raw_spin_unlock(&space->lock);
	if (quiet)
		mmap_read_unlock(current->mm);
	if (old)
		umn_frames_put(file, old);
	return ret;
}

long umn_note(struct umn_file *file, const u64 __user *arg)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	struct frames_of of = {};
	int ret;

	if (copy_from_user(&of.cookie, arg, sizeof(of.cookie)))
		return -EFAULT;

	raw_spin_lock(&space->lock);
	region = umn_find(&file->watcher, of.cookie);
	if (region)
		describe(&of, region);
	raw_spin_unlock(&space->lock);
	if (!region)
		return -EINVAL;

	if (!umn_frames_are_many(of.start, of.last)) {
		ret = umn_digest(of.start, of.last, &of.digest);
		return ret ? ret : has_frames(file, &of, false);
	}

	of.frames = umn_frames_note(file, of.start, of.last, of.ignore);
	if (IS_ERR(of.frames))
		return PTR_ERR(of.frames);
	ret = has_frames(file, &of, false);
	if (ret)
		umn_frames_drop(file, of.frames);
	return ret;
}

/* Do the pages that @of tells of have the frames that were noted? */
static int compare(struct umn_file *file, struct frames_of *of)
{
	u64 digest;
	int ret;

	if (of->frames)
		return umn_frames_compare(file->space, of->frames, &of->since);
	ret = umn_digest(of->start, of->last, &digest);
	return ret ? ret : digest == of->digest;
}

long umn_verify(struct umn_file *file, const u64 __user *arg)
{
	struct umn_space *space = file->space;
	struct umn_region *region;
	struct frames_of of = {};
	bool doubt = false;
	u64 seq = 0;
	int ret;

	if (copy_from_user(&of.cookie, arg, sizeof(of.cookie)))
		return -EFAULT;

	do {
		ret = umn_space_wait_unpaused(space);
		if (ret)
			return ret;
		raw_spin_lock(&space->lock);
		region = umn_find(&file->watcher, of.cookie);
		if (!region || !(region->flags & UMN_NOTED)) {
			ret = -EINVAL;
		} else if (space->core.paused) {
			ret = -EBUSY;
		} else {
			doubt = !umn_take_back(&space->core, region) ||
				space->core.nr_untracked;
			describe(&of, region);
			if (region->flags & UMN_CHUNKED) {
				of.frames = umn_frames_of(region->note);
				refcount_inc(&of.frames->users);
			} else {
				of.digest = region->digest;
			}
			seq = space->core.seq;
		}
		raw_spin_unlock(&space->lock);
	} while (ret == -EBUSY);
	if (ret)
		return ret;

	/* The event is gone, so that failing is no answer: only dying is. */
	if (!doubt && !umn_space_wait_inflight(space, of.start, of.last, seq))
		ret = compare(file, &of);
	if (ret > 0 && has_frames(file, &of, true))
		ret = 0;
	if (of.frames)
		umn_frames_put(file, of.frames);
	return ret == -EINTR ? ret : max(ret, 0);
}
