/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The watched ranges of one address space, and what has happened to them.
 *
 * Nothing here sleeps, allocates, locks or wakes: the caller holds the one
 * lock of the address space around every function, so that this file can
 * also be compiled, fuzzed and sanitized outside the kernel.
 */
#ifndef _UMMUNOTIFY_CORE_H
#define _UMMUNOTIFY_CORE_H

#include <linux/interval_tree.h>
#include <linux/list.h>
#include <linux/rbtree.h>
#include <linux/types.h>
#include <linux/ummunotify.h>

/* Regions that are handled in one hold of the lock. */
#define UMN_BATCH		256

/* Invalidations that can be told apart while they are in flight. */
#define UMN_INFLIGHT_SLOTS	64

/**
 * struct umn_watcher - what one open file watches
 * @cookies: all regions, by cookie
 * @invalid: regions with an event that was not read, oldest first
 * @reporting: regions whose events are being copied to the reader
 * @counter: the mapped generation counter
 * @nr_regions: number of regions
 * @last_batch: the last batch that moved @counter: one batch moves it once
 * @last_pending: the counter has moved since the last LAST event
 * @hit: set with every move of @counter; whoever sends SIGIO takes it
 */
struct umn_watcher {
	struct rb_root		cookies;
	struct list_head	invalid;
	struct list_head	reporting;
	u64			*counter;
	unsigned int		nr_regions;
	u64			last_batch;
	bool			last_pending;
	bool			hit;
};

/**
 * enum umn_region_flags - what became of a region
 * @UMN_INVALID: there is an event to be read
 * @UMN_HINT: it was hit once only, and the hint says where
 * @UMN_REPORTING: an event is being copied to the reader
 * @UMN_REPORTING_HINT: and that event had a hint
 *
 * A region without INVALID is in the tree of armed regions; with INVALID and
 * HINT in the tree of those hit once; hit again, in none: further
 * invalidations do not find it, and need not.
 */
enum umn_region_flags {
	UMN_INVALID		= 1 << 0,
	UMN_HINT		= 1 << 1,
	UMN_REPORTING		= 1 << 2,
	UMN_REPORTING_HINT	= 1 << 3,
};

/**
 * struct umn_region - a watched range
 * @span: its pages; the key in the interval trees
 * @by_cookie: node in umn_watcher.cookies
 * @event: node in umn_watcher.invalid or .reporting; else empty
 * @watcher: whose it is
 * @cookie: its name
 * @start: first byte, as registered
 * @end: first byte after, as registered
 * @hint_start: first byte that was hit, with HINT
 * @hint_end: first byte after those that were hit, with HINT
 * @flags: enum umn_region_flags
 *
 * Events live in here, so that they need no memory and cannot overflow.
 */
struct umn_region {
	struct interval_tree_node span;
	struct rb_node		by_cookie;
	struct list_head	event;
	struct umn_watcher	*watcher;
	u64			cookie;
	u64			start;
	u64			end;
	u64			hint_start;
	u64			hint_end;
	unsigned int		flags;
};

/**
 * struct umn_inflight - an invalidation between its start and its end
 * @id: tells it from others; start and end pass the same
 * @start: first byte
 * @last: last byte
 * @seq: when it began
 * @rearmed: a region under it was armed again by a reader; it must be hit
 *	again at the end, or a pin made in between would go unnoticed
 */
struct umn_inflight {
	const void		*id;
	unsigned long		start;
	unsigned long		last;
	u64			seq;
	bool			rearmed;
};

/**
 * struct umn_core - the watched ranges of an address space
 * @armed: regions that wait for an invalidation
 * @hit_once: regions that were hit once since they were read
 * @paused: passes that have let go of the lock half-way; while there are any,
 *	nothing is armed and no hint is set
 * @batch: number of the present batch
 * @seq: number of the last invalidation that began
 * @inflight: invalidations in flight, dense
 * @nr_inflight: how many
 * @nr_untracked: those that found no slot
 */
struct umn_core {
	struct rb_root_cached	armed;
	struct rb_root_cached	hit_once;
	unsigned int		paused;
	u64			batch;
	u64			seq;
	struct umn_inflight	inflight[UMN_INFLIGHT_SLOTS];
	unsigned int		nr_inflight;
	unsigned int		nr_untracked;
};

/**
 * struct umn_pass - one invalidation on its way through the regions
 * @start: first byte
 * @last: last byte
 * @second_hits_done: the regions that had been hit before are dealt with
 * @paused: counted in umn_core.paused
 * @was_paused: was so at any time: someone may be waiting for the end of it
 * @hit: a region was hit
 */
struct umn_pass {
	unsigned long		start;
	unsigned long		last;
	bool			second_hits_done;
	bool			paused;
	bool			was_paused;
	bool			hit;
};

void umn_core_init(struct umn_core *core);
void umn_watcher_init(struct umn_watcher *watcher, u64 *counter);
void umn_region_init(struct umn_region *region, struct umn_watcher *watcher,
		     const struct ummunotify_register_ioctl *parm,
		     unsigned long page_size);

int umn_insert(struct umn_core *core, struct umn_region *region);
struct umn_region *umn_find(struct umn_watcher *watcher, u64 cookie);
void umn_remove(struct umn_core *core, struct umn_region *region);
void umn_doubt(struct umn_core *core, struct umn_region *region);

bool umn_invalidate(struct umn_core *core, struct umn_pass *pass);

void umn_inflight_begin(struct umn_core *core, const void *id,
			unsigned long start, unsigned long last);
bool umn_inflight_end(struct umn_core *core, const void *id);
bool umn_inflight_overlaps(const struct umn_core *core, unsigned long start,
			   unsigned long last, u64 seq);

bool umn_readable(const struct umn_watcher *watcher);
int umn_report(struct umn_core *core, struct umn_watcher *watcher,
	       struct ummunotify_event *events, unsigned int max);
void umn_report_done(struct umn_core *core, struct umn_watcher *watcher,
		     const struct ummunotify_event *events, unsigned int n);
void umn_report_failed(struct umn_core *core, struct umn_watcher *watcher);

#endif /* _UMMUNOTIFY_CORE_H */
