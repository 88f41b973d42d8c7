/* SPDX-License-Identifier: GPL-2.0 */
/* Chaos: what happens to memory of one's own is told each time. */
#ifndef CHAOS_OWN_H
#define CHAOS_OWN_H

#include "chaos.h"

/*
 * Memory that nobody else of this process knows.  What others do, by fork or
 * from outside, may add events here, but take none away.
 */
#define OWN_PAGES 4

/* Where a page is not mapped, a change of it is none, and nothing tells. */
static bool is_there(const char *p)
{
	unsigned char there[OWN_PAGES];

	if (!mincore((void *)p, OWN_PAGES * PAGE, there) || errno != ENOMEM)
		return true;
	count(&chaos.totals->wrong);
	dprintf(STDOUT_FILENO, "# somebody else unmapped memory\n");
	return false;
}

static bool events_tell(int fd, __u64 cookie)
{
	struct ummunotify_event ev[READ_MAX];
	bool told = false;
	long i, n;

	for (;;) {
		n = read_events(fd, ev, 1 + cookie % READ_MAX);
		if (n == -EINTR)
			continue;
		if (n < 0)
			return told;
		for (i = 0; i < n; i++) {
			if (ev[i].type != UMMUNOTIFY_EVENT_TYPE_LAST)
				told |= ev[i].user_cookie_counter == cookie;
		}
	}
}

/* Returns whether it did change anything, and for a report which change. */
static bool change_own(__u64 *s, char *p, int memfd, int *which)
{
	size_t len = (1 + rnd(s) % OWN_PAGES) * PAGE;
	char *to;

	*which = rnd(s) % (memfd >= 0 ? 3 : 5);
	switch (*which) {
	case 0:
		return mmap(p, len, PROT_READ | PROT_WRITE, MAP_FIXED |
			    (memfd >= 0 ? MAP_SHARED :
			     MAP_PRIVATE | MAP_ANONYMOUS), memfd, 0) == p;
	case 1:
		if (memfd >= 0)
			return !fallocate(memfd, FALLOC_FL_PUNCH_HOLE |
					  FALLOC_FL_KEEP_SIZE, 0, len);
		return !madvise(p, len, MADV_DONTNEED);
	case 2:
		if (memfd >= 0)
			return !ftruncate(memfd, OWN_PAGES * PAGE - len) &&
				!ftruncate(memfd, OWN_PAGES * PAGE);
		/* fall through */
	case 3:
		to = mremap(p, OWN_PAGES * PAGE, OWN_PAGES * PAGE,
			    MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
		if (to == MAP_FAILED)
			return false;
		munmap(to, OWN_PAGES * PAGE);
		return true;
	default:
		return !munmap(p, len) &&
			mmap(p, len, PROT_READ | PROT_WRITE, MAP_FIXED |
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == p;
	}
}

static void watch_own(__u64 *s, struct dev *d, const volatile __u64 *slots)
{
	__u64 cookie = rnd(s), gen, slot;
	int memfd = one_in(s, 3) ? memfd_create("own", MFD_CLOEXEC) : -1;
	bool gen_moved, slot_moved, told;
	int which;
	char *p;

	if (memfd >= 0 && ftruncate(memfd, OWN_PAGES * PAGE))
		goto out;
	p = map_here(OWN, OWN_PAGES * PAGE, memfd >= 0 ? MAP_SHARED :
		     MAP_PRIVATE | MAP_ANONYMOUS, memfd);
	if (!p)
		goto out;
	if (watch_flags(d->fd, p, OWN_PAGES * PAGE, cookie,
			UMMUNOTIFY_REGISTER_SLOT | UMMUNOTIFY_KINDS_FILTERABLE,
			7))
		goto out_unmap;
	touch(p, OWN_PAGES * PAGE, true);
	/* Watched for sure once its events are read: from here on, all counts. */
	gen = *d->gen;
	slot = slots[7];
	events_tell(d->fd, cookie);
	if (is_there(p) && change_own(s, p, memfd, &which)) {
		gen_moved = *d->gen != gen;
		slot_moved = slots[7] != slot;
		told = events_tell(d->fd, cookie);
		count(&chaos.totals->checks);
		if (!gen_moved || !slot_moved || !told) {
			count(&chaos.totals->lost);
			dprintf(STDOUT_FILENO, "# %s memory, change %d: counter "
				"%d, slot %d, event %d; event now %d\n",
				memfd < 0 ? "private" : "shared", which,
				gen_moved, slot_moved, told,
				events_tell(d->fd, cookie));
		}
	}
	if (unwatch(d->fd, cookie))
		count(&chaos.totals->wrong);
out_unmap:
	munmap(p, OWN_PAGES * PAGE);
out:
	if (memfd >= 0)
		close(memfd);
}

/* Pinned pages that were replaced are never taken for the same. */
static void verify_own(__u64 *s, struct dev *d)
{
	char *p = map_here(OWN, OWN_PAGES * PAGE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1);
	__u64 cookie = rnd(s);
	int pinned = -1;

	if (!p)
		return;
	if (watch(d->fd, p, OWN_PAGES * PAGE, cookie))
		goto out;
	pinned = pin(p, OWN_PAGES * PAGE);
	if (pinned < 0 || note(d->fd, cookie))
		goto out;
	if (madvise(p + rnd(s) % OWN_PAGES * PAGE, PAGE, MADV_DONTNEED))
		goto out;
	touch(p, OWN_PAGES * PAGE, true);
	if (verify(d->fd, cookie) == 1)
		count(&chaos.totals->wrong);
	count(&chaos.totals->checks);
out:
	unwatch(d->fd, cookie);
	if (pinned >= 0)
		close(pinned);
	munmap(p, OWN_PAGES * PAGE);
	events_tell(d->fd, 0);
}

#endif /* CHAOS_OWN_H */
