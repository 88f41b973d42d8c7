/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * ummunotify: tells a process when its own memory mappings change.
 *
 * The ABI is the one that Roland Dreier proposed in 2009: ioctl numbers,
 * structures, read() and mmap() are the same, bit for bit.
 *
 * A process opens /dev/ummunotify read-only and
 *
 *  - watches address ranges with ioctl(),
 *  - maps one page at offset 0, whose first 64-bit word is a generation
 *    counter: it moves before any page table entry of a watched range
 *    changes, so one load says whether there is anything to read,
 *  - read()s the events.  poll(), select(), epoll and SIGIO work.
 *
 * The order that is free of races, for a user that pins memory:
 *
 *	load the counter; REGISTER; pin; load the counter again.
 *
 * If the counter moved, read the events; if the range is among them, unpin
 * it and start again.  After an event, pinning again without another
 * UNREGISTER and REGISTER is not safe: only REGISTER waits for invalidations
 * in flight.
 *
 * A file belongs to the address space that opened it.  From any other (a
 * forked child, a receiver of SCM_RIGHTS, after exec) every call fails with
 * EPERM and the mapped page reads as all ones.
 */
#ifndef _UAPI_LINUX_UMMUNOTIFY_H
#define _UAPI_LINUX_UMMUNOTIFY_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct ummunotify_register_ioctl - a range to watch
 * @start: first byte of the range
 * @end: first byte after the range; @start == @end watches the page that
 *	holds @start
 * @user_cookie: names the range in events and in UNREGISTER; one range per
 *	cookie and file
 * @flags: ignored; set to 0
 * @reserved: ignored; set to 0
 */
struct ummunotify_register_ioctl {
	__u64	start;
	__u64	end;
	__u64	user_cookie;
	__u32	flags;
	__u32	reserved;
};

#define UMMUNOTIFY_MAGIC		'U'

/*
 * Answers 0 whatever mask is passed: the first users of this ioctl passed
 * uninitialised masks, so it can never grant anything.  EINVAL once the file
 * has been used.
 */
#define UMMUNOTIFY_EXCHANGE_FEATURES	_IOWR(UMMUNOTIFY_MAGIC, 1, __u32)

/*
 * Watch a range.  Waits (up to a second) for invalidations of the range that
 * are already in flight, so that memory pinned after REGISTER returns is the
 * new memory; where it cannot wait, the range is watched but reported as
 * invalid at once.
 *
 * EINVAL: @end is below @start, or the cookie is in use.  ENOSPC: the file
 * watches as many ranges as it may (module parameter max_regions).
 */
#define UMMUNOTIFY_REGISTER_REGION	_IOW(UMMUNOTIFY_MAGIC, 2, \
					     struct ummunotify_register_ioctl)

/*
 * Stop watching the range with this cookie; an event of it that was not read
 * is dropped.  EINVAL: no such cookie.
 */
#define UMMUNOTIFY_UNREGISTER_REGION	_IOW(UMMUNOTIFY_MAGIC, 3, __u64)

enum {
	/* A watched range was invalidated, in whole or in part. */
	UMMUNOTIFY_EVENT_TYPE_INVAL	= 0,
	/* No more events. */
	UMMUNOTIFY_EVENT_TYPE_LAST	= 1,
};

enum {
	/* hint_start and hint_end tell what part of the range was hit. */
	UMMUNOTIFY_EVENT_FLAG_HINT	= 1 << 0,
};

/**
 * struct ummunotify_event - what read() returns
 * @type: UMMUNOTIFY_EVENT_TYPE_*
 * @flags: UMMUNOTIFY_EVENT_FLAG_*
 * @hint_start: INVAL: first byte that was hit
 * @hint_end: INVAL: first byte after those that were hit; without the flag
 *	HINT the range was hit more than once and the hint is all of it
 * @user_cookie_counter: INVAL: the range's cookie; LAST: the generation
 *	counter at the moment when no event was left
 *
 * A range that was reported is watched again from then on.  read() returns
 * whole events, at most 4096 bytes at a time; a buffer smaller than one event
 * is EINVAL.
 */
struct ummunotify_event {
	__u32	type;
	__u32	flags;
	__u64	hint_start;
	__u64	hint_end;
	__u64	user_cookie_counter;
};

#endif /* _UAPI_LINUX_UMMUNOTIFY_H */
