// SPDX-License-Identifier: GPL-2.0
/*
 * Compares the core with the model, all of it, after every step.
 */
#include <string.h>

#include "fuzz.h"

static struct m_region *model_of(struct world *world,
				 const struct umn_region *core)
{
	struct model *m = &world->model;
	unsigned int i;

	for (i = 0; i < m->nr_regions; i++) {
		if (m->regions[i]->core == core)
			return m->regions[i];
	}
	differs("a list or tree holds a region that was removed");
}

static unsigned int count_tree(struct world *world,
			       const struct rb_root_cached *tree,
			       unsigned int number, bool armed)
{
	struct interval_tree_node *span;
	unsigned int n = 0;

	for (span = shim_span_first(tree); span; span = shim_span_next(span)) {
		struct m_region *r;
		unsigned int ignored;

		r = model_of(world,
			     container_of(span, struct umn_region, span));
		must(!m_in_no_tree(r) && (r->now.state == M_ARMED) == armed,
		     "cookie %llu is in a tree of the wrong kind",
		     r->parm.user_cookie);
		ignored = r->parm.flags & UMMUNOTIFY_REGISTER_IGNORE;
		if (r->now.state == M_HIT_MORE)
			ignored |= r->now.kinds;
		ignored >>= UMN_FILTER_SHIFT;
		if (r->ignores_splits)
			ignored |= UMN_IGNORE_SPLITS;
		must(ignored == number,
		     "cookie %llu is in the tree of another filter",
		     r->parm.user_cookie);
		n++;
	}
	return n;
}

static unsigned int count_trees(struct world *world,
				const struct umn_trees *trees, bool armed)
{
	unsigned int i, n, all = 0;

	for (i = 0; i < UMN_FILTERS; i++) {
		n = count_tree(world, &trees->roots[i], i, armed);
		must(!n == !(trees->used >> i & 1),
		     "tree %u holds %u regions, used is %#llx", i, n,
		     trees->used);
		all += n;
	}
	return all;
}

static void check_trees(struct world *world)
{
	struct umn_core *core = &world->core;
	struct model *m = &world->model;
	unsigned int i, in_trees, expected = 0;

	in_trees = count_trees(world, &core->armed, true);
	in_trees += count_trees(world, &core->marked, false);
	for (i = 0; i < m->nr_regions; i++)
		expected += !m_in_no_tree(m->regions[i]);
	must(in_trees == expected, "%u regions are in trees instead of %u",
	     in_trees, expected);
}

static unsigned int count_cookies(struct world *world, struct rb_node *node,
				  struct rb_node *parent, unsigned int watcher,
				  u64 from, u64 to)
{
	struct umn_region *core;

	if (!node)
		return 0;
	core = rb_entry(node, struct umn_region, by_cookie);
	must(node->rb_parent == parent, "cookie tree: wrong parent");
	must(model_of(world, core)->watcher == watcher,
	     "cookie tree: region of another watcher");
	must(core->cookie >= from && core->cookie <= to,
	     "cookie tree: out of order");
	return 1 + count_cookies(world, node->rb_left, node, watcher, from,
				 core->cookie - 1) +
	       count_cookies(world, node->rb_right, node, watcher,
			     core->cookie + 1, to);
}

static unsigned int count_list(struct world *world,
			       const struct list_head *list, bool reporting)
{
	struct umn_region *core;
	unsigned int n = 0;
	u64 queued = 0;

	list_for_each_entry(core, list, event) {
		struct m_region *r = model_of(world, core);

		shim_list_check(&core->event);
		must(reporting ? r->reporting : m_pending(r),
		     "cookie %llu is in the wrong list", r->parm.user_cookie);
		must(r->queued >= queued, "events are out of order");
		queued = r->queued;
		n++;
	}
	return n;
}

static void check_stats(const struct ummunotify_stats *stats,
			const struct ummunotify_stats *expected)
{
	must(stats->regions == expected->regions, "stats: %llu regions, not %llu",
	     stats->regions, expected->regions);
	must(stats->hits == expected->hits, "stats: %llu hits, not %llu",
	     stats->hits, expected->hits);
	must(stats->delivered == expected->delivered,
	     "stats: %llu delivered, not %llu", stats->delivered,
	     expected->delivered);
	must(stats->doubts == expected->doubts, "stats: %llu doubts, not %llu",
	     stats->doubts, expected->doubts);
}

static void check_watcher(struct world *world, unsigned int i)
{
	struct umn_watcher *watcher = &world->watchers[i];
	struct m_watcher *expected = &world->model.watchers[i];
	unsigned int n, pending = 0, reporting = 0, regions = 0;

	for (n = 0; n < world->model.nr_regions; n++) {
		struct m_region *r = world->model.regions[n];

		if (r->watcher != i)
			continue;
		regions++;
		pending += m_pending(r);
		reporting += r->reporting;
		must(umn_find(watcher, r->parm.user_cookie) == r->core,
		     "cookie %llu is not found", r->parm.user_cookie);
	}
	must(count_cookies(world, watcher->cookies.rb_node, NULL, i, 0,
			   ~0ULL) == regions, "cookie tree: not all");
	must(!umn_first(watcher) == !regions, "umn_first() is wrong");
	must(count_list(world, &watcher->invalid, false) == pending,
	     "watcher %u has not %u events", i, pending);
	must(count_list(world, &watcher->reporting, true) == reporting,
	     "watcher %u does not report %u events", i, reporting);
	must(watcher->last_pending == expected->last_pending,
	     "watcher %u: LAST is %spending", i,
	     watcher->last_pending ? "" : "not ");
	must(umn_readable(watcher) == (pending || expected->last_pending),
	     "watcher %u: readable is wrong", i);
	must(watcher->wake == expected->wake,
	     "watcher %u: wake is %d", i, watcher->wake);
	must(world->counters[i] == expected->counter,
	     "watcher %u: counter is %llu, not %llu", i, world->counters[i],
	     expected->counter);
	for (n = 0; n < M_SLOTS; n++)
		must(world->slots[i][n] == expected->slots[n],
		     "watcher %u: slot %u is %llu, not %llu", i, n,
		     world->slots[i][n], expected->slots[n]);
	check_stats(&watcher->stats, &expected->stats);
}

