/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stands in for the kernel's header of this name: what core.c needs of it, and
 * each step checks the neighbours.
 */
#ifndef SHIM_LIST_H
#define SHIM_LIST_H

#include <linux/compiler.h>
#include <linux/types.h>

struct list_head {
	struct list_head *next, *prev;
};

#define LIST_HEAD(name)	struct list_head name = { &(name), &(name) }

static inline void INIT_LIST_HEAD(struct list_head *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool list_empty(const struct list_head *head)
{
	return head->next == head;
}

static inline void shim_list_check(const struct list_head *entry)
{
	if (entry->next->prev != entry || entry->prev->next != entry)
		shim_broken("list: neighbours disagree");
}

static inline void shim_list_put(struct list_head *entry,
				 struct list_head *after)
{
	shim_list_check(after);
	entry->prev = after;
	entry->next = after->next;
	after->next->prev = entry;
	after->next = entry;
}

static inline void shim_list_take(struct list_head *entry)
{
	shim_list_check(entry);
	entry->prev->next = entry->next;
	entry->next->prev = entry->prev;
}

/* Everything in core.c that is added was initialised, or taken out. */
static inline void shim_list_must_be_out(const struct list_head *entry)
{
	if (!list_empty(entry))
		shim_broken("list: added, but it is in a list already");
}

static inline void list_add(struct list_head *entry, struct list_head *head)
{
	shim_list_must_be_out(entry);
	shim_list_put(entry, head);
}

static inline void list_add_tail(struct list_head *entry,
				 struct list_head *head)
{
	shim_list_must_be_out(entry);
	shim_list_put(entry, head->prev);
}

static inline void list_del_init(struct list_head *entry)
{
	shim_list_take(entry);
	INIT_LIST_HEAD(entry);
}

static inline void list_move(struct list_head *entry, struct list_head *head)
{
	list_del_init(entry);
	list_add(entry, head);
}

static inline void list_move_tail(struct list_head *entry,
				  struct list_head *head)
{
	list_del_init(entry);
	list_add_tail(entry, head);
}

#define list_entry(ptr, type, member)	container_of(ptr, type, member)

#define list_first_entry(head, type, member)	\
	list_entry((head)->next, type, member)

#define list_for_each_entry(pos, head, member)				\
	for (pos = list_entry((head)->next, __typeof__(*pos), member);	\
	     &pos->member != (head);					\
	     pos = list_entry(pos->member.next, __typeof__(*pos), member))

#define list_for_each_entry_safe(pos, after, head, member)		\
	for (pos = list_entry((head)->next, __typeof__(*pos), member),	\
	     after = list_entry(pos->member.next, __typeof__(*pos), member); \
	     &pos->member != (head);					\
	     pos = after,						\
	     after = list_entry(pos->member.next, __typeof__(*pos), member))

#define list_for_each_entry_safe_reverse(pos, before, head, member)	\
	for (pos = list_entry((head)->prev, __typeof__(*pos), member),	\
	     before = list_entry(pos->member.prev, __typeof__(*pos), member); \
	     &pos->member != (head);					\
	     pos = before,						\
	     before = list_entry(pos->member.prev, __typeof__(*pos), member))

#endif
