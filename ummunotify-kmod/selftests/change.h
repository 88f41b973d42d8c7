/* SPDX-License-Identifier: GPL-2.0 */
/* The ways in which memory changes, and who can change it. */
#ifndef CHANGE_H
#define CHANGE_H

#include "feature.h"

#include <sched.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif

#define BLOCK		huge_page_size()

/* A cell is so many units, which are changed as a whole. */
#define CELL_UNITS	4U

/* Files are as long as a cell of small pages. */
#define FILE_BYTES	(CELL_UNITS * PAGE)

/* Where a cell is moved to; and how far apart they are, for that. */
#define ASIDE		(CELL_UNITS * BLOCK)
#define CELL_STRIDE	(2 * ASIDE)

enum backing {
	ANON		= 1 << 0,
	SHARED		= 1 << 1,
	PRIVATE		= 1 << 2,	/* of a file, and only read so far */
	THP		= 1 << 3,	/* one transparent huge page, or parts */
	HUGE		= 1 << 4,	/* huge pages of a private mapping */
};

#define FILES		(SHARED | PRIVATE)
#define ANONS		(ANON | THP)
#define ALL_BACKINGS	(ANONS | FILES | HUGE)

enum actor {
	SELF		= 1 << 0,
	SIBLING		= 1 << 1,	/* a process with the same memory */
	RING		= 1 << 2,	/* a worker of io_uring */
	FOREIGN		= 1 << 3,	/* a process with the same files */
};

#define AT_HOME		(SELF | SIBLING)

enum verb {
	UNMAP, MAP_OVER, MOVE, MOVE_AND_KEEP, SHRINK,
	DONTNEED, FREE, REMOVE, GUARD, PROTECT,
	TRUNCATE, PUNCH, WRITE_PRIVATE, FORK, CLEAR_REFS, WRITE_FILE,
	NR_VERBS,
	/* For helpers. */
	PREPARE, CHECK, QUIT,
};

enum part { ANY_PART, TAIL, ONE_UNIT, WHOLE };

/*
 * @replaces: for these backings, other pages are mapped there afterwards, or
 *	none; for the others, the same
 * @kind: of the invalidation; 0: there is none
 * @damages: afterwards the cell has to be mapped anew
 * @weight: how often it is chosen
 */
static const struct {
	const char *name;
	unsigned int backings, replaces, actors;
	__u32 kind;
	enum part part;
	bool damages;
	unsigned int weight;
} verbs[NR_VERBS] = {
	[UNMAP] = { "munmap", ALL_BACKINGS, ALL_BACKINGS, AT_HOME, KIND(UNMAP),
		    ANY_PART, true, 24 },
	[MAP_OVER] = { "mmap over", ALL_BACKINGS, ALL_BACKINGS, AT_HOME,
		       KIND(UNMAP), ANY_PART, true, 16 },
	[MOVE] = { "mremap", ALL_BACKINGS, ALL_BACKINGS, AT_HOME, KIND(UNMAP),
		   WHOLE, true, 8 },
	[MOVE_AND_KEEP] = { "mremap, old mapping kept", ANONS, ANONS, AT_HOME,
			    KIND(UNMAP), WHOLE, true, 4 },
	[SHRINK] = { "mremap to less", ALL_BACKINGS, ALL_BACKINGS, AT_HOME,
		     KIND(UNMAP), TAIL, true, 8 },
	[DONTNEED] = { "MADV_DONTNEED", ALL_BACKINGS, ANONS | HUGE,
		       AT_HOME | RING, KIND(CLEAR), ANY_PART, false, 32 },
	[FREE] = { "MADV_FREE", ANONS, 0, AT_HOME | RING, KIND(CLEAR),
		   ANY_PART, false, 16 },
	[REMOVE] = { "MADV_REMOVE", SHARED, SHARED, AT_HOME | RING,
		     KIND(CLEAR), ANY_PART, false, 16 },
	[GUARD] = { "MADV_GUARD_INSTALL", ANONS, ANONS, AT_HOME, KIND(CLEAR),
		    ANY_PART, true, 8 },
	[PROTECT] = { "mprotect", ALL_BACKINGS, 0, AT_HOME,
		      KIND(PROTECTION_VMA), ANY_PART, true, 16 },
	[TRUNCATE] = { "ftruncate", FILES, FILES, SELF | FOREIGN, KIND(CLEAR),
		       TAIL, false, 24 },
	[PUNCH] = { "hole", FILES, FILES, SELF | FOREIGN, KIND(CLEAR),
		    ANY_PART, false, 24 },
	[WRITE_PRIVATE] = { "copy on write", PRIVATE, PRIVATE, SELF | FOREIGN,
			    KIND(CLEAR), ONE_UNIT, true, 24 },
	[FORK] = { "fork", ANONS | HUGE, 0, SELF, KIND(PROTECTION_PAGE),
		   WHOLE, false, 2 },
	[CLEAR_REFS] = { "clear_refs", ALL_BACKINGS, 0, SELF | FOREIGN,
			 KIND(SOFT_DIRTY), WHOLE, false, 1 },
	[WRITE_FILE] = { "write to the file", FILES, 0, SELF | FOREIGN, 0,
			 ANY_PART, false, 4 },
};

static inline const char *actor_name(enum actor actor)
{
	switch (actor) {
	case SELF:
		return "the thread itself";
	case SIBLING:
		return "a process that shares the memory";
	case RING:
		return "io_uring";
	default:
		return "another process";
	}
}

/* Memory that only one thread's changes are for. */
struct cell {
	char *p;
	enum backing backing;
	int file;
};

