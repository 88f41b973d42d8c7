/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What a hit of UCX's cache costs, with the plug-in and without, in turn:
 *
 *	hit PLUGIN [ROUNDS]
 *
 * Nanoseconds for one get and put of a region that is held already, registered
 * for nothing: medians, and the median of what each two neighbours say.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucm/api/ucm.h>
#include <ucp/api/ucp_version.h>
#include <ucs/memory/rcache.h>
#include <unistd.h>

/* UCX up to 1.15 aligns all regions of a cache alike; since then each lookup says how. */
#define ALIGNMENT_BY_LOOKUP (UCP_API_VERSION >= UCP_VERSION(1, 16))

static ucs_status_t get(ucs_rcache_t *rcache, void *page, ucs_rcache_region_t **region)
{
#if ALIGNMENT_BY_LOOKUP
	return ucs_rcache_get(rcache, page, 4096, UCS_RCACHE_MIN_ALIGNMENT, PROT_READ, NULL,
			      region);
#else
	return ucs_rcache_get(rcache, page, 4096, PROT_READ, NULL, region);
#endif
}

static ucs_status_t mem_reg(void *context, ucs_rcache_t *rcache, void *arg,
			    ucs_rcache_region_t *region, uint16_t flags)
{
	(void)context, (void)rcache, (void)arg, (void)region, (void)flags;
	return UCS_OK;
}

static void mem_dereg(void *context, ucs_rcache_t *rcache,
		      ucs_rcache_region_t *region)
{
	(void)context, (void)rcache, (void)region;
}

static void dump_region(void *context, ucs_rcache_t *rcache,
			ucs_rcache_region_t *region, char *buf, size_t max)
{
	(void)context, (void)rcache, (void)region;
	if (max > 0)
		buf[0] = 0;
}

/* Of this process's, so that others on the machine disturb it less. */
static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* In a process that is one or the other. */
static int measure(void)
{
	static const ucs_rcache_ops_t ops = {
		.mem_reg = mem_reg, .mem_dereg = mem_dereg, .dump_region = dump_region,
	};
	const ucs_rcache_params_t params = {
		.region_struct_size = sizeof(ucs_rcache_region_t),
#if !ALIGNMENT_BY_LOOKUP
		.alignment = UCS_RCACHE_MIN_ALIGNMENT,
		.max_alignment = 4096,
#endif
		.ucm_events = UCM_EVENT_VM_UNMAPPED,
		.ucm_event_priority = 1000,
		.ops = &ops,
		.max_regions = ~0ul,
		.max_size = SIZE_MAX,
		.max_unreleased = SIZE_MAX,
	};
	enum { HITS = 300000 };
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ucs_rcache_region_t *region;
	ucs_rcache_t *rcache;
	double before = 0;

	if (ucs_rcache_create(&params, "hit", NULL, &rcache) != UCS_OK)
		errx(3, "ucs_rcache_create");
	for (int n = -HITS / 10; n < HITS; n++) {
		if (n == 0)
			before = now();
		if (get(rcache, page, &region) != UCS_OK)
			errx(3, "ucs_rcache_get");
		ucs_rcache_region_put(rcache, region);
	}
	printf("%.3f\n", (now() - before) / HITS);
	return 0;
}

static double run(const char *self, const char *plugin)
{
	char command[4096];
	double time = 0;
	FILE *shell;

	snprintf(command, sizeof(command), "LD_PRELOAD=%s exec %s", plugin, self);
	shell = popen(command, "r");
	if (!shell || fscanf(shell, "%lf", &time) != 1 || pclose(shell))
		errx(3, "%s failed", command);
	return time;
}

static int by_size(const void *one, const void *other)
{
	const double *first = one, *second = other;

	return (*first > *second) - (*first < *second);
}

int main(int argc, char **argv)
{
	const int rounds = argc > 2 ? atoi(argv[2]) : 41;
	double *stock, *ours, *ratio;

	if (argc < 2)
		return measure();
	if (rounds < 1)
		errx(2, "%s is no number of rounds: give 1 or more", argv[2]);
	stock = calloc((size_t)rounds, sizeof(*stock));
	ours = calloc((size_t)rounds, sizeof(*ours));
	ratio = calloc((size_t)rounds, sizeof(*ratio));
	for (int n = 0; n < rounds; n++) {
		stock[n] = run(argv[0], "");
		ours[n] = run(argv[0], argv[1]);
		ratio[n] = ours[n] / stock[n];
	}
	qsort(stock, (size_t)rounds, sizeof(*stock), by_size);
	qsort(ours, (size_t)rounds, sizeof(*ours), by_size);
	qsort(ratio, (size_t)rounds, sizeof(*ratio), by_size);
	printf("UCX's hit: %.1f ns, with the plug-in %.1f ns: %.3f of it "
	       "(medians of %d)\n", stock[rounds / 2], ours[rounds / 2],
	       ratio[rounds / 2], rounds);
	return 0;
}
