/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * regcache: a cache of RDMA memory registrations that is never stale.
 *
 * A lookup that happens after a mapping changed never returns a registration
 * of the old pages, whoever changed it and however.
 *
 *	struct regcache *cache;
 *	struct regcache_ticket mr;
 *
 *	if (regcache_create_verbs(pd, NULL, &cache))
 *		errx(1, "%s", regcache_last_error());
 *	if (regcache_get(cache, buffer, length, IBV_ACCESS_LOCAL_WRITE, &mr))
 *		errx(1, "%s", regcache_last_error());
 *	post_receive(buffer, length, mr.region->lkey);	// and wait for it
 *	regcache_put(cache, mr);	// it stays registered, for the next time
 *
 * There are three layers.  Take the lowest that has what you lack:
 *
 *	regcache_create_verbs()	a cache of a protection domain's registrations
 *	regcache_create()	the same of whatever your callbacks register
 *	regcache_monitor_open()	only the news, for a cache that you have
 *
 * Conventions
 *
 * Functions return 0, or a count, or a negative errno; regcache_last_error()
 * then has a sentence about it.  -EINVAL is also the answer to NULL where that
 * is not allowed, -EBADF to a handle that was destroyed, and -EPERM to a
 * handle of the parent process.  A defect of the library is -ENOTRECOVERABLE;
 * no call aborts or exits.  Results of a call that failed are NULL or zero.
 *
 * A structure that is passed begins with its size.  Initialise it with its
 * macro, or zero it and set type_size: zero is the default of every field.
 * A field that is set and that the library does not know is -EINVAL.
 *
 * Threads
 *
 * Any thread may call any function on a cache or a monitor at any time, except
 * that nobody else may use a handle while it is destroyed or closed, and that
 * a local handle is used by one thread at a time.  A ticket may be put by any
 * thread, but one call at a time uses it.  No function may be called in a
 * signal handler.
 *
 * Callbacks are called with no lock of the library held, on any thread that is
 * in a call of it, or on the reaper's.  They may call anything of the library
 * except regcache_destroy() (-EDEADLK).  What they must not do is leave by
 * longjmp(3) or a C++ exception.  An allocator that the library itself calls
 * may call regcache_notify() on a cache with a manual monitor; any other call
 * from there is -EDEADLK.
 *
 * After fork(2) a child must make a cache of its own; its copy of the parent's
 * deregisters nothing.
 *
 * Environment: REGCACHE_MAX_REGIONS, REGCACHE_MAX_BYTES, REGCACHE_BARRIER and
 * REGCACHE_VERIFY set what the program leaves open; see regcache(3).
 */
#ifndef REGCACHE_H
#define REGCACHE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The sentence about this thread's last failure; "" before the first.  It is
 * the thread's own, and good until its next call that fails. */
const char *regcache_last_error(void);

/* The version of the library, for instance "0.1.0". */
const char *regcache_version(void);

/*
 * Making a cache
 */

/* A cache, shared among threads. */
struct regcache;

/* Who tells that mappings changed. */
enum regcache_monitor_kind {
	/* The kernel, by /dev/ummunotify: sees every change.  If there is no
	 * device, creation fails (-ENODEV, -EACCES); nothing weaker takes its
	 * place. */
	REGCACHE_MONITOR_UMMUNOTIFY = 0,
	/* You, by regcache_notify(): the promise holds for the changes that
	 * you announce before they happen. */
	REGCACHE_MONITOR_MANUAL = 1
};

/* Peers may reach the rest of the pages that they were given bytes of: fewer
 * registrations, for jobs whose processes are one program. */
#define REGCACHE_TRUST_PEERS	(1u << 0)
/* A thread deregisters what became stale, as soon as it is.  Without it the
 * next lookup that misses does, or regcache_drain().  A cache of a protection
 * domain that the kernel tells has one unless REGCACHE_NO_REAPER is set; one of
 * callbacks, which it calls, has one only if it is asked for. */
#define REGCACHE_REAPER		(1u << 1)
/* Do not ask the kernel whether an event changed anything: for callbacks that
 * do not pin, since of such memory it cannot tell. */
#define REGCACHE_NO_VERIFY	(1u << 2)
/* No thread of the library's. */
#define REGCACHE_NO_REAPER	(1u << 3)

/* For max_regions: cache nothing. */
#define REGCACHE_UNCACHED	UINT64_MAX

