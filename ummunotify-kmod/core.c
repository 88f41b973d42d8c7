// SPDX-License-Identifier: GPL-2.0
/*
 * The watched ranges of one address space: see core.h.
 */
#include <linux/errno.h>
#include <linux/minmax.h>
#include <linux/string.h>

#include "core.h"

void umn_core_init(struct umn_core *core)
{
	memset(core, 0, sizeof(*core));
	umn_trees_init(&core->armed);
	umn_trees_init(&core->marked);
	umn_touched_init(&core->touched);
}

void umn_watcher_init(struct umn_watcher *watcher, u64 *counter)
{
	memset(watcher, 0, sizeof(*watcher));
	watcher->cookies = RB_ROOT;
	watcher->counter = counter;
	INIT_LIST_HEAD(&watcher->invalid);
	INIT_LIST_HEAD(&watcher->reporting);
}

/*
 * The caller has checked @parm: start <= end, and no flag that the watcher
 * was not granted or that makes no sense.
 */
void umn_region_init(struct umn_region *region, struct umn_watcher *watcher,
		     const struct ummunotify_register_ioctl *parm,
		     unsigned long page_size)
{
	unsigned long in_page = page_size - 1;
	unsigned long last = parm->end > parm->start ? parm->end - 1 :
						       parm->start;

	memset(region, 0, sizeof(*region));
	INIT_LIST_HEAD(&region->event);
	region->watcher = watcher;
	region->cookie = parm->user_cookie;

	/* An empty range watches the page of its address: see the header. */
	region->span.start = parm->start & ~in_page;
	region->span.last = last | in_page;
	region->head = parm->start & in_page;
	region->tail = region->span.last - parm->end + 1;

	region->ignore = (parm->flags & UMMUNOTIFY_REGISTER_IGNORE) >>
			 UMN_FILTER_SHIFT;
	if (parm->flags & UMMUNOTIFY_REGISTER_ONESHOT)
		region->flags |= UMN_ONESHOT;
	if (parm->flags & UMMUNOTIFY_REGISTER_NOWAKE)
		region->flags |= UMN_NOWAKE;
	if (parm->flags & UMMUNOTIFY_REGISTER_SLOT) {
		region->flags |= UMN_SLOT;
		region->slot = parm->reserved;
	}
}

static u64 region_start(const struct umn_region *region)
{
	return (u64)region->span.start + region->head;
}

/* 64 bits wide, since it may be the address after the last. */
static u64 region_end(const struct umn_region *region)
{
	return (u64)region->span.last + 1 - region->tail;
}

static struct umn_region *region_of_span(struct interval_tree_node *span)
{
	return container_of(span, struct umn_region, span);
}

static void arm(struct umn_core *core, struct umn_region *region)
{
	umn_trees_insert(&core->armed, region->ignore, &region->span);
}

/* The tree of a marked region: no kind that would not change it finds it. */
static unsigned int marked_tree(const struct umn_region *region)
{
	if (region->flags & UMN_HINT)
		return region->ignore;
	return region->ignore | region->kinds >> UMN_FILTER_SHIFT;
}

/* @region, which is in no tree, has an event: lets further hits change it. */
static void mark(struct umn_core *core, struct umn_region *region, bool hint)
{
	if (hint)
		region->flags |= UMN_HINT;
	else if (region->kinds & ~UMMUNOTIFY_KINDS_FILTERABLE)
		return;
	umn_trees_insert(&core->marked, marked_tree(region), &region->span);
	region->flags |= UMN_MARKED;
}

/* Takes @region out of the tree where its flags say it is. */
static void leave_tree(struct umn_core *core, struct umn_region *region)
{
	if (!(region->flags & UMN_INVALID))
		umn_trees_remove(&core->armed, region->ignore, &region->span);
	else if (region->flags & UMN_MARKED)
		umn_trees_remove(&core->marked, marked_tree(region),
				 &region->span);
	region->flags &= ~(UMN_MARKED | UMN_HINT);
}

/* What the watcher pinned in this region is no longer what is mapped there. */
static void move_generations(struct umn_core *core, struct umn_region *region)
{
	struct umn_watcher *watcher = region->watcher;
	u64 *slot;

	/*
	 * User space loads these without the lock.  They are stored before
	 * any page table entry changes, which the caller does later.
	 */
	if (region->flags & UMN_SLOT) {
		slot = &watcher->slots[region->slot / watcher->slots_per_page]
				      [region->slot % watcher->slots_per_page];
		WRITE_ONCE(*slot, *slot + 1);
	}
	if (!(region->flags & UMN_NOWAKE))
		WRITE_ONCE(watcher->wake, true);
	if (watcher->last_batch == core->batch)
		return;
	watcher->last_batch = core->batch;
	watcher->last_pending = true;
	WRITE_ONCE(*watcher->counter, *watcher->counter + 1);
}

