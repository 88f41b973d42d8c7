/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the core must do, said as plainly as possible: arrays, scans from the
 * front, and every invalidation remembered until its event was read.
 */
#ifndef MODEL_H
#define MODEL_H

#include "../core.h"

#define M_PAGE		4096UL
#define M_WATCHERS	2
#define M_REGIONS	96
#define M_PASSES	3
#define M_INFLIGHT	160
#define M_SLOTS		8

/* A CLEAR by which a change of protection splits a huge page. */
#define M_SPLIT		(UMMUNOTIFY_KIND_CLEAR | 0x100)

enum m_state {
	M_ARMED,
	M_HIT_ONCE,
	M_HIT_MORE,
};

struct m_hit {
	u64	start, last;
	u8	kind;
};

struct m_hits {
	struct m_hit	*hit;
	unsigned int	n;
};

/**
 * struct m_event - what happened to a region since it was armed
 * @state: how often it was hit, as far as its hint can tell
 * @hint_start: what was hit, with M_HIT_ONCE
 * @hint_end: the byte after that
 * @kinds: how; of no more interest once one cannot be ignored
 * @hits: all of the truth: every invalidation over it
 */
struct m_event {
	enum m_state	state;
	u64		hint_start, hint_end;
	u8		kinds;
	struct m_hits	hits;
};

/**
 * struct m_region - a watched range
 * @core: the one that the core has
 * @watcher: whose it is
 * @parm: what was asked for
 * @ignores_splits: so it was told
 * @first: its first page's first byte
 * @last: its last page's last byte
 * @now: what happened since it was armed
 * @reporting: an event of it is being copied
 * @reported: that event
 * @queued: when it got its place in the queue of events
 */
struct m_region {
	struct umn_region	*core;
	unsigned int		watcher;
	struct ummunotify_register_ioctl parm;
	bool			ignores_splits;
	u64			first, last;
	struct m_event		now;
	bool			reporting;
	struct m_event		reported;
	u64			queued;
	u32			delivered;
};

struct m_watcher {
	u64			counter;
	u64			slots[M_SLOTS];
	struct ummunotify_stats	stats;
	bool			kinds;
	bool			last_pending;
	bool			wake;
	bool			moved;
};

/* An invalidation that is not through with the regions. */
struct m_pass {
	bool		running;
	u64		start, last;
	u16		kind;
	bool		marked_done;
	bool		wake;
	bool		was_paused;
	struct umn_pass	core;
};

struct m_inflight {
	const void	*id;
	u64		start, last, seq;
	u16		kind;
	bool		tracked;
	bool		rearmed;
};

struct model {
	struct m_region		*regions[M_REGIONS];
	unsigned int		nr_regions;
	struct m_watcher	watchers[M_WATCHERS];
	/* The last one is for those that run to their end at once. */
	struct m_pass		passes[M_PASSES + 1];
	struct m_inflight	inflight[M_INFLIGHT];
	unsigned int		nr_inflight;
	u64			seq;
	u64			clock;
};

void m_init(struct model *m);
void m_free(struct model *m);

struct m_region *m_find(struct model *m, unsigned int watcher, u64 cookie);
struct m_region *m_insert(struct model *m, unsigned int watcher,
			  const struct ummunotify_register_ioctl *parm,
			  struct umn_region *core);
void m_remove(struct model *m, struct m_region *r);

unsigned int m_paused(const struct model *m, const struct m_pass *but);
bool m_touches(const struct m_region *r, const struct m_pass *p);
bool m_in_no_tree(const struct m_region *r);
bool m_changed_by(const struct m_region *r, u8 kind);
bool m_pending(const struct m_region *r);
void m_mark(struct model *m, struct m_region *r, u64 start, u64 last, u8 kind,
	    bool hint);
void m_batch_ends(struct model *m);
void m_remember(struct m_region *r, u64 start, u64 last, u8 kind);
void m_doubt(struct model *m, struct m_region *r);
bool m_take_back(struct model *m, struct m_region *r);
void m_ignore_splits(struct m_region *r, bool ignore);

void m_inflight_begin(struct model *m, const struct m_inflight *inv);
bool m_inflight_end(struct model *m, unsigned int i);
unsigned int m_tracked(const struct model *m);
bool m_overlaps(const struct model *m, u64 start, u64 last, u64 seq);

void m_event_of(const struct model *m, const struct m_region *r,
		struct ummunotify_event *event);
void m_reported(struct model *m, struct m_region *r);
void m_report_done(struct model *m, struct m_region *r);
void m_report_failed(struct model *m, struct m_region *r);

#endif