struct regcache_options {
	size_t type_size;
	uint32_t monitor;	/* enum regcache_monitor_kind */
	uint32_t flags;		/* REGCACHE_TRUST_PEERS, ... */
	uint64_t max_regions;	/* held at most; 0: 16384 */
	/* Held at most; 0: half of the memory that the machine or the control
	 * group has, and 3/4 of RLIMIT_MEMLOCK where that counts (it does not
	 * for who has CAP_IPC_LOCK). */
	uint64_t max_bytes;
	size_t payload_size;	/* bytes of yours in each region, up to 1 MiB */
	uint64_t reserved[4];
};
#define REGCACHE_OPTIONS_INIT	{ sizeof(struct regcache_options), \
				  0, 0, 0, 0, 0, { 0, 0, 0, 0 } }

/* A registration: at least what was asked for. */
struct regcache_region {
	void *addr;		/* the first byte */
	size_t len;		/* how many bytes */
	uint32_t access;	/* enum ibv_access_flags */
	uint32_t lkey;		/* for work requests of your own */
	uint32_t rkey;		/* for those of a peer */
	uint32_t reserved;
	void *mr;		/* struct ibv_mr *, or what mem_reg() set */
	void *payload;		/* payload_size bytes of yours, aligned as
				 * malloc(3)'s; NULL if that is 0 */
};

/* How memory is registered. */
struct regcache_callbacks {
	size_t type_size;
	/* Pins region->len bytes at region->addr for region->access, for long,
	 * as ibv_reg_mr(3) does, and sets lkey, rkey, mr and the payload (which
	 * is zero) as it likes.  Returns 0 or a negative errno; -ENOMEM,
	 * -EAGAIN, -ENOSPC, -EBUSY, -EMFILE and -ENFILE make the cache evict
	 * and try again.  The region stays where it is until it is
	 * deregistered. */
	int (*mem_reg)(void *context, struct regcache_region *region);
	/* Unpins.  After 0 the region is gone; after a negative errno it is
	 * called again, by lookups that need room too, and counts until then. */
	int (*mem_dereg)(void *context, struct regcache_region *region);
	void *context;		/* passed to both */
	uint64_t reserved[4];
};
#define REGCACHE_CALLBACKS_INIT	{ sizeof(struct regcache_callbacks), \
				  NULL, NULL, NULL, { 0, 0, 0, 0 } }

struct ibv_pd;

/* A cache of what the callbacks register.  Options may be NULL. */
int regcache_create(const struct regcache_callbacks *callbacks,
		    const struct regcache_options *options,
		    struct regcache **cache);

/* A cache of registrations in a protection domain, which must outlive it.
 * libibverbs.so.1 is loaded at run time (-ELIBACC if it cannot be).  Options
 * may be NULL. */
int regcache_create_verbs(struct ibv_pd *pd,
			  const struct regcache_options *options,
			  struct regcache **cache);

/* With REGCACHE_DESTROY_FORCE all tickets are put, and all local handles
 * closed, wherever they are: their regions are gone. */
#define REGCACHE_DESTROY_FORCE	(1u << 0)

/* Deregisters everything and destroys the cache.  -EBUSY, and the cache goes
 * on, while there are tickets that were not put, or open local handles, or
 * registrations that mem_dereg() would not let go of; the last of these are
 * given up by force. */
int regcache_destroy(struct regcache *cache, uint32_t flags);

/*
 * Lookups
 */

/* A registration on loan.  A value: copy it as you like, put it once. */
struct regcache_ticket {
	uint64_t lease;		/* 0 is no ticket */
	const struct regcache_region *region;	/* good until it is put */
};

/*
 * A registration of the len bytes at addr: one that the cache holds, which
 * takes nanoseconds and no lock, or a new one.  Access is that of
 * ibv_reg_mr(3); IBV_ACCESS_ZERO_BASED and ON_DEMAND are -EOPNOTSUPP.  Without
 * remote access whole pages are registered, and a read is also served by a
 * registration that may be written; with it, exactly the bytes that were
 * asked for.
 *
 * The ticket keeps the registration until it is put.  If the mapping changes
 * meanwhile, the registration stays what it was, and no later lookup returns
 * it.
 *
 * A peer that was told an rkey reaches the memory until the registration is
 * gone, which may be long after the ticket was put: see regcache_revoke().
 */
int regcache_get(struct regcache *cache, const void *addr, size_t len,
		 uint32_t access, struct regcache_ticket *ticket);

/* Another ticket on the same registration. */
int regcache_hold(struct regcache *cache, struct regcache_ticket ticket,
		  struct regcache_ticket *another);

