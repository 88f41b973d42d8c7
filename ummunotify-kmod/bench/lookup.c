// SPDX-License-Identifier: GPL-2.0
/*
 * What an invalidation of unwatched memory costs, by the core of the module
 * and by the scan of 2009, in turns:
 *
 *	lookup FILE
 *
 * Writes rows of results in JSON: see benches/src/row.rs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core.h"
#include "scan.h"

#define PAGE		4096UL
#define SPAN		(1UL << 40)
#define TURNS		9
#define LOOKUPS		20000U

/* So many nodes are looked at in one turn of the scan, about. */
#define SCANNED		(8U << 20)

/* No divisor of the number of regions, so it visits all of them. */
#define STRIDE		786433UL

struct subject {
	unsigned long n;
	struct umn_core core;
	struct umn_watcher watcher;
	struct umn_region *regions;
	struct rb_root root;
	struct scan_region *scanned;
	u64 counter;
};

void shim_broken(const char *what)
{
	fprintf(stderr, "lookup: %s\n", what);
	abort();
}

static void *allocate(unsigned long n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		shim_broken("no memory");
	return p;
}

/* Every other page is watched; each comes in no order. */
static void prepare(struct subject *s, unsigned long n)
{
	unsigned long i;

	s->n = n;
	s->regions = allocate(n, sizeof(*s->regions));
	s->scanned = allocate(n, sizeof(*s->scanned));
	s->root = RB_ROOT;
	umn_core_init(&s->core);
	umn_watcher_init(&s->watcher, &s->counter);
	for (i = 0; i < n; i++) {
		unsigned long start = SPAN + i * STRIDE % n * 2 * PAGE;
		struct ummunotify_register_ioctl parm = {
			.start = start, .end = start + PAGE, .user_cookie = i,
		};

		umn_region_init(&s->regions[i], &s->watcher, &parm, PAGE);
		if (umn_insert(&s->core, &s->regions[i]))
			shim_broken("a region is refused");
		s->scanned[i].start = start;
		s->scanned[i].end = start + PAGE;
		scan_insert(&s->root, &s->scanned[i]);
	}
}

static unsigned long gap(const struct subject *s, unsigned long i)
{
	return SPAN + (i * STRIDE % s->n * 2 + 1) * PAGE;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static double time_core(struct subject *s)
{
	double begin = now();
	unsigned long i;

	for (i = 0; i < LOOKUPS; i++) {
		struct umn_pass pass = {
			.start = gap(s, i), .last = gap(s, i) + PAGE - 1,
			.kind = UMMUNOTIFY_KIND_UNMAP,
		};

		if (!umn_invalidate(&s->core, &pass))
			shim_broken("a pass paused");
	}
	if (s->counter)
		shim_broken("a gap is watched");
	return (now() - begin) / LOOKUPS;
}

static double time_scan(struct subject *s)
{
	/* Half of them come before a gap. */
	unsigned long i, scans = 1 + SCANNED / (s->n / 2);
	double begin = now();

	/* Gaps from everywhere. */
	for (i = 0; i < scans; i++) {
		unsigned long start = gap(s, i * (s->n / scans + 1));

		if (scan_invalidate(&s->root, start, start + PAGE))
			shim_broken("a gap is watched");
	}
	return (now() - begin) / scans;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values)
{
	qsort(values, TURNS, sizeof(*values), compare);
	return values[TURNS / 2];
}

static void row(FILE *out, const char *comma, const char *measure,
		double value, double baseline, double ratio, double bar)
{
	fprintf(out, "%s{\"measure\": \"%s\", \"value\": %f, \"baseline\": %f, \"ratio\": %g, \"bar\": %g, \"holds\": %s}",
		comma, measure, value, baseline, ratio, bar,
		ratio <= bar ? "true" : "false");
	printf("%s: %.1f, baseline %.1f, ratio %.2g, bar %g: %s\n", measure,
	       value, baseline, ratio, bar, ratio <= bar ? "holds" : "MISSED");
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		unsigned long n;
		double bar;
	} sizes[] = {
		{ "1k", 1 << 10, 0.5 }, { "64k", 1 << 16, 0.01 },
		{ "1M", 1 << 20, 0.001 },
	};
	static struct subject subjects[3];
	FILE *out = argc == 2 ? fopen(argv[1], "w") : NULL;
	unsigned int size, turn;

	if (!out) {
		fprintf(stderr, "usage: lookup FILE\n");
		return 1;
	}
	fprintf(out, "[");
	for (size = 0; size < 3; size++) {
		double core[TURNS], scan[TURNS], ratio[TURNS];
		struct subject *s = &subjects[size];
		char measure[100];

		prepare(s, sizes[size].n);
		time_core(s);
		for (turn = 0; turn < TURNS; turn++) {
			scan[turn] = time_scan(s);
			core[turn] = time_core(s);
			ratio[turn] = core[turn] / scan[turn];
		}
		snprintf(measure, sizeof(measure),
			 "finding nothing, %s watched (baseline: the scan of 2009), ns",
			 sizes[size].name);
		row(out, size ? ",\n" : "\n", measure, median(core),
		    median(scan), median(ratio), sizes[size].bar);
	}
	fprintf(out, "\n]\n");
	return fclose(out) ? 1 : 0;
}
