/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/ummunotify_hold: keeps invalidations of the opener's memory in flight.
 *
 * Open it before /dev/ummunotify: the kernel calls the notifier that was
 * registered last first, so ummunotify has seen an invalidation by the time
 * that this device puts its caller to sleep, before any page table changes.
 */
#ifndef _UMMUNOTIFY_HOLD_H
#define _UMMUNOTIFY_HOLD_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct ummunotify_hold_range - addresses in the opener's memory
 * @start: first byte
 * @end: first byte after the range
 */
struct ummunotify_hold_range {
	__u64	start;
	__u64	end;
};

/* As many ranges can be held at a time. */
#define UMMUNOTIFY_HOLD_RANGES	8

/* An invalidation goes on by itself after so many seconds. */
#define UMMUNOTIFY_HOLD_SECONDS	10

/* From now on, hold every invalidation that overlaps the range. */
#define UMMUNOTIFY_HOLD		_IOW('u', 1, struct ummunotify_hold_range)

/* Drop the ranges that overlap this one; let go what no other one holds. */
#define UMMUNOTIFY_HOLD_RELEASE	_IOW('u', 2, struct ummunotify_hold_range)

/* Returns how many invalidations are held at this moment. */
#define UMMUNOTIFY_HOLD_COUNT	_IO('u', 3)

#endif /* _UMMUNOTIFY_HOLD_H */
