// SPDX-License-Identifier: GPL-2.0
/*
 * What one user may have of us, over all processes.  Memory is charged to the
 * memory cgroup besides; this is for machines that have none.
 */
#include <linux/atomic.h>
#include <linux/cred.h>
#include <linux/hashtable.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uidgid.h>

#include "user.h"

static unsigned int max_user_regions = 16 << 20;
module_param(max_user_regions, uint, 0644);
MODULE_PARM_DESC(max_user_regions, "Ranges that one user may watch");

static unsigned int max_user_files = 4096;
module_param(max_user_files, uint, 0644);
MODULE_PARM_DESC(max_user_files, "Files that one user may have open");

static unsigned int max_user_slots = 16 << 20;
module_param(max_user_slots, uint, 0644);
MODULE_PARM_DESC(max_user_slots, "Generation slots that one user may have");

/**
 * struct umn_user - a user with open files
 * @node: node in users
 * @uid: who
 * @files: open files; under users_lock
 * @regions: watched ranges
 * @slots: generation slots
 */
struct umn_user {
	struct hlist_node	node;
	kuid_t			uid;
	unsigned int		files;
	atomic_long_t		regions;
	atomic_long_t		slots;
};

static DEFINE_HASHTABLE(users, 6);
static DEFINE_SPINLOCK(users_lock);

static struct umn_user *user_of_uid(kuid_t uid)
{
	struct umn_user *user;

	hash_for_each_possible(users, user, node, __kuid_val(uid)) {
		if (uid_eq(user->uid, uid))
			return user;
	}
	return NULL;
}

/* The caller's user, with one more file. */
struct umn_user *umn_user_get(void)
{
	struct umn_user *user, *new;
	kuid_t uid = current_uid();
	int ret = 0;

	new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);
	if (!new)
		return ERR_PTR(-ENOMEM);

	spin_lock(&users_lock);
	user = user_of_uid(uid);
	if (!user) {
		user = new;
		new = NULL;
		user->uid = uid;
		hash_add(users, &user->node, __kuid_val(uid));
	}
	user->files++;
	if (user->files > READ_ONCE(max_user_files))
		ret = -EMFILE;
	spin_unlock(&users_lock);

	kfree(new);
	if (ret) {
		umn_user_put(user);
		return ERR_PTR(ret);
	}
	return user;
}

void umn_user_put(struct umn_user *user)
{
	bool last;

	spin_lock(&users_lock);
	last = !--user->files;
	if (last)
		hash_del(&user->node);
	spin_unlock(&users_lock);
	if (last)
		kfree(user);
}

/* As many more ranges, or false where that is too many. */
bool umn_user_charge(struct umn_user *user, unsigned long regions)
{
	if (atomic_long_add_return(regions, &user->regions) <=
	    READ_ONCE(max_user_regions))
		return true;
	atomic_long_sub(regions, &user->regions);
	return false;
}

void umn_user_uncharge(struct umn_user *user, unsigned long regions)
{
	atomic_long_sub(regions, &user->regions);
}

/* As many more slots, or false where that is too many. */
bool umn_user_charge_slots(struct umn_user *user, unsigned long slots)
{
	if (atomic_long_add_return(slots, &user->slots) <=
	    READ_ONCE(max_user_slots))
		return true;
	atomic_long_sub(slots, &user->slots);
	return false;
}

void umn_user_uncharge_slots(struct umn_user *user, unsigned long slots)
{
	atomic_long_sub(slots, &user->slots);
}