/* Gives a ticket back.  A second time is -EINVAL and harms nobody. */
int regcache_put(struct regcache *cache, struct regcache_ticket ticket);

/*
 * The same for callers that have a lock of their own, or a thread for each
 * worker: nothing is looked up for the thread, and a put is a plain store.
 * A local handle, with all of its tickets, is used by one thread at a time.
 */
struct regcache_local;

int regcache_local_open(struct regcache *cache, struct regcache_local **local);
/* -EBUSY while there are tickets of it. */
int regcache_local_close(struct regcache_local *local);
int regcache_local_get(struct regcache_local *local, const void *addr,
		       size_t len, uint32_t access,
		       struct regcache_ticket *ticket);
int regcache_local_hold(struct regcache_local *local,
			struct regcache_ticket ticket,
			struct regcache_ticket *another);
int regcache_local_put(struct regcache_local *local,
		       struct regcache_ticket ticket);

/*
 * The end of registrations
 */

/* Announces that the mappings of a range are about to change: for a manual
 * monitor, and for memory that no MMU notifier tells of (a GPU's).  Once it has
 * returned, no lookup finds what was registered there.  With a manual monitor
 * the next lookup deregisters it, or regcache_drain(); else this does. */
int regcache_notify(struct regcache *cache, const void *addr, size_t len);

typedef void (*regcache_completion)(void *context);

/* As regcache_notify(), and deregisters at once what is not in use.  If
 * completion is not NULL, it is called once, on any thread, when the last
 * registration that touched the range is gone: after the last put, or before
 * this returns.  After an error it is not called. */
int regcache_invalidate(struct regcache *cache, const void *addr, size_t len,
			regcache_completion completion, void *context);

/* Ends all registrations that touch a range, so that the rkeys that peers
 * were told are dead.  Returns how many are still in use: with 0, no peer can
 * reach the memory any more. */
int regcache_revoke(struct regcache *cache, const void *addr, size_t len);

/* Deregisters what has become stale. */
int regcache_drain(struct regcache *cache);

/* Deregisters everything that is not in use; what is in use is deregistered at
 * its last put, and no later lookup finds it. */
int regcache_flush(struct regcache *cache);

/* A file descriptor that is readable when there is something to drain, for
 * poll(2) and nothing else.  -EOPNOTSUPP for a manual monitor. */
int regcache_fd(struct regcache *cache);

/*
 * What a cache has done
 */

struct regcache_stats {
	size_t type_size;
	uint64_t hits;		/* lookups that found a registration */
	uint64_t misses;	/* lookups that found none */
	uint64_t joined;	/* that waited for another thread's */
	uint64_t registrations;
	uint64_t deregistrations;
	uint64_t register_failures;
	uint64_t deregister_failures;	/* tried again later */
	uint64_t stale;		/* cached ones whose mapping changed */
	uint64_t verified;	/* hit by an event, and as good as ever */
	uint64_t revoked;
	uint64_t barrier_failures;	/* membarrier(2) was refused */
	uint64_t evicted;	/* to make room */
	uint64_t repinned;	/* made again: an event came meanwhile */
	/* Not cached, because: */
	uint64_t uncached_too_large;	/* larger than max_bytes */
	uint64_t uncached_full;		/* all in use */
	uint64_t uncached_contested;	/* events went on coming */
	uint64_t uncached_reentered;	/* asked for by its own mem_reg() */
	uint64_t uncached_unwatchable;	/* the monitor cannot watch it */
	uint64_t uncached_unmonitored;	/* the monitor has failed */
	/* Now: */
	uint64_t regions;	/* held, those in use and stale included */
	uint64_t bytes;		/* of those */
	uint64_t tickets;	/* that were not put */
};
#define REGCACHE_STATS_INIT	{ sizeof(struct regcache_stats), \
				  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
				  0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* Fills what the caller has, as its type_size says. */
int regcache_query(struct regcache *cache, struct regcache_stats *stats);

/* Writes a table of all registrations, for a person to read, as snprintf(3)
 * does: at most size bytes with the NUL, and returns how long it is without.
 * The buffer may be NULL if size is 0. */
int regcache_dump(struct regcache *cache, char *buffer, size_t size);

/*
 * The monitor alone
 *
 * For middleware that has a cache of its own: watch a range when it is cached,
 * and before each use of the cache
 *
 *	if (regcache_monitor_changed(monitor))
 *		regcache_monitor_drain(monitor, forget, cache);
 *
 * where forget() drops what an event names.  To register memory soundly:
 * watch, pin, then test and drain once more; if the range was named, unpin,
 * unwatch, and start again.
 */

