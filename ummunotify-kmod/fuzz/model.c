// SPDX-License-Identifier: GPL-2.0
#include <stdlib.h>
#include <string.h>

#include "model.h"

static bool wants(const struct m_region *r, u32 flag)
{
	return r->parm.flags & flag;
}

static void forget_hits(struct m_hits *hits)
{
	free(hits->hit);
	hits->hit = NULL;
	hits->n = 0;
}

static void add_hit(struct m_hits *hits, struct m_hit hit)
{
	hits->hit = realloc(hits->hit, (hits->n + 1) * sizeof(*hits->hit));
	if (!hits->hit)
		abort();
	hits->hit[hits->n++] = hit;
}

static void clear_event(struct m_event *event)
{
	forget_hits(&event->hits);
	memset(event, 0, sizeof(*event));
	event->state = M_ARMED;
}

void m_init(struct model *m)
{
	memset(m, 0, sizeof(*m));
}

void m_free(struct model *m)
{
	while (m->nr_regions)
		m_remove(m, m->regions[0]);
}

struct m_region *m_find(struct model *m, unsigned int watcher, u64 cookie)
{
	unsigned int i;

	for (i = 0; i < m->nr_regions; i++) {
		if (m->regions[i]->watcher == watcher &&
		    m->regions[i]->parm.user_cookie == cookie)
			return m->regions[i];
	}
	return NULL;
}

struct m_region *m_insert(struct model *m, unsigned int watcher,
			  const struct ummunotify_register_ioctl *parm,
			  struct umn_region *core)
{
	struct m_region *r = calloc(1, sizeof(*r));
	u64 last_byte = parm->end > parm->start ? parm->end - 1 : parm->start;

	if (!r || m->nr_regions == M_REGIONS)
		abort();
	r->core = core;
	r->watcher = watcher;
	r->parm = *parm;
	r->first = parm->start / M_PAGE * M_PAGE;
	r->last = last_byte / M_PAGE * M_PAGE + (M_PAGE - 1);
	m->regions[m->nr_regions++] = r;
	m->watchers[watcher].stats.regions++;
	return r;
}

/* Frees the core's region too, which must be in no list or tree any more. */
void m_remove(struct model *m, struct m_region *r)
{
	unsigned int i;

	for (i = 0; m->regions[i] != r;)
		i++;
	m->regions[i] = m->regions[--m->nr_regions];
	m->watchers[r->watcher].stats.regions--;
	forget_hits(&r->now.hits);
	forget_hits(&r->reported.hits);
	free(r->core);
	free(r);
}

/* Passes that have let go of the lock half-way, without counting @but. */
unsigned int m_paused(const struct model *m, const struct m_pass *but)
{
	unsigned int i, n = 0;

	for (i = 0; i <= M_PASSES; i++)
		n += m->passes[i].running && &m->passes[i] != but;
	return n;
}

bool m_touches(const struct m_region *r, const struct m_pass *p)
{
	if (p->kind & UMMUNOTIFY_KINDS_FILTERABLE & r->parm.flags)
		return false;
	if (p->kind == M_SPLIT && r->ignores_splits)
		return false;
	return p->start <= r->last && r->first <= p->last;
}

/* Further invalidations do not find it, and need not. */
bool m_in_no_tree(const struct m_region *r)
{
	return r->now.state == M_HIT_MORE &&
	       r->now.kinds & ~UMMUNOTIFY_KINDS_FILTERABLE;
}

/* It has an event: does a hit of @kind change that? */
bool m_changed_by(const struct m_region *r, u8 kind)
{
	if (r->now.state == M_HIT_ONCE)
		return true;
	return !m_in_no_tree(r) && !(r->now.kinds & kind);
}

/* Has it an event that read() could take? */
bool m_pending(const struct m_region *r)
{
	return r->now.state != M_ARMED && !r->reporting;
}

void m_mark(struct model *m, struct m_region *r, u64 start, u64 last, u8 kind,
	    bool hint)
{
	struct m_watcher *w = &m->watchers[r->watcher];

	if (r->now.state != M_ARMED) {
		r->now.state = M_HIT_MORE;
	} else {
		r->now.state = hint ? M_HIT_ONCE : M_HIT_MORE;
		r->now.hint_start = start > r->parm.start ? start :
							    r->parm.start;
		r->now.hint_end = last < r->parm.end ? last + 1 : r->parm.end;
		if (!r->reporting)
			r->queued = m->clock;
		/* By what else will not be known. */
		if (!hint)
			r->now.kinds |= UMMUNOTIFY_KIND_OTHER;
		w->stats.hits++;
	}
	r->now.kinds |= kind;
	if (wants(r, UMMUNOTIFY_REGISTER_SLOT))
		w->slots[r->parm.reserved]++;
	if (!wants(r, UMMUNOTIFY_REGISTER_NOWAKE))
		w->wake = true;
	w->moved = true;
}

/* However many regions of a watcher were marked, its counter moves once. */
void m_batch_ends(struct model *m)
{
	unsigned int i;

	for (i = 0; i < M_WATCHERS; i++) {
		if (!m->watchers[i].moved)
			continue;
		m->watchers[i].moved = false;
		m->watchers[i].counter++;
		m->watchers[i].last_pending = true;
	}
}

