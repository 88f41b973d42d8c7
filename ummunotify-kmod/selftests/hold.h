/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests with /dev/ummunotify_hold share: invalidations that stay in
 * flight, and threads that start them.
 *
 * Whoever changes memory holds the lock of the memory map while the helper
 * module holds him.  So everything else is made ready before: threads exist,
 * and pages are present.
 */
#ifndef HOLD_H
#define HOLD_H

#include "util.h"

#include <limits.h>
#include <semaphore.h>

#include "../testmod/ummunotify_hold.h"

/* REGISTER waits for a second; whatever took less was no timeout. */
#define IN_TIME_MS	700

/* How often a test that was too slow to be conclusive is tried again. */
#define TRIES		5

/* A thread that waits for something to do. */
struct job {
	pthread_t thread;
	sem_t go;
	long (*run)(struct job *j);
	int fd;
	char *p;
	size_t len;
	__u64 cookie;
	long ret;
	bool done;
};

static inline void *job_loop(void *arg)
{
	struct job *j = arg;

	for (;;) {
		while (sem_wait(&j->go))
			;
		j->ret = j->run(j);
		__atomic_store_n(&j->done, true, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static inline bool jobs_init(struct job *jobs, unsigned int n)
{
	pthread_attr_t attr;
	unsigned int i;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN + 4 * PAGE);
	for (i = 0; i < n; i++) {
		memset(&jobs[i], 0, sizeof(jobs[i]));
		sem_init(&jobs[i].go, 0, 0);
		if (pthread_create(&jobs[i].thread, &attr, job_loop, &jobs[i]))
			return false;
	}
	return true;
}

static inline void job_start(struct job *j, long (*run)(struct job *), char *p,
			     size_t len)
{
	j->run = run;
	j->p = p;
	j->len = len;
	j->ret = -EINPROGRESS;
	__atomic_store_n(&j->done, false, __ATOMIC_SEQ_CST);
	sem_post(&j->go);
}

static inline bool job_done(struct job *j)
{
	return __atomic_load_n(&j->done, __ATOMIC_SEQ_CST);
}

/* Less than the helper module's own limit, so it was a release that counted. */
static inline bool job_wait(struct job *j)
{
	return WAIT_FOR(job_done(j), 8000);
}

static inline long run_dontneed(struct job *j)
{
	return ret_errno(madvise(j->p, j->len, MADV_DONTNEED));
}

static inline long run_munmap(struct job *j)
{
	return ret_errno(munmap(j->p, j->len));
}

static inline long run_mmap_fixed(struct job *j)
{
	return mmap(j->p, j->len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		    MAP_FIXED, -1, 0) == j->p ? 0 : -errno;
}

static inline long run_mprotect(struct job *j)
{
	return ret_errno(mprotect(j->p, j->len, PROT_READ));
}

static inline long run_register(struct job *j)
{
	return watch(j->fd, j->p, j->len, j->cookie);
}

static inline int hold_open(void)
{
	return open("/dev/ummunotify_hold", O_RDONLY | O_CLOEXEC);
}

static inline long hold_range(int fd, unsigned int cmd, const char *p,
			      size_t len)
{
	struct ummunotify_hold_range r = { addr(p), addr(p) + len };

	return ret_errno(ioctl(fd, cmd, &r));
}

static inline long hold(int fd, const char *p, size_t len)
{
	return hold_range(fd, UMMUNOTIFY_HOLD, p, len);
}

static inline long release(int fd, const char *p, size_t len)
{
	return hold_range(fd, UMMUNOTIFY_HOLD_RELEASE, p, len);
}

static inline long held(int fd)
{
	return ret_errno(ioctl(fd, UMMUNOTIFY_HOLD_COUNT));
}

/* The helper module and the device, in this order, and some memory. */
struct stage {
	int hold;
	struct dev d;
	char *p;
};

static inline bool stage_init(struct stage *s, size_t pages, struct job *jobs,
			      unsigned int nr_jobs)
{
	unsigned int i;

	s->hold = hold_open();
	if (s->hold < 0 && errno == ENOENT)
		SKIP("ummunotify_hold is not loaded");
	if (!dev_open(&s->d) || !jobs_init(jobs, nr_jobs))
		return false;
	for (i = 0; i < nr_jobs; i++)
		jobs[i].fd = s->d.fd;
	s->p = area(pages);
	return s->p && settle() && !*s->d.gen;
}

/* Starts a change of memory; true once it is between its start and its end. */
static inline bool start_and_hold(struct stage *s, struct job *j,
				  long (*run)(struct job *), char *p,
				  size_t len)
{
	long before = held(s->hold);

	if (hold(s->hold, p, len))
		return false;
	job_start(j, run, p, len);
	return WAIT_FOR(held(s->hold) == before + 1, 5000);
}

#endif /* HOLD_H */
