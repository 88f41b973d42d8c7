// SPDX-License-Identifier: GPL-2.0
/*
 * The page frames of a range, as keyed hashes of 64 bits: one of a small range,
 * one of each chunk of a large one.
 */
#include <linux/mm.h>
#include <linux/once.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/siphash.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "frames.h"

/* Pages that are looked at in one go. */
#define UMN_WALK	64

/* Pages of a range that are faulted in, if they are not there. */
#define UMN_FAULTS	64

/*
 * A range of no more chunks has one digest, which needs no memory.  From here
 * on struct umn_frames is no larger than 16 bytes for each chunk.
 */
#define UMN_FEW_CHUNKS	8

static const siphash_key_t *digest_key(void)
{
	static siphash_key_t key __read_mostly;

	get_random_once(&key, sizeof(key));
	return &key;
}

/*
 * The digest of the page frames of a range of the caller's.  What is pinned is
 * there, but for a moment (migration) or with its page table entry gone (a
 * file's): so some pages are faulted in, which may differ from those that were
 * noted.  More that are not there than @faults are -EFAULT and stay away: a
 * range may be larger than the machine's memory.
 */
static int digest_pages(unsigned long start, unsigned long last,
			unsigned int *faults, u64 *digest)
{
	const siphash_key_t *key = digest_key();
	struct page *pages[UMN_WALK];
	unsigned long left = (last - start) / PAGE_SIZE + 1;
	int i, n;

	*digest = 0;
	while (left) {
		n = get_user_pages_fast(start, min_t(unsigned long, left,
						     UMN_WALK), FOLL_NOFAULT,
					pages);
		if (n <= 0 && *faults) {
			--*faults;
			n = get_user_pages_fast(start, 1, 0, pages);
		}
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

int umn_digest(unsigned long start, unsigned long last, u64 *digest)
{
	unsigned int faults = UMN_FAULTS;

	return digest_pages(start, last, &faults, digest);
}

/* The same for the part of a range that is in @chunk. */
static int digest_chunk(const struct interval_tree_node *span,
			unsigned long chunk, unsigned int *faults, u64 *digest)
{
	unsigned long start = chunk << UMN_CHUNK_SHIFT;
	unsigned long last = start + (1UL << UMN_CHUNK_SHIFT) - 1;

	return digest_pages(max(start, span->start), min(last, span->last),
			    faults, digest);
}

static unsigned long nr_chunks(unsigned long start, unsigned long last)
{
	return umn_chunk_of(last) - umn_chunk_of(start) + 1;
}

/* Is the range so large that each of its chunks has a digest? */
bool umn_frames_are_many(unsigned long start, unsigned long last)
{
	return nr_chunks(start, last) > UMN_FEW_CHUNKS;
}

static struct umn_frames *alloc_frames(struct umn_file *file,
				       unsigned long start, unsigned long last)
{
	struct umn_frames *frames;
	size_t size, charge;

	/* Not all of it can be there, so there is no need to try. */
	if ((last - start) / PAGE_SIZE >= READ_ONCE(current->mm->total_vm))
		return ERR_PTR(-EFAULT);

	size = struct_size(frames, digests, nr_chunks(start, last));
	charge = DIV_ROUND_UP(size, sizeof(struct umn_region));
	if (charge > UINT_MAX || !umn_user_charge(file->user, charge))
		return ERR_PTR(-ENOSPC);
	/* kvmalloc() would round a large one up to a power of two. */
	frames = size <= PAGE_SIZE ?
		 kmalloc(size, GFP_KERNEL_ACCOUNT | __GFP_NOWARN) :
		 __vmalloc(size, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!frames) {
		umn_user_uncharge(file->user, charge);
		return ERR_PTR(-ENOMEM);
	}
	refcount_set(&frames->users, 1);
	frames->charge = charge;
	return frames;
}

/*
 * Notes the frames of a large range of the caller's.  What is touched from here
 * on is known until the caller has umn_touched_remove() called.
 */
struct umn_frames *umn_frames_note(struct umn_file *file, unsigned long start,
				   unsigned long last, u8 ignore)
{
	struct umn_space *space = file->space;
	unsigned int faults = UMN_FAULTS;
	struct umn_frames *frames;
	unsigned long i;
	int ret = 0;

	frames = alloc_frames(file, start, last);
	if (IS_ERR(frames))
		return frames;

	raw_spin_lock(&space->lock);
	umn_touched_add(&space->core.touched, &frames->note, start, last,
			ignore);
	raw_spin_unlock(&space->lock);

	for (i = 0; i < nr_chunks(start, last) && !ret; i++)
		ret = digest_chunk(&frames->note.span, umn_chunk_of(start) + i,
				   &faults, &frames->digests[i]);
	if (!ret)
		return frames;
	umn_frames_drop(file, frames);
	return ERR_PTR(ret);
}

/*
 * Compares what was touched with what was noted: 1 if the range has its frames,
 * and had been touched for the last time at *@since, 0 if not.
 */
int umn_frames_compare(struct umn_space *space, struct umn_frames *frames,
		       u64 *since)
{
	const struct interval_tree_node *span = &frames->note.span;
	unsigned long first = umn_chunk_of(span->start), chunk = first;
	unsigned int faults = UMN_FAULTS;
	bool more;
	u64 digest;
	int ret;

	raw_spin_lock(&space->lock);
	*since = umn_touched_look(&space->core.touched);
	more = umn_touched_next(&space->core.touched, &frames->note, &chunk);
	raw_spin_unlock(&space->lock);

	while (more) {
		ret = digest_chunk(span, chunk, &faults, &digest);
		if (ret == -EINTR)
			return ret;
		if (ret || digest != frames->digests[chunk - first])
			return 0;

		/* A place that is forgotten meanwhile makes all others count. */
		chunk++;
		raw_spin_lock(&space->lock);
		more = umn_touched_next(&space->core.touched, &frames->note,
					&chunk);
		raw_spin_unlock(&space->lock);
	}
	return 1;
}

/* Nobody wants to know what is touched any more. */
void umn_frames_drop(struct umn_file *file, struct umn_frames *frames)
{
	raw_spin_lock(&file->space->lock);
	umn_touched_remove(&file->space->core.touched, &frames->note);
	raw_spin_unlock(&file->space->lock);
	umn_frames_put(file, frames);
}

void umn_frames_put(struct umn_file *file, struct umn_frames *frames)
{
	if (!refcount_dec_and_test(&frames->users))
		return;
	umn_user_uncharge(file->user, frames->charge);
	kvfree(frames);
}
