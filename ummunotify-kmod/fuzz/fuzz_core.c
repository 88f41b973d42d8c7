// SPDX-License-Identifier: GPL-2.0
/*
 * Runs a string of bytes as calls of the core, as its callers in the kernel
 * make them, and compares each result with the model.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum op {
	OP_INSERT, OP_REMOVE, OP_INVALIDATE, OP_PASS_BEGIN, OP_PASS_GO_ON,
	OP_START, OP_END, OP_STARTS, OP_ENDS, OP_REPORT, OP_REPORT_DONE,
	OP_REPORT_FAILED, OP_TAKE_BACK, OP_DOUBT, OP_OVERLAPS, OP_DRAIN,
	OP_TAKE_SIGNAL, OP_IGNORE_SPLITS, OP_NOTE, OP_LOOK,
};

/* How often each comes up. */
static const u8 ops[36] = {
	OP_INSERT, OP_INSERT, OP_INSERT, OP_INSERT, OP_INSERT, OP_INSERT,
	OP_IGNORE_SPLITS, OP_REMOVE, OP_REMOVE, OP_INVALIDATE, OP_INVALIDATE,
	OP_INVALIDATE, OP_PASS_BEGIN, OP_PASS_BEGIN, OP_PASS_GO_ON,
	OP_PASS_GO_ON, OP_PASS_GO_ON, OP_START, OP_START, OP_END, OP_END,
	OP_STARTS, OP_ENDS, OP_REPORT, OP_REPORT, OP_REPORT_DONE,
	OP_REPORT_FAILED, OP_TAKE_BACK, OP_DOUBT, OP_OVERLAPS, OP_DRAIN,
	OP_TAKE_SIGNAL, OP_NOTE, OP_NOTE, OP_LOOK, OP_LOOK,
};

static enum op op_of(u8 byte)
{
	return ops[byte % sizeof(ops)];
}

static const char *const op_names[] = {
	"insert", "remove", "invalidate", "pass begin", "pass go on", "start",
	"end", "starts", "ends", "report", "report_done", "report_failed",
	"take_back", "doubt", "overlaps", "drain", "take wake",
	"ignore_splits", "note", "look",
};

void print_op(FILE *to, const u8 op[OP_BYTES])
{
	fprintf(to, "%-14s %3u %3u %3u %3u %3u\n", op_names[op_of(op[0])],
		op[1], op[2], op[3], op[4], op[5]);
}

void world_init(struct world *world)
{
	unsigned int i, k;

	memset(world, 0, sizeof(*world));
	m_init(&world->model);
	umn_core_init(&world->core);
	for (i = 0; i < M_WATCHERS; i++) {
		umn_watcher_init(&world->watchers[i], &world->counters[i]);
		for (k = 0; k < M_SLOTS / SLOTS_PER_PAGE; k++)
			world->slot_pages[i][k] =
				&world->slots[i][k * SLOTS_PER_PAGE];
		world->watchers[i].slots = world->slot_pages[i];
		world->watchers[i].slots_per_page = SLOTS_PER_PAGE;
	}
	world->watchers[0].features = UMMUNOTIFY_FEATURE_KINDS;
	world->watchers[0].mapped_stats = &world->stats;
	world->model.watchers[0].kinds = true;
}

void world_free(struct world *world)
{
	m_free(&world->model);
}

static struct m_region *pick(struct world *world, u8 which)
{
	struct model *m = &world->model;

	return m->nr_regions ? m->regions[which % m->nr_regions] : NULL;
}

