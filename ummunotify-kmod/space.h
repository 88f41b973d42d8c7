/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An address space that is watched: one MMU notifier, however many files.
 */
#ifndef _UMMUNOTIFY_SPACE_H
#define _UMMUNOTIFY_SPACE_H

#include <linux/mmu_notifier.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

#include "core.h"
#include "protection.h"

/**
 * struct umn_space - a watched address space
 * @notifier: the MMU notifier; holds the mm_struct, never the memory
 * @lock: a leaf; protects everything below but the wait queue, and the
 *	watchers of all files
 * @core: the regions
 * @protections: changes of protection that are in flight
 * @files: the open files
 * @nr_files: how many
 * @nr_regions: regions of all of them
 * @settled: waiters for invalidations in flight and for paused passes
 *
 * Callbacks take @lock from reclaim, so nothing is allocated under it; and
 * nothing is woken or signalled under it either.
 *
 * It is a raw lock: the OOM reaper calls the callbacks where they may not sleep,
 * and on a real-time kernel every other lock sleeps.  So it is held for a bounded
 * time: an invalidation lets go of it after UMN_BATCH regions, which are fewer
 * on a real-time kernel, and a read after UMN_READ_MAX events.
 */
struct umn_space {
	struct mmu_notifier	notifier;
	raw_spinlock_t		lock;
	struct umn_core		core;
	struct umn_protections	protections;
	struct list_head	files;
	unsigned int		nr_files;
	unsigned int		nr_regions;
	wait_queue_head_t	settled;
};

struct umn_file;

struct umn_space *umn_space_get(void);
void umn_spaces_wait_freed(void);
void umn_space_put(struct umn_space *space);
int umn_space_add(struct umn_space *space, struct umn_file *file,
		  unsigned int max_files);
void umn_space_remove(struct umn_space *space, struct umn_region *region);
void umn_space_del(struct umn_space *space, struct umn_file *file);
bool umn_space_is_current(const struct umn_space *space);
int umn_space_wait_unpaused(struct umn_space *space);
int umn_space_wait_inflight(struct umn_space *space, unsigned long start,
			    unsigned long last, u64 seq);
void umn_space_wake_readers(struct umn_space *space);

#endif /* _UMMUNOTIFY_SPACE_H */
