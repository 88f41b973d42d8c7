/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ranges, kept apart by the invalidations that they ignore, so that ranges
 * which ignore an invalidation cost it nothing.
 */
#ifndef _UMMUNOTIFY_TREES_H
#define _UMMUNOTIFY_TREES_H

#include <linux/interval_tree.h>
#include <linux/rbtree.h>
#include <linux/types.h>
#include <linux/ummunotify.h>

#define UMN_KINDS_PROTECTION	(UMMUNOTIFY_KIND_PROTECTION_VMA |	\
				 UMMUNOTIFY_KIND_PROTECTION_PAGE)

/*
 * What a range ignores is the number of its tree: one bit for each of the
 * filterable kinds, which are neighbours, and one for splits.
 */
#define UMN_FILTER_SHIFT	2
#define UMN_IGNORE_PROTECTION	(UMN_KINDS_PROTECTION >> UMN_FILTER_SHIFT)
#define UMN_IGNORE_SPLITS	(1 << 5)
#define UMN_FILTERS		64

/**
 * struct umn_trees - a tree for each mask of what ranges ignore
 * @roots: interval trees
 * @used: bit n is set if tree number n is not empty
 */
struct umn_trees {
	struct rb_root_cached	roots[UMN_FILTERS];
	u64			used;
};

void umn_trees_init(struct umn_trees *trees);
void umn_trees_insert(struct umn_trees *trees, unsigned int ignore,
		      struct interval_tree_node *span);
void umn_trees_remove(struct umn_trees *trees, unsigned int ignore,
		      struct interval_tree_node *span);
u64 umn_trees_not_ignoring(const struct umn_trees *trees, unsigned int ignored);
struct interval_tree_node *umn_trees_next(const struct umn_trees *trees,
					  u64 *left, unsigned long start,
					  unsigned long last);

/* The bit that ranges have set which ignore this invalidation; 0: none may. */
static inline unsigned int umn_ignored(u8 kind, bool split)
{
	if (split)
		return UMN_IGNORE_SPLITS;
	return (kind & UMMUNOTIFY_KINDS_FILTERABLE) >> UMN_FILTER_SHIFT;
}

static inline bool umn_ignores_protection(unsigned int ignore)
{
	return !(~ignore & UMN_IGNORE_PROTECTION);
}

#endif /* _UMMUNOTIFY_TREES_H */