static void do_insert(struct world *world, const u8 op[OP_BYTES])
{
	struct model *m = &world->model;
	unsigned int w = op[1] % M_WATCHERS;
	struct ummunotify_register_ioctl parm = {
		.start		= op[2] % 40 * M_PAGE,
		.user_cookie	= (op[1] >> 1) % 64 * 0x0421084210842109ULL,
		.flags		= op[4] & UMMUNOTIFY_KINDS_FILTERABLE,
		.reserved	= op[5] % M_SLOTS,
	};
	struct umn_region *core;
	int expected, ret;

	if (m->nr_regions == M_REGIONS)
		return;
	/* Half are whole pages; some are empty; most filters are zero. */
	if (op[3] & 1)
		parm.start += (op[3] >> 1) * 31;
	parm.end = parm.start + (op[3] & 2 ? op[5] * 77 : op[5] % 5 * M_PAGE);
	if (op[4] & 0x81)
		parm.flags = op[4] & 0x80 ? UMMUNOTIFY_KIND_PROTECTION_PAGE : 0;
	if (op[4] > 0xc0)
		parm.flags |= UMMUNOTIFY_KIND_PROTECTION_VMA;
	if (!(op[3] % 5))
		parm.flags |= UMMUNOTIFY_REGISTER_ONESHOT;
	if (!(op[3] % 3))
		parm.flags |= UMMUNOTIFY_REGISTER_NOWAKE;
	if (op[5] & 8)
		parm.flags |= UMMUNOTIFY_REGISTER_SLOT;

	core = malloc(sizeof(*core));
	if (!core)
		abort();
	umn_region_init(core, &world->watchers[w], &parm, M_PAGE);
	expected = m_paused(m, NULL) ? -EBUSY :
		   m_find(m, w, parm.user_cookie) ? -EEXIST : 0;
	ret = umn_insert(&world->core, core);
	if (ret)
		free(core);
	else
		m_insert(m, w, &parm, core);
	must(ret == expected, "insert returned %d, not %d", ret, expected);
}

static void do_remove(struct world *world, u8 which)
{
	struct m_region *r = pick(world, which);

	if (!r)
		return;
	umn_remove(&world->core, r->core);
	must(list_empty(&r->core->event), "removed, but in a list");
	m_remove(&world->model, r);
}

/* Was @r hit by the batch that went by? */
static bool was_marked(const struct m_region *r)
{
	switch (r->now.state) {
	case M_ARMED:
		return r->core->flags & UMN_INVALID;
	case M_HIT_ONCE:
		return !(r->core->flags & UMN_HINT);
	default:
		return r->core->kinds != r->now.kinds;
	}
}

/* One batch.  Returns whether the pass is through. */
static bool do_batch(struct world *world, struct m_pass *p)
{
	struct model *m = &world->model;
	struct m_region *seconds[M_REGIONS], *firsts[M_REGIONS];
	unsigned int i, nr_seconds = 0, nr_firsts = 0;
	unsigned int left = UMN_BATCH, marked_seconds = 0, marked_firsts = 0;
	bool others = m_paused(m, p), done, expected;

	for (i = 0; i < m->nr_regions; i++) {
		struct m_region *r = m->regions[i];

		if (!m_touches(r, p))
			continue;
		if (r->now.state == M_ARMED)
			firsts[nr_firsts++] = r;
		else if (!p->marked_done && m_changed_by(r, p->kind))
			seconds[nr_seconds++] = r;
	}
	expected = nr_seconds + nr_firsts <= left;
	done = umn_invalidate(&world->core, &p->core);

	for (i = 0; i < nr_seconds; i++) {
		if (!was_marked(seconds[i]))
			continue;
		m_mark(m, seconds[i], p->start, p->last, p->kind, false);
		p->wake |= !(seconds[i]->parm.flags &
			     UMMUNOTIFY_REGISTER_NOWAKE);
		marked_seconds++;
	}
	left -= marked_seconds;
	for (i = 0; i < nr_firsts; i++) {
		if (!was_marked(firsts[i]))
			continue;
		m_mark(m, firsts[i], p->start, p->last, p->kind, !others);
		p->wake |= !(firsts[i]->parm.flags &
			     UMMUNOTIFY_REGISTER_NOWAKE);
		marked_firsts++;
	}
	m_batch_ends(m);

	must(marked_seconds == min_t(unsigned int, nr_seconds, UMN_BATCH),
	     "a batch hit %u of %u marked ones", marked_seconds,
	     nr_seconds);
	must(marked_firsts == min_t(unsigned int, nr_firsts, left),
	     "a batch hit %u of %u armed ones, with %u left",
	     marked_firsts, nr_firsts, left);
	must(done == expected, "a pass is %sdone", done ? "" : "not ");
	must(p->core.wake == p->wake, "a pass wakes, or not");
	if (marked_seconds == nr_seconds)
		p->marked_done = true;
	p->running = !done;
	p->was_paused |= !done;
	must(p->core.was_paused == p->was_paused, "was_paused is wrong");
	if (!done)
		return false;

	for (i = 0; i < m->nr_regions; i++) {
		if (m_touches(m->regions[i], p))
			m_remember(m->regions[i], p->start, p->last, p->kind);
	}
	return true;
}