/*
 * The promises, from every invalidation that the model remembers, and not
 * from what it thinks that the core should make of it.
 */
static void check_truth(struct world *world, const struct m_region *r)
{
	struct model *m = &world->model;
	bool going = r->reporting &&
		     r->parm.flags & UMMUNOTIFY_REGISTER_ONESHOT;
	unsigned int i, flags = r->core->flags;
	bool touched = false;

	for (i = 0; i < r->now.hits.n; i++) {
		const struct m_hit *hit = &r->now.hits.hit[i];
		u64 start = hit->start > r->parm.start ? hit->start :
							 r->parm.start;
		u64 end = hit->last < r->parm.end ? hit->last + 1 :
						    r->parm.end;

		touched = true;
		must(r->core->kinds & (hit->kind |
				       (u8)~UMMUNOTIFY_KINDS_FILTERABLE),
		     "cookie %llu: a kind is missing", r->parm.user_cookie);
		must(!(flags & UMN_HINT) || (r->core->hint_start <= start &&
					     r->core->hint_end >= end),
		     "cookie %llu: the hint does not cover a hit",
		     r->parm.user_cookie);
	}
	for (i = 0; i <= M_PASSES; i++) {
		struct m_pass *p = &m->passes[i];

		if (p->running && m_touches(r, p))
			touched = true;
	}
	must(!r->now.hits.n || flags & UMN_INVALID || going,
	     "cookie %llu was hit and has no event", r->parm.user_cookie);
	must(!(flags & UMN_INVALID) || touched || going,
	     "cookie %llu has an event and was not hit", r->parm.user_cookie);
}

static void check_region(struct world *world, const struct m_region *r)
{
	const struct umn_region *core = r->core;
	unsigned int flags = core->flags;

	check_truth(world, r);
	must(!(flags & UMN_INVALID) == (r->now.state == M_ARMED),
	     "cookie %llu: INVALID is %d", r->parm.user_cookie,
	     flags & UMN_INVALID);
	must(!(flags & UMN_HINT) == (r->now.state != M_HIT_ONCE),
	     "cookie %llu: HINT is %d", r->parm.user_cookie, flags & UMN_HINT);
	must(core->kinds == r->now.kinds, "cookie %llu: kinds %#x, not %#x",
	     r->parm.user_cookie, core->kinds, r->now.kinds);
	must(!(flags & UMN_REPORTING) == !r->reporting,
	     "cookie %llu: REPORTING is wrong", r->parm.user_cookie);
	must(list_empty(&core->event) == !(m_pending(r) || r->reporting),
	     "cookie %llu: in a list, or not", r->parm.user_cookie);
	must(core->delivered == r->delivered,
	     "cookie %llu: delivered %u, not %u", r->parm.user_cookie,
	     core->delivered, r->delivered);
	must(core->span.start == r->first && core->span.last == r->last,
	     "cookie %llu: span is wrong", r->parm.user_cookie);
}

static void check_inflight(struct world *world)
{
	struct umn_core *core = &world->core;
	struct model *m = &world->model;
	unsigned int i, k;

	must(core->seq == m->seq, "seq is wrong");
	must(core->nr_inflight == m_tracked(m), "%u are in flight, not %u",
	     core->nr_inflight, m_tracked(m));
	must(core->nr_untracked == m->nr_inflight - m_tracked(m),
	     "%u are not tracked", core->nr_untracked);
	for (i = 0; i < m->nr_inflight; i++) {
		struct m_inflight *inv = &m->inflight[i];

		if (!inv->tracked)
			continue;
		for (k = 0; k < core->nr_inflight; k++) {
			if (core->inflight[k].id == inv->id)
				break;
		}
		must(k < core->nr_inflight, "one in flight was forgotten");
		must(core->inflight[k].rearmed == inv->rearmed,
		     "%p in flight: rearmed is wrong", inv->id);
	}
}

void check(struct world *world)
{
	struct model *m = &world->model;
	unsigned int i;

	for (i = 0; i < m->nr_regions; i++)
		check_region(world, m->regions[i]);
	check_trees(world);
	check_notes(world);
	for (i = 0; i < M_WATCHERS; i++)
		check_watcher(world, i);
	check_stats(&world->stats, &m->watchers[0].stats);
	check_inflight(world);
	must(world->core.paused == m_paused(m, NULL), "%u are paused, not %u",
	     world->core.paused, m_paused(m, NULL));
}
