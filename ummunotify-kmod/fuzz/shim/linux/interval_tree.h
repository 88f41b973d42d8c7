/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stands in for the kernel's header of this name: no tree at all, but a list
 * in order of the first address, in which everything is looked for from the
 * front.  The list hangs on rb_right; rb_parent says in whose it is.
 */
#ifndef SHIM_INTERVAL_TREE_H
#define SHIM_INTERVAL_TREE_H

#include <linux/rbtree.h>

struct interval_tree_node {
	struct rb_node	rb;
	unsigned long	start;
	unsigned long	last;
};

static inline struct interval_tree_node *shim_span(struct rb_node *node)
{
	return node ? rb_entry(node, struct interval_tree_node, rb) : NULL;
}

static inline struct interval_tree_node *
shim_span_first(const struct rb_root_cached *root)
{
	return shim_span(root->rb_root.rb_node);
}

static inline struct interval_tree_node *
shim_span_next(const struct interval_tree_node *span)
{
	return shim_span(span->rb.rb_right);
}

static inline void interval_tree_insert(struct interval_tree_node *span,
					struct rb_root_cached *root)
{
	struct rb_node **link = &root->rb_root.rb_node;

	if (span->rb.rb_parent)
		shim_broken("interval tree: inserted twice");
	while (*link && shim_span(*link)->start <= span->start)
		link = &(*link)->rb_right;
	span->rb.rb_right = *link;
	span->rb.rb_parent = (struct rb_node *)root;
	*link = &span->rb;
}

static inline void interval_tree_remove(struct interval_tree_node *span,
					struct rb_root_cached *root)
{
	struct rb_node **link = &root->rb_root.rb_node;

	while (*link && *link != &span->rb)
		link = &(*link)->rb_right;
	if (!*link)
		shim_broken("interval tree: removed from one it is not in");
	*link = span->rb.rb_right;
	span->rb.rb_right = NULL;
	span->rb.rb_parent = NULL;
}

static inline struct interval_tree_node *
interval_tree_iter_first(const struct rb_root_cached *root,
			 unsigned long start, unsigned long last)
{
	struct interval_tree_node *span;

	for (span = shim_span_first(root); span; span = shim_span_next(span)) {
		if (span->start <= last && start <= span->last)
			return span;
	}
	return NULL;
}

#endif
