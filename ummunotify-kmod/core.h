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

#include <linux/compiler.h>
#include <linux/list.h>
#include <linux/types.h>

#include "touched.h"
#include "trees.h"

/* Regions that are handled in one hold of the lock. */
#ifndef UMN_BATCH
#define UMN_BATCH		(IS_ENABLED(CONFIG_PREEMPT_RT) ? 32 : 256)
#endif

/* Entries of one batch ioctl. */
#define UMN_MAX_BATCH		65536

/* Invalidations that can be told apart while they are in flight. */
#define UMN_INFLIGHT_SLOTS	64

/**
 * struct umn_watcher - what one open file watches
 * @cookies: all regions, by cookie
 * @invalid: regions with an event that was not read, oldest first
 * @reporting: regions whose events are being copied to the reader
 * @counter: the mapped generation counter
 * @slots: pages of the mapped generation slots
 * @slots_per_page: how many a page holds
 * @stats: what it did
 * @mapped_stats: where user space sees that, if it asked for it
 * @features: UMMUNOTIFY_FEATURE_* granted
 * @last_batch: the last batch that moved @counter: one batch moves it once
 * @last_pending: the counter has moved since the last LAST event
 * @wake: a region was hit that wakes; whoever wakes the readers takes it
 */
struct umn_watcher {
	struct rb_root		cookies;
	struct list_head	invalid;
	struct list_head	reporting;
	u64			*counter;
	u64			**slots;
	unsigned int		slots_per_page;
	struct ummunotify_stats	stats;
	struct ummunotify_stats	*mapped_stats;
	u32			features;
	u64			last_batch;
	bool			last_pending;
	unsigned int		wake;
};

/**
 * enum umn_region_flags - what became of a region, and what was asked for it
 * @UMN_INVALID: there is an event to be read
 * @UMN_HINT: it was hit once only, and the hint says where
 * @UMN_REPORTING: an event is being copied to the reader
 * @UMN_REPORTING_HINT: and that event had a hint
 * @UMN_ONESHOT: forget it when its event was read
 * @UMN_NOWAKE: wake nobody
 * @UMN_SLOT: it moves a generation slot
 * @UMN_NOTED: umn_region.digest or .note says which pages it had
 * @UMN_CHUNKED: it is umn_region.note
 * @UMN_MARKED: it is in a tree of marked regions
 *
 * A region without INVALID is in a tree of armed regions.  With INVALID it is
 * in a tree of marked regions as long as another hit would change its event:
 * take its hint, or add a kind.  The latter ends with a kind that cannot be
 * ignored.  Then it is in no tree: further invalidations do not find it, and
 * need not.
 */
enum umn_region_flags {
	UMN_INVALID		= 1 << 0,
	UMN_HINT		= 1 << 1,
	UMN_REPORTING		= 1 << 2,
	UMN_REPORTING_HINT	= 1 << 3,
	UMN_ONESHOT		= 1 << 4,
	UMN_NOWAKE		= 1 << 5,
	UMN_SLOT		= 1 << 6,
	UMN_NOTED		= 1 << 7,
	UMN_MARKED		= 1 << 8,
	UMN_CHUNKED		= 1 << 9,
};

/**
 * struct umn_region - a watched range
 * @span: its pages; the key in the interval trees
 * @by_cookie: node in umn_watcher.cookies
 * @event: node in umn_watcher.invalid or .reporting; else empty
 * @watcher: whose it is
 * @cookie: its name
 * @hint_start: first byte that was hit, with HINT
 * @hint_end: the byte after the last that was hit, with HINT
 * @digest: of the page frames, with NOTED
 * @note: for a large range, with CHUNKED
 * @slot: its generation slot, with SLOT
 * @delivered: events that were read
 * @head: bytes of its first page that come before it
 * @tail: bytes of its last page that come after it
 * @flags: enum umn_region_flags
 * @ignore: number of its trees: the filterable kinds that it ignores, and
 *	UMN_IGNORE_SPLITS
 * @kinds: UMMUNOTIFY_KIND_* by which it was hit
 * @reporting_kinds: those of the event that is being copied
 *
 * Events live in here, so that they need no memory and cannot overflow.
 */
struct umn_region {
	struct interval_tree_node span;
	struct rb_node		by_cookie;
	struct list_head	event;
	struct umn_watcher	*watcher;
	u64			cookie;
	unsigned long		hint_start;
	unsigned long		hint_end;
	union {
		u64		digest;
		struct umn_note	*note;
	};
	u32			slot;
	u32			delivered;
	u16			head;
	u16			tail;
	/* One word: there may be a million of these. */
	u32			flags : 10;
	u32			ignore : 6;
	u32			kinds : 8;
	u32			reporting_kinds : 8;
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
 * @armed: regions that wait for an invalidation, by what they ignore
 * @marked: invalid regions that another hit changes: those with a hint by
 *	what they ignore, the others by that and the kinds that they were hit by
 * @touched: what was touched below noted regions, armed or not
 * @paused: passes that have let go of the lock half-way; while there are any,
 *	nothing is armed and no hint is set
 * @batch: number of the present batch
 * @seq: number of the last invalidation that began
 * @inflight: invalidations in flight, dense
 * @nr_inflight: how many
 * @nr_untracked: those that found no slot
 */
struct umn_core {
	struct umn_trees	armed;
	struct umn_trees	marked;
	struct umn_touched	touched;
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
 * @kind: UMMUNOTIFY_KIND_*
 * @split: a huge page is split by a change of protection: see protection.c
 * @marked_done: the regions that had been hit before are dealt with
 * @paused: counted in umn_core.paused
 * @was_paused: was so at any time: someone may be waiting for the end of it
 * @wake: a region was hit that wakes readers
 */
struct umn_pass {
	unsigned long		start;
	unsigned long		last;
	u8			kind;
	bool			split;
	bool			marked_done;
	bool			paused;
	bool			was_paused;
	bool			wake;
};

/* Adds to a number of umn_watcher.stats, with the lock held. */
#define umn_count(watcher, name, n)					\
	do {								\
		(watcher)->stats.name += (n);				\
		if ((watcher)->mapped_stats)				\
			WRITE_ONCE((watcher)->mapped_stats->name,	\
				   (watcher)->stats.name);		\
	} while (0)

void umn_core_init(struct umn_core *core);
void umn_watcher_init(struct umn_watcher *watcher, u64 *counter);
void umn_region_init(struct umn_region *region, struct umn_watcher *watcher,
		     const struct ummunotify_register_ioctl *parm,
		     unsigned long page_size);

int umn_insert(struct umn_core *core, struct umn_region *region);
struct umn_region *umn_find(struct umn_watcher *watcher, u64 cookie);
struct umn_region *umn_first(struct umn_watcher *watcher);
void umn_remove(struct umn_core *core, struct umn_region *region);
void umn_doubt(struct umn_core *core, struct umn_region *region);
bool umn_take_back(struct umn_core *core, struct umn_region *region);
void umn_ignore_splits(struct umn_core *core, struct umn_region *region,
		       bool ignore);

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
		     const struct ummunotify_event *events, unsigned int n,
		     struct list_head *forgotten);
void umn_report_failed(struct umn_core *core, struct umn_watcher *watcher);

#endif /* _UMMUNOTIFY_CORE_H */
