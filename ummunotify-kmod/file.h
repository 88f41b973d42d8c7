/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An open file of /dev/ummunotify.
 */
#ifndef _UMMUNOTIFY_FILE_H
#define _UMMUNOTIFY_FILE_H

#include <linux/fs.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/wait.h>

#include "core.h"
#include "space.h"
#include "user.h"

/**
 * struct umn_file - an open file
 * @watcher: its regions and events
 * @space: the address space that opened it
 * @user: who pays
 * @node: node in umn_space.files
 * @page: holds the counter, and the statistics
 * @nr_slots: generation slots
 * @readable: readers and pollers
 * @async: who wants SIGIO
 * @reading: held from taking events to handing them over
 * @used: too late to negotiate
 * @identifying: somebody gives, or has given, the file its identity
 * @identified: @identity is set
 * @identity: what CALL must know
 * @rcu: callbacks look under RCU for whom to wake
 */
struct umn_file {
	struct umn_watcher	watcher;
	struct umn_space	*space;
	struct umn_user		*user;
	struct list_head	node;
	struct page		*page;
	unsigned int		nr_slots;
	wait_queue_head_t	readable;
	struct fasync_struct	*async;
	struct mutex		reading;
	unsigned int		used;
	unsigned int		identifying;
	unsigned int		identified;
	u64			identity;
	struct rcu_head		rcu;
};

/* map.c */
int umn_map_init(void);
void umn_map_exit(void);
int umn_file_alloc_page(struct umn_file *file);
void umn_file_free_page(struct umn_file *file);
long umn_file_alloc_slots(struct umn_file *file, u64 ***slots_ret, u32 wanted);
void umn_file_set_slots(struct umn_file *file, u64 **slots, u32 nr_slots);
void umn_file_free_slots(struct umn_file *file, u64 **slots, u32 nr_slots);
int umn_mmap(struct file *filp, struct vm_area_struct *vma);

/* watch.c */
int umn_watch_init(void);
void umn_watch_exit(void);
unsigned int umn_max_regions(void);
void umn_free_regions(struct umn_file *file, struct list_head *regions);
void umn_unregister_all(struct umn_file *file);
long umn_register(struct umn_file *file, const void __user *arg);
long umn_unregister(struct umn_file *file, const void __user *arg);
long umn_register_batch(struct umn_file *file, void __user *arg);
long umn_unregister_batch(struct umn_file *file, void __user *arg);

/* verify.c */
long umn_note(struct umn_file *file, const u64 __user *arg);
long umn_verify(struct umn_file *file, const u64 __user *arg);

/* negotiate.c */
int umn_copy_sized(void *to, size_t known, const void __user *arg);
long umn_exchange_features(struct umn_file *file, u32 __user *arg);
long umn_negotiate(struct umn_file *file, void __user *arg);
long umn_identify(struct umn_file *file, const u64 __user *arg);
bool umn_has_identity(const struct umn_file *file, u64 identity);

#endif /* _UMMUNOTIFY_FILE_H */