static struct m_pass pass_over(u64 start, u64 last, u16 kind)
{
	return (struct m_pass) {
		.start = start, .last = last, .kind = kind,
		.core = {
			.start = start, .last = last, .kind = (u8)kind,
			.split = kind == M_SPLIT,
		},
	};
}

static void run_pass(struct world *world, u64 start, u64 last, u16 kind)
{
	struct m_pass *p = &world->model.passes[M_PASSES];

	*p = pass_over(start, last, kind);
	while (!do_batch(world, p))
		check(world);
	check(world);
}

/* Whole pages, as the kernel's are. */
static void range_of(const u8 op[OP_BYTES], u64 *start, u64 *last)
{
	*start = op[2] % 44 * M_PAGE;
	*last = *start + (op[3] % 9 + 1) * M_PAGE - 1;
	if (op[3] > 200) {
		*start = 0;
		*last = ~1ULL;
	}
}

static u16 kind_of(u8 byte)
{
	if (byte >= 0xe0)
		return M_SPLIT;
	return byte & 0x80 ? UMMUNOTIFY_KIND_UNMAP : 1 << (byte & 7);
}

/* Starts a pass and leaves it after its first batch, if there are more. */
static void do_pass_begin(struct world *world, const u8 op[OP_BYTES])
{
	struct m_pass *p = &world->model.passes[op[1] % M_PASSES];
	u64 start, last;

	if (p->running)
		return;
	range_of(op, &start, &last);
	if (op[5] & 1) {
		start = 0;
		last = 48 * M_PAGE - 1;
	}
	*p = pass_over(start, last, kind_of(op[4]));
	do_batch(world, p);
}

static void do_pass_go_on(struct world *world, u8 which, bool to_the_end)
{
	struct m_pass *p = &world->model.passes[which % M_PASSES];

	while (p->running && !do_batch(world, p) && to_the_end)
		check(world);
}

static void do_start(struct world *world, const u8 op[OP_BYTES], bool quiet)
{
	struct m_inflight inv = {
		.id = (void *)(uintptr_t)++world->next_id,
		.kind = kind_of(op[4]),
	};

	if (world->model.nr_inflight == M_INFLIGHT)
		return;
	range_of(op, &inv.start, &inv.last);
	umn_inflight_begin(&world->core, inv.id, inv.start, inv.last);
	m_inflight_begin(&world->model, &inv);
	if (!quiet)
		run_pass(world, inv.start, inv.last, inv.kind);
}

static void do_end(struct world *world, u8 which)
{
	struct model *m = &world->model;
	struct m_inflight inv;
	unsigned int i;
	bool again;

	if (!m->nr_inflight)
		return;
	/* Often the youngest, since they nest. */
	i = which & 1 ? m->nr_inflight - 1 : (which >> 1) % m->nr_inflight;
	inv = m->inflight[i];
	touch(world, inv.start, inv.last, inv.kind);
	again = umn_inflight_end(&world->core, inv.id);
	must(again == m_inflight_end(m, i),
	     "an end %s its range once more", again ? "hits" : "does not hit");
	if (again)
		run_pass(world, inv.start, inv.last, inv.kind);
}

static void do_drain(struct world *world, unsigned int w)
{
	unsigned int i;

	for (i = 0; i < M_PASSES; i++)
		do_pass_go_on(world, i, true);
	do_report_done(world, w);
	for (i = 0; umn_readable(&world->watchers[w]); i++) {
		must(i <= M_REGIONS, "there is no end of events");
		world->model.clock++;
		do_report(world, w, MAX_EVENTS);
		do_report_done(world, w);
		check(world);
	}
}

