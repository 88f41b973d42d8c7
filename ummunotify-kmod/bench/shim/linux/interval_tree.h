/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stands in for the kernel's header of this name, where time is measured: the
 * same tree, whose nodes know the last address of all below them.
 */
#ifndef BENCH_INTERVAL_TREE_H
#define BENCH_INTERVAL_TREE_H

#include <linux/rbtree.h>

struct interval_tree_node {
	struct rb_node	rb;
	unsigned long	start;
	unsigned long	last;
	unsigned long	__subtree_last;
};

static inline struct interval_tree_node *shim_span(struct rb_node *node)
{
	return rb_entry(node, struct interval_tree_node, rb);
}

static inline void shim_span_update(struct rb_node *node)
{
	struct interval_tree_node *span = shim_span(node);
	unsigned long last = span->last;

	if (node->rb_left && shim_span(node->rb_left)->__subtree_last > last)
		last = shim_span(node->rb_left)->__subtree_last;
	if (node->rb_right && shim_span(node->rb_right)->__subtree_last > last)
		last = shim_span(node->rb_right)->__subtree_last;
	span->__subtree_last = last;
}

static inline void interval_tree_insert(struct interval_tree_node *span,
					struct rb_root_cached *root)
{
	struct rb_node **link = &root->rb_root.rb_node, *parent = NULL;

	while (*link) {
		struct interval_tree_node *above = shim_span(*link);

		parent = *link;
		if (above->__subtree_last < span->last)
			above->__subtree_last = span->last;
		link = span->start < above->start ? &parent->rb_left :
						    &parent->rb_right;
	}
	span->__subtree_last = span->last;
	rb_link_node(&span->rb, parent, link);
	shim_rb_rise(&span->rb, &root->rb_root, shim_span_update);
}

static inline void interval_tree_remove(struct interval_tree_node *span,
					struct rb_root_cached *root)
{
	shim_rb_remove(&span->rb, &root->rb_root, shim_span_update);
}

static inline struct interval_tree_node *
interval_tree_iter_first(const struct rb_root_cached *root,
			 unsigned long start, unsigned long last)
{
	struct rb_node *node = root->rb_root.rb_node;

	if (!node || shim_span(node)->__subtree_last < start)
		return NULL;
	for (;;) {
		struct interval_tree_node *span = shim_span(node);

		if (node->rb_left &&
		    shim_span(node->rb_left)->__subtree_last >= start) {
			node = node->rb_left;
			continue;
		}
		if (span->start > last)
			return NULL;
		if (span->last >= start)
			return span;
		node = node->rb_right;
		if (!node || shim_span(node)->__subtree_last < start)
			return NULL;
	}
}

#endif
