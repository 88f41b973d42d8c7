// SPDX-License-Identifier: GPL-2.0
/*
 * The watched ranges of one address space: see core.h.
 */
#include <linux/compiler.h>
#include <linux/errno.h>
#include <linux/minmax.h>
#include <linux/string.h>

#include "core.h"

void umn_core_init(struct umn_core *core)
{
	memset(core, 0, sizeof(*core));
	core->armed = RB_ROOT_CACHED;
	core->hit_once = RB_ROOT_CACHED;
}

void umn_watcher_init(struct umn_watcher *watcher, u64 *counter)
{
	memset(watcher, 0, sizeof(*watcher));
	watcher->cookies = RB_ROOT;
	watcher->counter = counter;
	INIT_LIST_HEAD(&watcher->invalid);
	INIT_LIST_HEAD(&watcher->reporting);
}

/* The caller has checked that parm->start <= parm->end. */
void umn_region_init(struct umn_region *region, struct umn_watcher *watcher,
		     const struct ummunotify_register_ioctl *parm,
		     unsigned long page_size)
{
	unsigned long in_page = page_size - 1;

	memset(region, 0, sizeof(*region));
	region->watcher = watcher;
	region->cookie = parm->user_cookie;
	region->start = parm->start;
	region->end = parm->end;
	INIT_LIST_HEAD(&region->event);

	/* An empty range watches the page of its address: see the header. */
	region->span.start = parm->start & ~in_page;
	region->span.last = (parm->end > parm->start ? parm->end - 1 :
			     parm->start) | in_page;
}

static struct umn_region *region_of_span(struct interval_tree_node *span)
{
	return container_of(span, struct umn_region, span);
}

/* Takes @region out of the tree where its flags say it is. */
static void leave_tree(struct umn_core *core, struct umn_region *region)
{
	if (!(region->flags & UMN_INVALID))
		interval_tree_remove(&region->span, &core->armed);
	else if (region->flags & UMN_HINT)
		interval_tree_remove(&region->span, &core->hit_once);
}

/* The watched world is no longer what the watcher last saw. */
static void move_counter(struct umn_core *core, struct umn_watcher *watcher)
{
	if (watcher->last_batch == core->batch)
		return;
	watcher->last_batch = core->batch;
	watcher->last_pending = true;
	WRITE_ONCE(watcher->hit, true);
	/*
	 * User space loads this without the lock.  It is stored before any
	 * page table entry changes, which the caller does later.
	 */
	WRITE_ONCE(*watcher->counter, *watcher->counter + 1);
}

/* Queues an event for @region, which the caller has taken out of its tree. */
static void queue_event(struct umn_core *core, struct umn_region *region)
{
	struct umn_watcher *watcher = region->watcher;

	/* While an event of it is being copied, umn_report_done() queues it. */
	if (!(region->flags & (UMN_INVALID | UMN_REPORTING)))
		list_add_tail(&region->event, &watcher->invalid);
	region->flags |= UMN_INVALID;
	move_counter(core, watcher);
}

/*
 * Adds a region, armed.  -EEXIST: its cookie is in use.  -EBUSY: a pass is
 * paused.  Were regions armed meanwhile, a process that arms them as fast as
 * they are hit could keep a pass busy for ever.
 */
int umn_insert(struct umn_core *core, struct umn_region *region)
{
	struct umn_watcher *watcher = region->watcher;
	struct rb_node **link = &watcher->cookies.rb_node;
	struct rb_node *parent = NULL;

	if (core->paused)
		return -EBUSY;
	while (*link) {
		struct umn_region *other;

		parent = *link;
		other = rb_entry(parent, struct umn_region, by_cookie);
		if (region->cookie < other->cookie)
			link = &parent->rb_left;
		else if (region->cookie > other->cookie)
			link = &parent->rb_right;
		else
			return -EEXIST;
	}
	rb_link_node(&region->by_cookie, parent, link);
	rb_insert_color(&region->by_cookie, &watcher->cookies);
	watcher->nr_regions++;
	interval_tree_insert(&region->span, &core->armed);
	return 0;
}