static void do_take_back(struct world *world, u8 which)
{
	struct m_region *r = pick(world, which);
	bool armed;

	if (!r || m_paused(&world->model, NULL))
		return;
	armed = umn_take_back(&world->core, r->core);
	must(armed == m_take_back(&world->model, r),
	     "take_back of cookie %llu says %d", r->parm.user_cookie, armed);
}

static void do_ignore_splits(struct world *world, u8 which, bool ignore)
{
	struct m_region *r = pick(world, which);
	unsigned int i;

	if (!r)
		return;
	/* The model says at its end whom a pass was to hit. */
	for (i = 0; i < M_PASSES; i++) {
		if (world->model.passes[i].running &&
		    world->model.passes[i].kind == M_SPLIT)
			return;
	}
	umn_ignore_splits(&world->core, r->core, ignore);
	m_ignore_splits(r, ignore);
}

static void do_doubt(struct world *world, u8 which)
{
	struct m_region *r = pick(world, which);

	if (!r)
		return;
	umn_doubt(&world->core, r->core);
	m_doubt(&world->model, r);
}

static void do_overlaps(struct world *world, const u8 op[OP_BYTES])
{
	struct model *m = &world->model;
	u64 start, last, seq = m->seq > op[4] % 16 ? m->seq - op[4] % 16 : 0;

	range_of(op, &start, &last);
	/* Some begin or end with the byte where another range ends or begins. */
	if (op[5] & 1)
		start = last;
	else if (op[5] & 2)
		last = start;
	must(umn_inflight_overlaps(&world->core, start, last, seq) ==
	     m_overlaps(m, start, last, seq), "overlaps() is wrong");
}

static void do_take_wake(struct world *world, unsigned int w)
{
	world->watchers[w].wake = 0;
	world->model.watchers[w].wake = false;
}

void do_op(struct world *world, const u8 op[OP_BYTES])
{
	unsigned int w = op[1] % M_WATCHERS, i;
	u64 start, last;

	world->model.clock++;
	switch (op_of(op[0])) {
	case OP_INSERT:
		do_insert(world, op);
		break;
	case OP_REMOVE:
		do_remove(world, op[2]);
		break;
	case OP_INVALIDATE:
		range_of(op, &start, &last);
		touch(world, start, last, kind_of(op[4]));
		run_pass(world, start, last, kind_of(op[4]));
		break;
	case OP_PASS_BEGIN:
		do_pass_begin(world, op);
		break;
	case OP_PASS_GO_ON:
		do_pass_go_on(world, op[1], op[2] & 1);
		break;
	case OP_START:
		do_start(world, op, false);
		break;
	case OP_END:
		do_end(world, op[1]);
		break;
	case OP_STARTS:
		/* Enough, now and then, that some find no slot. */
		for (i = 0; i < op[1] % 48; i++)
			do_start(world, op, true);
		run_pass(world, 0, 48 * M_PAGE - 1, kind_of(op[4]));
		break;
	case OP_ENDS:
		for (i = 0; i < op[1] % 64; i++)
			do_end(world, op[2] + i);
		break;
	case OP_REPORT:
		do_report(world, w, op[2] % MAX_EVENTS + 1);
		break;
	case OP_REPORT_DONE:
		do_report_done(world, w);
		break;
	case OP_REPORT_FAILED:
		do_report_failed(world, w);
		break;
	case OP_TAKE_BACK:
		do_take_back(world, op[2]);
		break;
	case OP_DOUBT:
		do_doubt(world, op[2]);
		break;
	case OP_OVERLAPS:
		do_overlaps(world, op);
		break;
	case OP_DRAIN:
		do_drain(world, w);
		break;
	case OP_TAKE_SIGNAL:
		do_take_wake(world, w);
		break;
	case OP_IGNORE_SPLITS:
		do_ignore_splits(world, op[2], op[3] & 3);
		break;
	case OP_NOTE:
		do_note(world, op);
		break;
	case OP_LOOK:
		do_look(world, op[1]);
		break;
	}
	check(world);
}
