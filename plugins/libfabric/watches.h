/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The ranges that libfabric's caches hold, and what the kernel has said of
 * them.
 *
 * libfabric names a registration by its range alone, and registrations of
 * several domains may have the same one.  So a range has one watch, with a
 * count of registrations that may be on it.  Once a range has changed it stays
 * invalid for all of them until every one of them is known to be gone: libfabric
 * dropped the only one, since it was told so, or it was made to drop all.
 *
 * A watch goes on when its registrations have gone.  A change that comes while
 * the range is registered the next time, before libfabric subscribes, is then
 * not missed.  How many are kept is limited.
 *
 * libfabric calls subscribe, unsubscribe and valid with its own lock held, which
 * its notify takes.  So notify is called by watches_settle() alone, and with no
 * lock of this file held.
 */
#ifndef REGCACHE_FI_WATCHES_H
#define REGCACHE_FI_WATCHES_H

#include <stdbool.h>
#include <stddef.h>

#include "regcache.h"

/*
 * Begins, with the kernel's news from `source`, which it keeps, and at most
 * twice `most` watches; from `most` on the oldest are given up.  In a forked
 * child it begins anew.  0 or a negative errno.
 */
int watches_open(struct regcache_monitor *source, size_t most);

/* Ends what watches_open() began, the source included.  Nobody may be using it. */
void watches_close(void);

/* Whether watches_open() has succeeded in this very process. */
bool watches_are_open(void);

/* One more registration is on the range; 0, or a negative errno if it must not
 * be cached. */
int watches_subscribe(const void *addr, size_t len);

/* One fewer.  libfabric before 2.1 does not say so. */
void watches_unsubscribe(const void *addr, size_t len);

/* Whether every registration on the range is of the memory mapped now.  False
 * makes libfabric drop the registration that it asked about. */
bool watches_valid(const void *addr, size_t len);

/* No registration is left. */
void watches_clear(void);

/* Waits for news, or for ranges that libfabric is to be told of. */
void watches_wait(void);

/* Calls notify, which makes libfabric drop all registrations that overlap the
 * range, for each range that has changed.  One thread calls this. */
void watches_settle(void (*notify)(const void *addr, size_t len));

#endif
