/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stands in for the kernel's header of this name, where time is measured: a
 * treap, which is a search tree that stays balanced because every node has a
 * random priority.  It is somewhat deeper than the kernel's.
 */
#ifndef BENCH_RBTREE_H
#define BENCH_RBTREE_H

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

/* Computes anew what a node knows of those below it; may be NULL. */
typedef void (*shim_rb_update)(struct rb_node *node);

/* A node's address, mixed: random enough, and no memory. */
static inline u64 shim_rb_priority(const struct rb_node *node)
{
	u64 x = (uintptr_t)node;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
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
	else
		parent->rb_right = by;
	if (by)
		by->rb_parent = parent;
}

/* @node changes places with its parent. */
static inline void shim_rb_rotate(struct rb_node *node, struct rb_root *root,
				  shim_rb_update update)
{
	struct rb_node *parent = node->rb_parent, *child;

	shim_rb_replace(parent, node, root);
	if (parent->rb_left == node) {
		child = node->rb_right;
		parent->rb_left = child;
		node->rb_right = parent;
	} else {
		child = node->rb_left;
		parent->rb_right = child;
		node->rb_left = parent;
	}
	parent->rb_parent = node;
	if (child)
		child->rb_parent = parent;
	if (update) {
		update(parent);
		update(node);
	}
}

static inline void rb_link_node(struct rb_node *node, struct rb_node *parent,
				struct rb_node **link)
{
	node->rb_parent = parent;
	node->rb_left = NULL;
	node->rb_right = NULL;
	*link = node;
}

static inline void shim_rb_rise(struct rb_node *node, struct rb_root *root,
				shim_rb_update update)
{
	while (node->rb_parent &&
	       shim_rb_priority(node) > shim_rb_priority(node->rb_parent))
		shim_rb_rotate(node, root, update);
}

static inline void shim_rb_remove(struct rb_node *node, struct rb_root *root,
				  shim_rb_update update)
{
	struct rb_node *up;

	while (node->rb_left && node->rb_right)
		shim_rb_rotate(shim_rb_priority(node->rb_left) >
			       shim_rb_priority(node->rb_right) ?
			       node->rb_left : node->rb_right, root, update);
	shim_rb_replace(node, node->rb_left ? node->rb_left : node->rb_right,
			root);
	for (up = node->rb_parent; update && up; up = up->rb_parent)
		update(up);
}

static inline void rb_insert_color(struct rb_node *node, struct rb_root *root)
{
	shim_rb_rise(node, root, NULL);
}

static inline void rb_erase(struct rb_node *node, struct rb_root *root)
{
	shim_rb_remove(node, root, NULL);
}

static inline struct rb_node *rb_first(const struct rb_root *root)
{
	struct rb_node *node = root->rb_node;

	while (node && node->rb_left)
		node = node->rb_left;
	return node;
}

static inline struct rb_node *rb_next(const struct rb_node *node)
{
	struct rb_node *next = node->rb_right;

	if (next) {
		while (next->rb_left)
			next = next->rb_left;
		return next;
	}
	for (next = node->rb_parent; next && node == next->rb_right;
	     next = next->rb_parent)
		node = next;
	return next;
}

#endif