/* Queues an event for @region, which the caller has taken out of its tree. */
static void queue_event(struct umn_core *core, struct umn_region *region,
			u8 kind)
{
	/* While an event of it is being copied, umn_report_done() queues it. */
	if (!(region->flags & (UMN_INVALID | UMN_REPORTING)))
		list_add_tail(&region->event, &region->watcher->invalid);
	if (!(region->flags & UMN_INVALID))
		umn_count(region->watcher, hits, 1);
	region->flags |= UMN_INVALID;
	region->kinds |= kind;
	move_generations(core, region);
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
	umn_count(watcher, regions, 1);
	arm(core, region);
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

/* Any region, or NULL if there is none. */
struct umn_region *umn_first(struct umn_watcher *watcher)
{
	struct rb_node *node = watcher->cookies.rb_node;

	return node ? rb_entry(node, struct umn_region, by_cookie) : NULL;
}

/* Forgets a region and its unread event; the caller frees it. */
void umn_remove(struct umn_core *core, struct umn_region *region)
{
	leave_tree(core, region);
	if (region->flags & UMN_CHUNKED)
		umn_touched_remove(&core->touched, region->note);
	rb_erase(&region->by_cookie, &region->watcher->cookies);
	umn_count(region->watcher, regions, -1);
	list_del_init(&region->event);
}

/* Reports @region as invalid because nobody can be sure that it is valid. */
void umn_doubt(struct umn_core *core, struct umn_region *region)
{
	core->batch++;
	umn_count(region->watcher, doubts, 1);
	leave_tree(core, region);
	queue_event(core, region, UMMUNOTIFY_KIND_OTHER);
}

/* A region under @pass, in one of @trees that are @left. */
static struct umn_region *find_hit(const struct umn_trees *trees, u64 *left,
				   const struct umn_pass *pass)
{
	struct interval_tree_node *span;

	span = umn_trees_next(trees, left, pass->start, pass->last);
	return span ? region_of_span(span) : NULL;
}

static void hit(struct umn_core *core, struct umn_region *region,
		struct umn_pass *pass)
{
	leave_tree(core, region);
	queue_event(core, region, pass->kind);
	if (!(region->flags & UMN_NOWAKE))
		pass->wake = true;
}

/*
 * Marks the regions under @pass and moves their watchers' counters, a batch
 * at a time.  Returns false if there are more: the caller lets go of the
 * lock for a moment and calls again.  Each region is visited a few times at
 * most until it is read: by the first hit it becomes marked, the second takes
 * its hint, which tells of one hit only, and any further adds a kind.
 */
bool umn_invalidate(struct umn_core *core, struct umn_pass *pass)
{
	unsigned int ignored = umn_ignored(pass->kind, pass->split);
	u64 left = umn_trees_not_ignoring(&core->marked, ignored);
	unsigned int budget = UMN_BATCH;
	struct umn_region *region;

	core->batch++;
	if (pass->paused) {
		core->paused--;
		pass->paused = false;
	}

	/*
	 * First, or this pass would meet the regions that it hits below.  What
	 * is hit goes to a tree whose regions ignore this pass.
	 */
	while (!pass->marked_done) {
		region = find_hit(&core->marked, &left, pass);
		if (!region) {
			pass->marked_done = true;
			break;
		}
		if (!budget--)
			goto pause;
		hit(core, region, pass);
		mark(core, region, false);
	}

	left = umn_trees_not_ignoring(&core->armed, ignored);
	while ((region = find_hit(&core->armed, &left, pass))) {
		if (!budget--)
			goto pause;
		hit(core, region, pass);
		/*
		 * A paused pass may be about to hit this region too, and will
		 * not find it: no hint, and who knows by what kind.
		 */
		if (core->paused) {
			region->kinds |= UMMUNOTIFY_KIND_OTHER;
			continue;
		}
		region->hint_start = max_t(u64, region_start(region),
					   pass->start);
		region->hint_end = min_t(u64, region_end(region),
					 (u64)pass->last + 1);
		mark(core, region, true);
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
	region->flags &= ~UMN_INVALID;
	region->kinds = 0;
	/* Who knows what is mapped there since the event? */
	region->ignore &= ~UMN_IGNORE_SPLITS;
	arm(core, region);

	for (i = 0; i < core->nr_inflight; i++) {
		struct umn_inflight *inv = &core->inflight[i];

		if (inv->start <= region->span.last &&
		    region->span.start <= inv->last)
			inv->rearmed = true;
	}
}

/*
 * Takes the event of @region back, if it has one, and arms it again.  Not to
 * be called while a pass is paused.  Returns false if it cannot: @region is
 * being reported for the only time, and as good as forgotten.
 */
bool umn_take_back(struct umn_core *core, struct umn_region *region)
{
	if (!(region->flags & UMN_INVALID))
		return true;
	if (region->flags & UMN_REPORTING) {
		if (region->flags & UMN_ONESHOT)
			return false;
		/*
		 * One that is being copied is past recall, and read like any
		 * other.  Its hint is that of the later hit by now.
		 */
		region->flags &= ~UMN_REPORTING_HINT;
	} else {
		list_del_init(&region->event);
	}
	rearm(core, region);
	return true;
}

/*
 * @region, if it ignores changes of protection, ignores as well that they split
 * a huge page, or no longer does.  It lasts until its next event is taken.
 */
void umn_ignore_splits(struct umn_core *core, struct umn_region *region,
		       bool ignore)
{
	bool armed = !(region->flags & UMN_INVALID);
	bool marked = region->flags & UMN_MARKED;
	bool hint = region->flags & UMN_HINT;

	if (!umn_ignores_protection(region->ignore))
		ignore = false;
	if (ignore == !!(region->ignore & UMN_IGNORE_SPLITS))
		return;
	leave_tree(core, region);
	region->ignore ^= UMN_IGNORE_SPLITS;
	if (armed)
		arm(core, region);
	else if (marked)
		mark(core, region, hint);
}

static void fill_event(struct ummunotify_event *event,
		       const struct umn_region *region)
{
	memset(event, 0, sizeof(*event));
	event->type = UMMUNOTIFY_EVENT_TYPE_INVAL;
	event->user_cookie_counter = region->cookie;
	if (region->flags & UMN_HINT) {
		event->flags = UMMUNOTIFY_EVENT_FLAG_HINT;
		event->hint_start = region->hint_start;
		event->hint_end = region->hint_end;
	} else {
		event->hint_start = region_start(region);
		event->hint_end = region_end(region);
	}
	if (region->watcher->features & UMMUNOTIFY_FEATURE_KINDS)
		event->flags |= region->kinds << UMMUNOTIFY_EVENT_KINDS_SHIFT;
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
		u8 flags = UMN_REPORTING;

		region = list_first_entry(&watcher->invalid, struct umn_region,
					  event);
		fill_event(&events[n++], region);
		if (region->flags & UMN_HINT)
			flags |= UMN_REPORTING_HINT;
		list_move_tail(&region->event, &watcher->reporting);
		region->reporting_kinds = region->kinds;
		if (region->delivered != ~0u)
			region->delivered++;
		if (!(region->flags & UMN_ONESHOT))
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

/*
 * The reader has the events.  Regions that were registered for one event move
 * to @forgotten, for the caller to free.
 */
void umn_report_done(struct umn_core *core, struct umn_watcher *watcher,
		     const struct ummunotify_event *events, unsigned int n,
		     struct list_head *forgotten)
{
	const struct ummunotify_event *last = &events[n - 1];
	struct umn_region *region, *next;

	list_for_each_entry_safe(region, next, &watcher->reporting, event) {
		region->flags &= ~(UMN_REPORTING | UMN_REPORTING_HINT);
		umn_count(watcher, delivered, 1);
		if (region->flags & UMN_ONESHOT) {
			umn_remove(core, region);
			list_add(&region->event, forgotten);
		} else if (region->flags & UMN_INVALID) {
			/* Hit again meanwhile. */
			list_move_tail(&region->event, &watcher->invalid);
		} else {
			list_del_init(&region->event);
		}
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
		/* One that was not armed may have been hit, or not. */
		bool hint = region->flags & UMN_REPORTING_HINT &&
			!(region->flags & UMN_INVALID) && !core->paused;

		leave_tree(core, region);
		region->flags &= ~(UMN_REPORTING | UMN_REPORTING_HINT);
		region->flags |= UMN_INVALID;
		region->kinds |= region->reporting_kinds;
		/* As in umn_invalidate(). */
		if (core->paused)
			region->kinds |= UMMUNOTIFY_KIND_OTHER;
		region->delivered--;
		mark(core, region, hint);
		list_move(&region->event, &watcher->invalid);
	}
}