struct umn_region *umn_find(struct umn_watcher *watcher, u64 cookie)
{
	struct rb_node *node = watcher->cookies.rb_node;

	while (node) {
		struct umn_region *region;

		region = rb_entry(node, struct umn_region, by_cookie);
		if (cookie < region->cookie)
			node = node->rb_left;
		else if (cookie > region->cookie)
			node = node->rb_right;
		else
			return region;
	}
	return NULL;
}

/* Forgets a region and its unread event; the caller frees it. */
void umn_remove(struct umn_core *core, struct umn_region *region)
{
	leave_tree(core, region);
	rb_erase(&region->by_cookie, &region->watcher->cookies);
	region->watcher->nr_regions--;
	list_del_init(&region->event);
}

/* Reports @region as invalid because nobody can be sure that it is valid. */
void umn_doubt(struct umn_core *core, struct umn_region *region)
{
	core->batch++;
	leave_tree(core, region);
	region->flags &= ~UMN_HINT;
	queue_event(core, region);
}

/*
 * Marks the regions under @pass and moves their watchers' counters, a batch
 * at a time.  Returns false if there are more: the caller lets go of the
 * lock for a moment and calls again.  Each region is visited at most twice
 * until it is read: at the first hit it moves from armed to hit_once, and at
 * the second it leaves hit_once, because a hint tells of one hit only.
 */
bool umn_invalidate(struct umn_core *core, struct umn_pass *pass)
{
	unsigned int budget = UMN_BATCH;
	struct interval_tree_node *span;
	struct umn_region *region;

	core->batch++;
	if (pass->paused) {
		core->paused--;
		pass->paused = false;
	}

	/* First, or this pass would meet the regions that it hits below. */
	while (!pass->second_hits_done) {
		span = interval_tree_iter_first(&core->hit_once, pass->start,
						pass->last);
		if (!span) {
			pass->second_hits_done = true;
			break;
		}
		if (!budget--)
			goto pause;
		region = region_of_span(span);
		leave_tree(core, region);
		region->flags &= ~UMN_HINT;
		queue_event(core, region);
		pass->hit = true;
	}

	while ((span = interval_tree_iter_first(&core->armed, pass->start,
						pass->last))) {
		if (!budget--)
			goto pause;
		region = region_of_span(span);
		leave_tree(core, region);
		queue_event(core, region);
		/*
		 * A paused pass may have hit this region too, or be about to,
		 * without our knowledge: no hint.
		 */
		if (!core->paused) {
			region->flags |= UMN_HINT;
			region->hint_start = max_t(u64, region->start,
						   pass->start);
			region->hint_end = min_t(u64, region->end,
						 (u64)pass->last + 1);
			interval_tree_insert(span, &core->hit_once);
		}
		pass->hit = true;
	}
	return true;

pause:
	core->paused++;
	pass->paused = true;
	pass->was_paused = true;
	return false;
}

void umn_inflight_begin(struct umn_core *core, const void *id,
			unsigned long start, unsigned long last)
{
	struct umn_inflight *new;

	core->seq++;
	if (core->nr_inflight == UMN_INFLIGHT_SLOTS) {
		core->nr_untracked++;
		return;
	}
	new = &core->inflight[core->nr_inflight++];
	new->id = id;
	new->start = start;
	new->last = last;
	new->seq = core->seq;
	new->rearmed = false;
}

/*
 * Returns whether the range must be invalidated once more, because a region
 * may have been armed after the start had marked it.
 */
bool umn_inflight_end(struct umn_core *core, const void *id)
{
	unsigned int i;
	bool rearmed;

	/* Nested invalidations end first: look from the youngest. */
	for (i = core->nr_inflight; i-- > 0;) {
		if (core->inflight[i].id != id)
			continue;
		rearmed = core->inflight[i].rearmed;
		core->inflight[i] = core->inflight[--core->nr_inflight];
		return rearmed;
	}
	/* It found no slot when it began, so nobody knows. */
	if (core->nr_untracked)
		core->nr_untracked--;
	return true;
}

