// SPDX-License-Identifier: GPL-2.0
/*
 * What read() does: takes events, and hands them over or puts them back.
 */
#include <errno.h>
#include <string.h>

#include "fuzz.h"

static void check_event(struct world *world, unsigned int w,
			const struct ummunotify_event *event, u64 *queued)
{
	struct ummunotify_event expected;
	struct m_region *r;

	r = m_find(&world->model, w, event->user_cookie_counter);
	must(r && m_pending(r), "an event of cookie %llu that has none",
	     event->user_cookie_counter);
	m_event_of(&world->model, r, &expected);
	must(!memcmp(event, &expected, sizeof(expected)),
	     "event of cookie %llu: flags %#x, hint %#llx-%#llx, not %#x, %#llx-%#llx",
	     event->user_cookie_counter, event->flags, event->hint_start,
	     event->hint_end, expected.flags, expected.hint_start,
	     expected.hint_end);
	must(r->queued >= *queued, "events are read out of order");
	*queued = r->queued;
	m_reported(&world->model, r);
}

void do_report(struct world *world, unsigned int w, unsigned int max)
{
	struct model *m = &world->model;
	struct ummunotify_event *events = world->events[w];
	unsigned int i, n, pending = 0;
	u64 queued = 0;
	bool last;
	int ret;

	if (world->nr_events[w])
		return;
	for (i = 0; i < m->nr_regions; i++)
		pending += m->regions[i]->watcher == w &&
			   m_pending(m->regions[i]);
	n = min_t(unsigned int, pending, max);
	last = n < max && m->watchers[w].last_pending;

	memset(events, 0xee, max * sizeof(*events));
	ret = umn_report(&world->core, &world->watchers[w], events, max);
	if (m_paused(m, NULL)) {
		must(ret == -EBUSY, "reports while a pass is paused");
		return;
	}
	must(ret == (int)(n + last), "%d events reported, not %u", ret,
	     n + last);
	for (i = 0; i < n; i++)
		check_event(world, w, &events[i], &queued);
	if (last)
		must(events[n].type == UMMUNOTIFY_EVENT_TYPE_LAST &&
		     !events[n].flags && !events[n].hint_start &&
		     !events[n].hint_end &&
		     events[n].user_cookie_counter == m->watchers[w].counter,
		     "LAST is wrong");
	world->nr_events[w] = ret;
}

static void take_forgotten(struct world *world, unsigned int w,
			   struct list_head *forgotten)
{
	struct model *m = &world->model;
	struct umn_region *core, *next;
	unsigned int i;

	list_for_each_entry_safe(core, next, forgotten, event) {
		struct m_region *r;

		r = m_find(m, w, core->cookie);
		must(r && r->core == core && r->reporting &&
		     r->parm.flags & UMMUNOTIFY_REGISTER_ONESHOT,
		     "forgot cookie %llu", core->cookie);
		list_del_init(&core->event);
		m->watchers[w].stats.delivered++;
		m_remove(m, r);
	}
	for (i = 0; i < m->nr_regions; i++) {
		struct m_region *r = m->regions[i];

		if (r->watcher != w || !r->reporting)
			continue;
		must(!(r->parm.flags & UMMUNOTIFY_REGISTER_ONESHOT),
		     "did not forget cookie %llu", r->parm.user_cookie);
		m->watchers[w].stats.delivered++;
		m_report_done(m, r);
	}
}

void do_report_done(struct world *world, unsigned int w)
{
	unsigned int n = world->nr_events[w];
	struct m_watcher *watcher = &world->model.watchers[w];
	struct ummunotify_event *last;
	LIST_HEAD(forgotten);

	if (!n)
		return;
	last = &world->events[w][n - 1];
	umn_report_done(&world->core, &world->watchers[w], world->events[w], n,
			&forgotten);
	take_forgotten(world, w, &forgotten);
	if (last->type == UMMUNOTIFY_EVENT_TYPE_LAST &&
	    last->user_cookie_counter == watcher->counter)
		watcher->last_pending = false;
	world->nr_events[w] = 0;
}

void do_report_failed(struct world *world, unsigned int w)
{
	struct model *m = &world->model;
	unsigned int i;

	if (!world->nr_events[w])
		return;
	umn_report_failed(&world->core, &world->watchers[w]);
	for (i = 0; i < m->nr_regions; i++) {
		if (m->regions[i]->watcher == w && m->regions[i]->reporting)
			m_report_failed(m, m->regions[i]);
	}
	world->nr_events[w] = 0;
}
