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
 *    counter: it moves, once or more often, before any page table entry of a
 *    watched range changes, so one load says whether there is anything to
 *    read,
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
 *
 * That is the interface of 2009, and all of it that there is until
 * UMMUNOTIFY_NEGOTIATE is called: see "Extensions" below.
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
 * @flags: UMMUNOTIFY_REGISTER_*, if negotiated; else ignored: set to 0
 * @reserved: the slot, with UMMUNOTIFY_REGISTER_SLOT; else ignored: set to 0
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
 * EINVAL: @end is below @start, or the cookie is in use.  ENOSPC: the file or
 * the user watches as many ranges as it may (module parameters max_regions and
 * max_user_regions).
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

/*
 * Extensions
 * ==========
 *
 * UMMUNOTIFY_NEGOTIATE is the first call on a file, or EBUSY.  It grants those
 * of the wanted features that this kernel has; each is used only where it was
 * granted.  Without the call nothing differs from 2009.  A module that has no
 * extensions answers ENOTTY.
 */

/* REGISTER takes a mask of event kinds that do not invalidate the range. */
#define UMMUNOTIFY_FEATURE_FILTER	(1 << 0)
/* NOTE and VERIFY tell whether a range still has the pages that it had. */
#define UMMUNOTIFY_FEATURE_VERIFY	(1 << 1)
/* Events tell by which kinds of change the range was hit. */
#define UMMUNOTIFY_FEATURE_KINDS	(1 << 2)
/* Each range may have a generation of its own, in a second mapping. */
#define UMMUNOTIFY_FEATURE_GENSLOT	(1 << 3)
/* REGISTER_BATCH, UNREGISTER_BATCH and UNREGISTER_ALL. */
#define UMMUNOTIFY_FEATURE_BATCH	(1 << 4)
/* REGISTER may ask for one event, after which the range is forgotten. */
#define UMMUNOTIFY_FEATURE_ONESHOT	(1 << 5)
/* REGISTER may ask that an event of the range wakes nobody. */
#define UMMUNOTIFY_FEATURE_NOWAKE	(1 << 6)
/* REGISTER refuses flags that it does not know (EINVAL). */
#define UMMUNOTIFY_FEATURE_STRICT	(1 << 7)
/* UNREGISTER returns how many events of the range were delivered. */
#define UMMUNOTIFY_FEATURE_DELIVERED	(1 << 8)
/* struct ummunotify_stats is in the counter's page, at UMMUNOTIFY_STATS_AT. */
#define UMMUNOTIFY_FEATURE_STATS	(1 << 9)
/* IDENTIFY and CALL: calls that reach this file or none. */
#define UMMUNOTIFY_FEATURE_IDENTITY	(1 << 10)

/**
 * struct ummunotify_negotiate - what is wanted, and what is granted
 * @size: in: size of this structure as the caller knows it; E2BIG if it is
 *	longer than the kernel's and the rest is not zero
 * @features: in: UMMUNOTIFY_FEATURE_* wanted; out: granted
 * @slots: in: generation slots wanted, with GENSLOT; out: granted, which may
 *	be less (module parameter max_slots), or more, to fill a page; ENOSPC
 *	if the user has too many (module parameter max_user_slots)
 * @kinds: out: UMMUNOTIFY_KIND_* that FILTER may ignore
 * @max_regions: out: ranges that this file may watch
 * @max_batch: out: entries that one batch may have
 */
struct ummunotify_negotiate {
	__u32	size;
	__u32	features;
	__u32	slots;
	__u32	kinds;
	__u32	max_regions;
	__u32	max_batch;
};

#define UMMUNOTIFY_NEGOTIATE		_IO(UMMUNOTIFY_MAGIC, 4)

/*
 * Kinds of change, as the kernel's memory management tells them.
 *
 * FILTER may ignore the five that do not take a page away from who has pinned
 * it for long (FOLL_PIN | FOLL_LONGTERM, as RDMA and io_uring do): changes of
 * protection copy or share nothing that is pinned, and a pinned page does not
 * migrate.  UNMAP, CLEAR and what this header does not know cannot be ignored.
 */
#define UMMUNOTIFY_KIND_UNMAP		(1 << 0)
#define UMMUNOTIFY_KIND_CLEAR		(1 << 1)
#define UMMUNOTIFY_KIND_PROTECTION_VMA	(1 << 2)
#define UMMUNOTIFY_KIND_PROTECTION_PAGE	(1 << 3)
#define UMMUNOTIFY_KIND_SOFT_DIRTY	(1 << 4)
#define UMMUNOTIFY_KIND_MIGRATE		(1 << 5)
#define UMMUNOTIFY_KIND_EXCLUSIVE	(1 << 6)
/* Any other; also a range that was reported because REGISTER could not wait. */
#define UMMUNOTIFY_KIND_OTHER		(1 << 7)

#define UMMUNOTIFY_KINDS_FILTERABLE	(UMMUNOTIFY_KIND_PROTECTION_VMA | \
					 UMMUNOTIFY_KIND_PROTECTION_PAGE | \
					 UMMUNOTIFY_KIND_SOFT_DIRTY | \
					 UMMUNOTIFY_KIND_MIGRATE | \
					 UMMUNOTIFY_KIND_EXCLUSIVE)

/*
 * Flags of struct ummunotify_register_ioctl.  The low byte is the mask of
 * kinds to ignore, with FILTER; a kind that cannot be ignored is EINVAL.
 */
#define UMMUNOTIFY_REGISTER_IGNORE	0xff
#define UMMUNOTIFY_REGISTER_ONESHOT	(1 << 8)
#define UMMUNOTIFY_REGISTER_NOWAKE	(1 << 9)
/* The range moves slot number @reserved; EINVAL beyond the granted slots. */
#define UMMUNOTIFY_REGISTER_SLOT	(1 << 10)

