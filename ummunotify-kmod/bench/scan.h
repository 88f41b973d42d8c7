/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How the driver of 2009 found what an invalidation hits: its regions were
 * sorted by their first address, and it compared them one by one from the
 * front.
 */
#ifndef SCAN_H
#define SCAN_H

#include <linux/rbtree.h>

struct scan_region {
	unsigned long	start;
	unsigned long	end;
	struct rb_node	node;
};

static inline void scan_insert(struct rb_root *root, struct scan_region *region)
{
	struct rb_node **link = &root->rb_node, *parent = NULL;

	while (*link) {
		parent = *link;
		link = region->start <= rb_entry(parent, struct scan_region,
						 node)->start ?
		       &parent->rb_left : &parent->rb_right;
	}
	rb_link_node(&region->node, parent, link);
	rb_insert_color(&region->node, root);
}

/* Returns how many are hit. */
static inline unsigned int scan_invalidate(struct rb_root *root,
					   unsigned long start,
					   unsigned long end)
{
	unsigned int hits = 0;
	struct rb_node *n;

	for (n = rb_first(root); n; n = rb_next(n)) {
		struct scan_region *region;

		region = rb_entry(n, struct scan_region, node);
		if (region->start >= end)
			break;
		if (!(region->end <= start || end <= region->start))
			hits++;
	}
	return hits;
}

#endif
