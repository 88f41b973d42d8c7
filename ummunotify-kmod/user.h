/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What one user may have of us, over all processes.
 */
#ifndef _UMMUNOTIFY_USER_H
#define _UMMUNOTIFY_USER_H

#include <linux/types.h>

struct umn_user;

struct umn_user *umn_user_get(void);
void umn_user_put(struct umn_user *user);
bool umn_user_charge(struct umn_user *user, unsigned long regions);
void umn_user_uncharge(struct umn_user *user, unsigned long regions);
bool umn_user_charge_slots(struct umn_user *user, unsigned long slots);
void umn_user_uncharge_slots(struct umn_user *user, unsigned long slots);

#endif /* _UMMUNOTIFY_USER_H */