/* Its fields are read by regcache_monitor_changed() and by nobody else. */
struct regcache_monitor {
	const uint64_t *counter;	/* moves before a mapping changes */
	uint64_t seen;		/* as of when all was drained */
	void *body;
};

struct regcache_monitor_options {
	size_t type_size;
	uint32_t monitor;	/* enum regcache_monitor_kind */
	uint32_t flags;		/* 0 */
	uint64_t reserved[4];
};
#define REGCACHE_MONITOR_OPTIONS_INIT \
	{ sizeof(struct regcache_monitor_options), 0, 0, { 0, 0, 0, 0 } }

/* Options may be NULL. */
int regcache_monitor_open(const struct regcache_monitor_options *options,
			  struct regcache_monitor **monitor);
int regcache_monitor_close(struct regcache_monitor *monitor);

/* Also changes that move no pinned page: fork(2), mprotect(2), migration. */
#define REGCACHE_WATCH_UNPINNED	(1u << 0)

/*
 * Watches the pages of a range; events name it by the cookie, which no other
 * watch has (-EEXIST).  Two watches may overlap, or be equal.  -ENOSPC if as
 * much is watched as can be.  Waits for changes of the range that are under
 * way: what is pinned afterwards is the memory mapped then, or an event
 * follows.  A manual monitor watches nothing.
 */
int regcache_monitor_watch(struct regcache_monitor *monitor, const void *addr,
			   size_t len, uint64_t cookie, uint32_t flags);

/* Forgets a watch, and its events that were not drained.  -ENOENT if there is
 * none of this cookie. */
int regcache_monitor_unwatch(struct regcache_monitor *monitor,
			     uint64_t cookie);

/*
 * Whether there is something to drain: two loads and a comparison, no call.
 * It is true before a watched mapping changes, or regcache_monitor_notify()
 * returns, until a drain has ended that told of it.  It is always true in a
 * forked child and for a monitor that was closed, so that nothing is trusted
 * there.
 */
static inline int
regcache_monitor_changed(const struct regcache_monitor *monitor)
{
	/* Before the counter, so that a drain in between shows. */
	uint64_t seen = __atomic_load_n(&monitor->seen, __ATOMIC_ACQUIRE);
	const uint64_t *counter =
		__atomic_load_n(&monitor->counter, __ATOMIC_RELAXED);
	int changed = __atomic_load_n(counter, __ATOMIC_RELAXED) != seen;

	/* What the caller reads next is no older than the counter. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return changed;
}

enum regcache_event_type {
	REGCACHE_EVENT_WATCH = 1,	/* a watch was hit; it goes on */
	REGCACHE_EVENT_RANGE = 2,	/* what overlaps addr and len */
	REGCACHE_EVENT_ALL = 3		/* everything, watched or not */
};

struct regcache_event {
	uint32_t type;		/* enum regcache_event_type */
	uint32_t changes;	/* UMMUNOTIFY_KIND_* of a watch, if known */
	uint64_t cookie;	/* of a watch */
	void *addr;		/* what was hit; of a watch that was hit more */
	size_t len;		/* than once, all of it */
};

typedef void (*regcache_sink)(void *context,
			      const struct regcache_event *event);

/*
 * Tells the sink everything that happened up to now, and returns how many
 * events that was.  After an error trust nothing that you hold: events may be
 * lost.
 *
 * One thread at a time drains, the sink's calls included; others wait for it,
 * and then find what it did done.  So the sink must not wait for a lock that
 * a thread holds which calls this function, unless all do.  It may watch,
 * unwatch and notify; draining or closing its own monitor is -EDEADLK.
 */
int regcache_monitor_drain(struct regcache_monitor *monitor,
			   regcache_sink sink, void *context);

/* Feeds a range, for other sources of news: the next drain has an event of it.
 * After many that nobody drains it has one of everything. */
int regcache_monitor_notify(struct regcache_monitor *monitor,
			    const void *addr, size_t len);

/* Feeds everything: another source has lost count. */
int regcache_monitor_flush(struct regcache_monitor *monitor);

/* A file descriptor that is readable when there is something to drain of the
 * kernel's, for poll(2) and nothing else.  -EOPNOTSUPP if it is manual. */
int regcache_monitor_fd(struct regcache_monitor *monitor);

#ifdef __cplusplus
}
#endif

#endif /* REGCACHE_H */