/*
 * With KINDS, flags of struct ummunotify_event hold UMMUNOTIFY_KIND_* here.
 * Where one that FILTER cannot ignore is among them, later ones may be missing;
 * else these are all.
 */
#define UMMUNOTIFY_EVENT_KINDS_SHIFT	8

/*
 * GENSLOT: an array of 64-bit generations, mapped read-only at an offset of
 * one page (and after it, as many pages as the granted slots fill).  A slot
 * moves before any page table entry of its range changes, and never goes back;
 * REGISTER does not move it.  Load it before REGISTER: as long as it stands
 * still, what was pinned after REGISTER is good.
 */

/**
 * struct ummunotify_batch - several ranges at once
 * @size: size of this structure
 * @count: number of entries, at most max_batch
 * @entries: pointer to struct ummunotify_register_ioctl, or for UNREGISTER to
 *	__u64 cookies
 * @done: out: entries that were done, from the first
 * @error: out: the errno that entry number @done failed with (EFAULT: it
 *	could not be read), or 0
 *
 * The calls return 0 even where an entry failed.
 */
struct ummunotify_batch {
	__u32	size;
	__u32	count;
	__u64	entries;
	__u32	done;
	__u32	error;
};

#define UMMUNOTIFY_REGISTER_BATCH	_IO(UMMUNOTIFY_MAGIC, 5)
#define UMMUNOTIFY_UNREGISTER_BATCH	_IO(UMMUNOTIFY_MAGIC, 6)

/* Stop watching everything; what was not read is dropped. */
#define UMMUNOTIFY_UNREGISTER_ALL	_IO(UMMUNOTIFY_MAGIC, 7)

/*
 * VERIFY answers invalidations that changed nothing: splitting a mapping
 * clears the huge block around it, a fork clears private huge pages, KSM and
 * migration clear before they find a page pinned.
 *
 * NOTE, after the range was pinned, notes which pages it has.  VERIFY, after
 * an event, arms the range again (a pending event of it is taken back), waits
 * for what is in flight as REGISTER does, and compares: it returns 1 if the
 * range still has those pages, and 0 if not, or if that is not certain.  Load
 * the generation before VERIFY, and compare it after.
 *
 * NOTE belongs between the pin and loading the generation again: if that has
 * moved, the note may be of other pages than the pin, and all starts again.
 *
 * It holds only while the caller has kept the range pinned all the time since
 * NOTE: a page that is not pinned can be freed and come back as another.
 *
 * Where all of the range is private anonymous memory when NOTE succeeds, or
 * VERIFY says 1, and the range ignores both kinds of PROTECTION, it ignores until
 * its next event that these split a huge page, as a fork does with one that is
 * pinned: that is a CLEAR which leaves every page where it is.
 *
 * The argument points to the cookie.  EINVAL: no such cookie, or VERIFY
 * without NOTE.  EFAULT: NOTE of a range of which more than 64 pages are not
 * there, or one that cannot be faulted in.
 */
#define UMMUNOTIFY_NOTE			_IOW(UMMUNOTIFY_MAGIC, 8, __u64)
#define UMMUNOTIFY_VERIFY		_IOW(UMMUNOTIFY_MAGIC, 9, __u64)

/**
 * struct ummunotify_stats - of one file, since it was opened
 * @regions: ranges that are watched now
 * @hits: times that a range became invalid
 * @delivered: events that were read
 * @doubts: times that REGISTER could not wait, and said "invalid"
 * @verified: times that VERIFY found nothing changed
 */
struct ummunotify_stats {
	__u64	regions;
	__u64	hits;
	__u64	delivered;
	__u64	doubts;
	__u64	verified;
};

#define UMMUNOTIFY_STATS_AT		64

/*
 * A library's file descriptor can be closed by other code of its process, and
 * the next file that is opened gets its number.  A read() of that file may take
 * what belongs to somebody else, and "nothing to read" says nothing about the
 * mapped counter, which still is that of the first file.
 *
 * IDENTIFY gives a file a number, once: EBUSY after that, EINVAL for 0.  It
 * must be one that no other file of the process has.  The argument points to
 * it.
 */
#define UMMUNOTIFY_IDENTIFY		_IOW(UMMUNOTIFY_MAGIC, 10, __u64)

/**
 * struct ummunotify_call - a call on the file with this identity
 * @size: size of this structure
 * @call: which call, by its number UMMUNOTIFY_*; or UMMUNOTIFY_READ; 0 only
 *	compares the identity
 * @identity: as given to IDENTIFY
 * @answer: out: the complement of @identity, so that a success of another
 *	driver's ioctl is not taken for one of this call
 * @arg: the argument of the call; with READ, where the events go
 * @len: with READ, the size of that in bytes; else 0
 */
struct ummunotify_call {
	__u32	size;
	__u32	call;
	__u64	identity;
	__u64	answer;
	__u64	arg;
	__u64	len;
};

/*
 * Does what the call does, and returns what it returns.  ESTALE, and nothing is
 * done: the file has another identity, or none.  ENOTTY: no such call.  A file
 * of another kind says ENOTTY as well, or leaves @answer as it was.
 */
#define UMMUNOTIFY_CALL			_IO(UMMUNOTIFY_MAGIC, 11)

/* For CALL only: as read(). */
#define UMMUNOTIFY_READ			_IO(UMMUNOTIFY_MAGIC, 12)

#endif /* _UAPI_LINUX_UMMUNOTIFY_H */