static inline size_t cell_unit(const struct cell *c)
{
	return c->backing == HUGE ? BLOCK : c->backing == THP ?
	       BLOCK / CELL_UNITS : PAGE;
}

static inline size_t cell_bytes(const struct cell *c)
{
	return CELL_UNITS * cell_unit(c);
}

/**
 * struct change - one change of a cell
 * @first: first unit
 * @units: how many
 * @cut: TRUNCATE: how many bytes the file keeps
 * @owner: whose cell it is
 */
struct change {
	enum verb verb;
	enum actor actor;
	struct cell cell;
	unsigned int first, units;
	size_t cut;
	pid_t owner;
};

static inline char *change_start(const struct change *c)
{
	return c->cell.p + c->first * cell_unit(&c->cell);
}

static inline size_t change_len(const struct change *c)
{
	return c->units * cell_unit(&c->cell);
}

/* What the change is for who watches: see verbs. */
static inline __u32 change_kind(const struct change *c)
{
	/* The fork of huge pages is a plain CLEAR. */
	if (c->verb == FORK && c->cell.backing == HUGE)
		return KIND(CLEAR);
	return verbs[c->verb].kind;
}

/* Brings back the pages of a cell that is mapped. */
static inline bool cell_fill(const struct cell *c)
{
	return !madvise(c->p, cell_bytes(c), c->backing == PRIVATE ?
			MADV_POPULATE_READ : MADV_POPULATE_WRITE);
}

/* Maps a cell, with all of its pages. */
static inline bool cell_map(const struct cell *c)
{
	int flags = MAP_FIXED | (c->backing == SHARED ? MAP_SHARED :
				 MAP_PRIVATE);

	if (!(c->backing & FILES))
		flags |= MAP_ANONYMOUS;
	if (c->backing == HUGE)
		flags |= HUGE_FLAGS;
	if (mmap(c->p, cell_bytes(c), PROT_READ | PROT_WRITE, flags, c->file,
		 0) != c->p)
		return false;
	if (c->backing == THP)
		madvise(c->p, cell_bytes(c), MADV_HUGEPAGE);
	return cell_fill(c);
}

static inline int advice_of(enum verb verb)
{
	switch (verb) {
	case DONTNEED:
		return MADV_DONTNEED;
	case FREE:
		return MADV_FREE;
	case REMOVE:
		return MADV_REMOVE;
	default:
		return MADV_GUARD_INSTALL;
	}
}

static inline long change_move(const struct change *c, int flags)
{
	size_t len = cell_bytes(&c->cell);
	char *p = c->cell.p;

	if (mremap(p, len, len, MREMAP_MAYMOVE | flags, p + ASIDE) != p + ASIDE)
		return -errno;
	return ret_errno(munmap(p + ASIDE, len));
}

/* Nothing that a child does to its memory is a change of the parent's. */
static inline long change_fork(const struct change *c)
{
	size_t i, len = cell_bytes(&c->cell);
	pid_t pid = fork();

	if (!pid) {
		for (i = 0; i < len; i += PAGE)
			((volatile char *)c->cell.p)[i] = 2;
		_exit(munmap(c->cell.p, len));
	}
	return pid < 0 ? -errno : child_status(pid) ? -ECHILD : 0;
}

static inline long change_write(const struct change *c)
{
	struct iovec local = { (char[]){ 3 }, 1 };
	struct iovec remote = { change_start(c), 1 };

	if (c->actor != FOREIGN) {
		*(volatile char *)change_start(c) = 3;
		return 0;
	}
	return ret_errno(process_vm_writev(c->owner, &local, 1, &remote, 1,
					   0)) == 1 ? 0 : -errno;
}

static inline long change_clear_refs(const struct change *c)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/clear_refs", c->owner);
	return file_set(path, "4") ? 0 : -errno;
}

/* Done by the caller, whoever that is.  Returns 0 or -errno. */
static inline long change_do(const struct change *c)
{
	char *from = change_start(c);
	size_t len = change_len(c);
	char byte = 4;

	switch (c->verb) {
	case UNMAP:
		return ret_errno(munmap(from, len));
	case MAP_OVER:
		return mmap(from, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
			    MAP_FIXED, -1, 0) == from ? 0 : -errno;
	case MOVE:
		return change_move(c, MREMAP_FIXED);
	case MOVE_AND_KEEP:
		return change_move(c, MREMAP_FIXED | MREMAP_DONTUNMAP);
	case SHRINK:
		return mremap(c->cell.p, cell_bytes(&c->cell),
			      cell_bytes(&c->cell) - len, 0) ==
		       c->cell.p ? 0 : -errno;
	case DONTNEED:
	case FREE:
	case REMOVE:
	case GUARD:
		return ret_errno(madvise(from, len, advice_of(c->verb)));
	case PROTECT:
		return ret_errno(mprotect(from, len, PROT_READ));
	case TRUNCATE:
		return ret_errno(ftruncate(c->cell.file, c->cut)) ?:
		       ret_errno(ftruncate(c->cell.file, FILE_BYTES));
	case PUNCH:
		return ret_errno(fallocate(c->cell.file, FALLOC_FL_PUNCH_HOLE |
					   FALLOC_FL_KEEP_SIZE,
					   c->first * PAGE, len));
	case WRITE_PRIVATE:
		return change_write(c);
	case FORK:
		return change_fork(c);
	case CLEAR_REFS:
		return change_clear_refs(c);
	case WRITE_FILE:
		return pwrite(c->cell.file, &byte, 1, c->first * PAGE) == 1 ?
		       0 : -errno;
	default:
		return -EINVAL;
	}
}

#endif /* CHANGE_H */
