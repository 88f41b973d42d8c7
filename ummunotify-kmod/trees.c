// SPDX-License-Identifier: GPL-2.0
/*
 * Interval trees by what their ranges ignore: see trees.h.
 */
#include <linux/bitops.h>
#include <linux/string.h>

#include "trees.h"

void umn_trees_init(struct umn_trees *trees)
{
	unsigned int i;

	for (i = 0; i < UMN_FILTERS; i++)
		trees->roots[i] = RB_ROOT_CACHED;
	trees->used = 0;
}

void umn_trees_insert(struct umn_trees *trees, unsigned int ignore,
		      struct interval_tree_node *span)
{
	interval_tree_insert(span, &trees->roots[ignore]);
	trees->used |= BIT_ULL(ignore);
}

void umn_trees_remove(struct umn_trees *trees, unsigned int ignore,
		      struct interval_tree_node *span)
{
	interval_tree_remove(span, &trees->roots[ignore]);
	if (RB_EMPTY_ROOT(&trees->roots[ignore].rb_root))
		trees->used &= ~BIT_ULL(ignore);
}

/*
 * The trees whose ranges do not ignore an invalidation of which umn_ignored()
 * is @ignored, as bits.
 */
u64 umn_trees_not_ignoring(const struct umn_trees *trees, unsigned int ignored)
{
	/* Bit n of number i is set if the number n has bit i set. */
	static const u64 ignoring[] = {
		0xaaaaaaaaaaaaaaaaULL, 0xccccccccccccccccULL,
		0xf0f0f0f0f0f0f0f0ULL, 0xff00ff00ff00ff00ULL,
		0xffff0000ffff0000ULL, 0xffffffff00000000ULL,
	};

	return ignored ? trees->used & ~ignoring[__ffs(ignored)] : trees->used;
}

/*
 * A range that overlaps this one, in one of the trees that are @left.  Those
 * that have none are not left any more, so that who takes what this finds out
 * of its tree, and asks again, walks through each tree once in vain at most.
 */
struct interval_tree_node *umn_trees_next(const struct umn_trees *trees,
					  u64 *left, unsigned long start,
					  unsigned long last)
{
	while (*left) {
		struct interval_tree_node *span;

		span = interval_tree_iter_first((struct rb_root_cached *)
						&trees->roots[__ffs64(*left)],
						start, last);
		if (span)
			return span;
		*left &= *left - 1;
	}
	return NULL;
}
