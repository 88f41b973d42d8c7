/* SPDX-License-Identifier: GPL-2.0 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdio.h>

#include <linux/minmax.h>

#include "model.h"

/* A program is a string of these. */
#define OP_BYTES	6

#define MAX_EVENTS	48
#define SLOTS_PER_PAGE	4

#define MAX_NOTES	4

/* All of the chunks that programs name, as bits. */
#define CHUNKS		32

/**
 * struct noted - a noted range, and what happened to it since it was looked at
 * @core: the one that the core has
 * @used: there is one
 * @touched: chunks that were touched by what it does not ignore
 * @by_any: chunks that were touched by anything
 * @times: how often anything was touched
 */
struct noted {
	struct umn_note		core;
	bool			used;
	u32			touched;
	u32			by_any;
	unsigned int		times;
};

/**
 * struct world - the core and the model, side by side
 * @core: the one that is tested
 * @watchers: its watchers
 * @counters: what they map
 * @slots: likewise, in pages
 * @slot_pages: those pages
 * @stats: the mapped statistics of the first watcher
 * @model: what must be so
 * @notes: noted ranges
 * @events: events of each watcher that are being copied
 * @nr_events: how many; 0: none are
 */
struct world {
	struct umn_core		core;
	struct umn_watcher	watchers[M_WATCHERS];
	u64			counters[M_WATCHERS];
	u64			slots[M_WATCHERS][M_SLOTS];
	u64			*slot_pages[M_WATCHERS][M_SLOTS / SLOTS_PER_PAGE];
	struct ummunotify_stats	stats;
	struct model		model;
	struct noted		notes[MAX_NOTES];
	struct ummunotify_event	events[M_WATCHERS][MAX_EVENTS];
	unsigned int		nr_events[M_WATCHERS];
	u64			next_id;
};

/* Does not return. */
__attribute__((noreturn, format(printf, 1, 2)))
void differs(const char *format, ...);

#define must(condition, ...)			\
	do {					\
		if (!(condition))		\
			differs(__VA_ARGS__);	\
	} while (0)

/* check.c */
void check(struct world *world);

/* notes.c */
void do_note(struct world *world, const u8 op[OP_BYTES]);
void do_look(struct world *world, u8 which);
void touch(struct world *world, u64 start, u64 last, u16 kind);
void check_notes(struct world *world);

/* report.c */
void do_report(struct world *world, unsigned int w, unsigned int max);
void do_report_done(struct world *world, unsigned int w);
void do_report_failed(struct world *world, unsigned int w);

/* fuzz_core.c */
void world_init(struct world *world);
void world_free(struct world *world);
void do_op(struct world *world, const u8 op[OP_BYTES]);
void print_op(FILE *to, const u8 op[OP_BYTES]);

#endif
