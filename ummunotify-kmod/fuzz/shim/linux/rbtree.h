/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stands in for the kernel's header of this name: a search tree that is never
 * balanced, which is enough for a few hundred nodes with random keys.
 */
#ifndef SHIM_RBTREE_H
#define SHIM_RBTREE_H

#include <linux/compiler.h>
#include <linux/types.h>

struct rb_node {
	struct rb_node *rb_parent, *rb_left, *rb_right;
};

struct rb_root {
	struct rb_node *rb_node;
};

struct rb_root_cached {
	struct rb_root rb_root;
};

#define RB_ROOT			((struct rb_root) { NULL })
#define RB_ROOT_CACHED		((struct rb_root_cached) { { NULL } })
#define RB_EMPTY_ROOT(root)	(!(root)->rb_node)

#define rb_entry(ptr, type, member)	container_of(ptr, type, member)

static inline void rb_link_node(struct rb_node *node, struct rb_node *parent,
				struct rb_node **link)
{
	if (*link)
		shim_broken("rbtree: a node is linked where another is");
	node->rb_parent = parent;
	node->rb_left = NULL;
	node->rb_right = NULL;
	*link = node;
}

static inline void rb_insert_color(struct rb_node *node, struct rb_root *root)
{
	(void)node;
	(void)root;
}

/* Puts @by, which may be NULL, where @node is. */
static inline void shim_rb_replace(struct rb_node *node, struct rb_node *by,
				   struct rb_root *root)
{
	struct rb_node *parent = node->rb_parent;

	if (!parent)
		root->rb_node = by;
	else if (parent->rb_left == node)
		parent->rb_left = by;
	else if (parent->rb_right == node)
		parent->rb_right = by;
	else
		shim_broken("rbtree: not a child of its parent");
	if (by)
		by->rb_parent = parent;
}

static inline void rb_erase(struct rb_node *node, struct rb_root *root)
{
	struct rb_node *next;

	if (!node->rb_parent && root->rb_node != node)
		shim_broken("rbtree: erased from a tree that it is not in");

	if (!node->rb_left) {
		shim_rb_replace(node, node->rb_right, root);
	} else if (!node->rb_right) {
		shim_rb_replace(node, node->rb_left, root);
	} else {
		/* The next larger one has no left child. */
		for (next = node->rb_right; next->rb_left;)
			next = next->rb_left;
		if (next != node->rb_right) {
			shim_rb_replace(next, next->rb_right, root);
			next->rb_right = node->rb_right;
			next->rb_right->rb_parent = next;
		}
		next->rb_left = node->rb_left;
		next->rb_left->rb_parent = next;
		shim_rb_replace(node, next, root);
	}
	node->rb_parent = node;
	node->rb_left = node;
	node->rb_right = node;
}

#endif