/* Is an invalidation in flight that overlaps, and began no later than @seq? */
bool umn_inflight_overlaps(const struct umn_core *core, unsigned long start,
			   unsigned long last, u64 seq)
{
	unsigned int i;

	for (i = 0; i < core->nr_inflight; i++) {
		const struct umn_inflight *inv = &core->inflight[i];

		if (inv->seq <= seq && inv->start <= last && start <= inv->last)
			return true;
	}
	return false;
}

/* Callable without the lock; exact with it. */
bool umn_readable(const struct umn_watcher *watcher)
{
	return !list_empty(&watcher->invalid) ||
		READ_ONCE(watcher->last_pending);
}

static void rearm(struct umn_core *core, struct umn_region *region)
{
	unsigned int i;

	leave_tree(core, region);
	region->flags &= ~(UMN_INVALID | UMN_HINT);
	interval_tree_insert(&region->span, &core->armed);

	for (i = 0; i < core->nr_inflight; i++) {
		struct umn_inflight *inv = &core->inflight[i];

		if (inv->start <= region->span.last &&
		    region->span.start <= inv->last)
			inv->rearmed = true;
	}
}

/*
 * Fills @events with up to @max events, and arms the regions again: a hit
 * from here on is a new event.  Returns how many; umn_report_done() or
 * umn_report_failed() must follow, before the next umn_report().  -EBUSY: a
 * pass is paused; see umn_insert().
 */
int umn_report(struct umn_core *core, struct umn_watcher *watcher,
	       struct ummunotify_event *events, unsigned int max)
{
	struct umn_region *region;
	unsigned int n = 0;

	if (core->paused)
		return -EBUSY;
	while (n < max && !list_empty(&watcher->invalid)) {
		struct ummunotify_event *event = &events[n++];
		unsigned int flags = UMN_REPORTING;

		region = list_first_entry(&watcher->invalid, struct umn_region,
					  event);
		memset(event, 0, sizeof(*event));
		event->type = UMMUNOTIFY_EVENT_TYPE_INVAL;
		event->user_cookie_counter = region->cookie;
		if (region->flags & UMN_HINT) {
			event->flags = UMMUNOTIFY_EVENT_FLAG_HINT;
			event->hint_start = region->hint_start;
			event->hint_end = region->hint_end;
			flags |= UMN_REPORTING_HINT;
		} else {
			event->hint_start = region->start;
			event->hint_end = region->end;
		}
		list_move_tail(&region->event, &watcher->reporting);
		rearm(core, region);
		region->flags |= flags;
	}

	if (n < max && watcher->last_pending) {
		struct ummunotify_event *event = &events[n++];

		memset(event, 0, sizeof(*event));
		event->type = UMMUNOTIFY_EVENT_TYPE_LAST;
		event->user_cookie_counter = *watcher->counter;
	}
	return n;
}

/* The reader has the events. */
void umn_report_done(struct umn_core *core, struct umn_watcher *watcher,
		     const struct ummunotify_event *events, unsigned int n)
{
	const struct ummunotify_event *last = &events[n - 1];
	struct umn_region *region, *next;

	list_for_each_entry_safe(region, next, &watcher->reporting, event) {
		region->flags &= ~(UMN_REPORTING | UMN_REPORTING_HINT);
		/* Hit again meanwhile? */
		if (region->flags & UMN_INVALID)
			list_move_tail(&region->event, &watcher->invalid);
		else
			list_del_init(&region->event);
	}
	if (last->type == UMMUNOTIFY_EVENT_TYPE_LAST &&
	    last->user_cookie_counter == *watcher->counter)
		watcher->last_pending = false;
}

/* The reader has nothing: the events are as they were before umn_report(). */
void umn_report_failed(struct umn_core *core, struct umn_watcher *watcher)
{
	struct umn_region *region, *prev;

	list_for_each_entry_safe_reverse(region, prev, &watcher->reporting,
					 event) {
		bool hint = region->flags & UMN_REPORTING_HINT &&
			!(region->flags & UMN_INVALID) && !core->paused;

		leave_tree(core, region);
		region->flags = UMN_INVALID;
		if (hint) {
			region->flags |= UMN_HINT;
			interval_tree_insert(&region->span, &core->hit_once);
		}
		list_move(&region->event, &watcher->invalid);
	}
}