void m_remember(struct m_region *r, u64 start, u64 last, u8 kind)
{
	add_hit(&r->now.hits, (struct m_hit) { start, last, kind });
}

void m_doubt(struct model *m, struct m_region *r)
{
	m->watchers[r->watcher].stats.doubts++;
	m_mark(m, r, r->first, r->last, UMMUNOTIFY_KIND_OTHER, false);
	m_remember(r, r->first, r->last, UMMUNOTIFY_KIND_OTHER);
	m_batch_ends(m);
}

static void arm(struct model *m, struct m_region *r)
{
	unsigned int i;

	clear_event(&r->now);
	r->ignores_splits = false;
	for (i = 0; i < m->nr_inflight; i++) {
		struct m_inflight *inv = &m->inflight[i];

		if (inv->start <= r->last && r->first <= inv->last)
			inv->rearmed = true;
	}
}

bool m_take_back(struct model *m, struct m_region *r)
{
	if (r->now.state == M_ARMED)
		return true;
	if (r->reporting && wants(r, UMMUNOTIFY_REGISTER_ONESHOT))
		return false;
	arm(m, r);
	/* It was hit since, so if the event comes back it has no hint. */
	if (r->reporting)
		r->reported.state = M_HIT_MORE;
	return true;
}

/* Only those can that ignore fork and mprotect. */
void m_ignore_splits(struct m_region *r, bool ignore)
{
	r->ignores_splits = ignore &&
		wants(r, UMMUNOTIFY_KIND_PROTECTION_VMA) &&
		wants(r, UMMUNOTIFY_KIND_PROTECTION_PAGE);
}

unsigned int m_tracked(const struct model *m)
{
	unsigned int i, n = 0;

	for (i = 0; i < m->nr_inflight; i++)
		n += m->inflight[i].tracked;
	return n;
}

void m_inflight_begin(struct model *m, const struct m_inflight *inv)
{
	struct m_inflight *new = &m->inflight[m->nr_inflight];
	bool tracked = m_tracked(m) < UMN_INFLIGHT_SLOTS;

	if (m->nr_inflight == M_INFLIGHT)
		abort();
	m->nr_inflight++;
	*new = *inv;
	new->seq = ++m->seq;
	new->tracked = tracked;
	new->rearmed = !tracked;
}

/* Must it hit its range once more? */
bool m_inflight_end(struct model *m, unsigned int i)
{
	bool again = m->inflight[i].rearmed;

	m->inflight[i] = m->inflight[--m->nr_inflight];
	return again;
}

bool m_overlaps(const struct model *m, u64 start, u64 last, u64 seq)
{
	unsigned int i;

	for (i = 0; i < m->nr_inflight; i++) {
		const struct m_inflight *inv = &m->inflight[i];

		if (inv->tracked && inv->seq <= seq && inv->start <= last &&
		    start <= inv->last)
			return true;
	}
	return false;
}

/* What read() must say of @r. */
void m_event_of(const struct model *m, const struct m_region *r,
		struct ummunotify_event *event)
{
	memset(event, 0, sizeof(*event));
	event->type = UMMUNOTIFY_EVENT_TYPE_INVAL;
	event->user_cookie_counter = r->parm.user_cookie;
	event->hint_start = r->parm.start;
	event->hint_end = r->parm.end;
	if (r->now.state == M_HIT_ONCE) {
		event->flags = UMMUNOTIFY_EVENT_FLAG_HINT;
		event->hint_start = r->now.hint_start;
		event->hint_end = r->now.hint_end;
	}
	if (m->watchers[r->watcher].kinds)
		event->flags |= r->now.kinds << UMMUNOTIFY_EVENT_KINDS_SHIFT;
}

void m_reported(struct model *m, struct m_region *r)
{
	r->reported = r->now;
	r->now.hits = (struct m_hits) { NULL, 0 };
	r->reporting = true;
	r->delivered++;
	/* Whatever happens to one that is not armed, it stays invalid. */
	if (!wants(r, UMMUNOTIFY_REGISTER_ONESHOT))
		arm(m, r);
}

/* For one that is not forgotten. */
void m_report_done(struct model *m, struct m_region *r)
{
	clear_event(&r->reported);
	r->reporting = false;
	if (r->now.state != M_ARMED)
		r->queued = m->clock;
}

/* Its place in the queue is the old one. */
void m_report_failed(struct model *m, struct m_region *r)
{
	struct m_event *now = &r->now, *old = &r->reported;
	unsigned int i;

	if (now->state == M_ARMED && old->state == M_HIT_ONCE &&
	    !m_paused(m, NULL)) {
		now->state = M_HIT_ONCE;
		now->hint_start = old->hint_start;
		now->hint_end = old->hint_end;
	} else {
		now->state = M_HIT_MORE;
	}
	now->kinds |= old->kinds;
	if (m_paused(m, NULL))
		now->kinds |= UMMUNOTIFY_KIND_OTHER;
	for (i = 0; i < old->hits.n; i++)
		add_hit(&now->hits, old->hits.hit[i]);
	clear_event(old);
	r->reporting = false;
	r->delivered--;
}
