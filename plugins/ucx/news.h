/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The kernel's news, and UCX told of them. */
#ifndef REGCACHE_UCX_NEWS_H
#define REGCACHE_UCX_NEWS_H

#include "regcache.h"
#include "ucx.h"

/* What the kernel says; until news_open(), nothing ever changes. */
extern struct regcache_monitor *news;

/* How many news were passed on, those that are about to be included. */
extern uint64_t news_told;

/* NULL, or why there are no news. */
const char *news_open(void (*vm_munmap)(void *, size_t), char *why, size_t size);

/*
 * Makes every cache of UCX's forget what has changed.  No lock of UCX's is
 * waited for but those that it takes for a moment, so it may be called with its
 * caches' locks held.  0, or a negative errno if there are no news to be had any
 * more.  -EPERM in a child of the process that opened the news: whatever it
 * inherited must not be used, and it could wait for a lock of UCX's that a thread
 * of its parent has.
 */
int news_pass_on(void);

/* Makes them forget a range and what shares a page with it, now or before their
 * next look-up. */
void news_forget(uintptr_t start, uintptr_t end);

#endif
