// SPDX-License-Identifier: GPL-2.0
/*
 * While the generation stands still, the page that was seen is there.
 *
 * Memory is changed all the time, by threads and by another process.  Others
 * do meanwhile what users do: load the generation, REGISTER, touch a page and
 * look which frame it is, which is what a pin would take, and load the
 * generation again.  As long as that has not moved, the frame must be the same.
 *
 * A REGISTER that does not wait for what is in flight fails here: the frame is
 * taken away after it was seen, and nobody is told.
 */
#include "soak.h"
#include "change.h"

#define CHASERS		3
#define PLACES		2	/* one of each backing */
#define PLACE_PAGES	48U

#define LOOKS		16

static struct dev dev;
static const volatile __u64 *slots;
static struct cell places[PLACES];
static int pagemap;
static bool stop;
static unsigned long seen, raced, gone;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

/* 0: no page is there. */
static __u64 frame_of(const char *p)
{
	__u64 entry = 0;

	if (pread(pagemap, &entry, sizeof(entry), addr(p) / PAGE *
		  sizeof(entry)) != sizeof(entry))
		return ALL_ONES;
	return entry >> 63 ? entry & ((1ULL << 55) - 1) : 0;
}

/* A quiet while, so that some looks come to their end. */
static void pause_a_little(struct random *r)
{
	volatile unsigned int n = random_below(r, 4) ? 0 :
				  random_below(r, 100000);

	while (n)
		n--;
}

/*
 * Never is there nothing mapped, so that the others can touch it.  Mostly all
 * pages are there, so that taking them away lasts.
 */
static long change_place(struct cell *c, struct random *r)
{
	unsigned int first = random_below(r, PLACE_PAGES);
	size_t len = (1 + random_below(r, PLACE_PAGES - first)) * PAGE;
	char *p = c->p + first * PAGE;
	int flags = MAP_FIXED | (c->backing == ANON ?
				 MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);

	if (!random_one_in(r, 4) && madvise(p, len, MADV_POPULATE_WRITE))
		return -errno;
	if (random_one_in(r, 4))
		return mmap(p, len, PROT_READ | PROT_WRITE, flags, c->file,
			    first * PAGE) == p ? 0 : -errno;
	return ret_errno(madvise(p, len, c->backing == ANON ? MADV_DONTNEED :
				 MADV_REMOVE));
}

static void *changer(void *arg)
{
	struct cell *c = arg;
	struct random random = random_of(100 + (c - places));

	while (!stopped()) {
		EXPECT_EQ(change_place(c, &random), 0);
		pause_a_little(&random);
	}
	return NULL;
}

/* Holes in the file, until it is killed. */
static void other_process(const struct cell *c)
{
	struct random random = random_of(200);
	unsigned int first;

	for (;;) {
		first = random_below(&random, PLACE_PAGES);
		if (fallocate(c->file, FALLOC_FL_PUNCH_HOLE |
			      FALLOC_FL_KEEP_SIZE, first * PAGE,
			      (PLACE_PAGES - first) * PAGE))
			_exit(HARNESS_FAIL);
		pause_a_little(&random);
	}
}

/* One range from REGISTER to UNREGISTER. */
static void look(struct random *r, unsigned int slot)
{
	struct cell *c = &places[random_below(r, PLACES)];
	char *p = c->p + random_below(r, PLACE_PAGES) * PAGE;
	unsigned int i, looks = 1 + random_below(r, LOOKS);
	__u64 gen = slots[slot], frame, now;

	EXPECT_EQ(watch_flags(dev.fd, p, PAGE, slot, UMMUNOTIFY_REGISTER_SLOT |
			      KIND(PROTECTION_VMA), slot), 0);
	*(volatile char *)p = 1;
	frame = frame_of(p);
	if (!frame || slots[slot] != gen) {
		__atomic_fetch_add(&raced, 1, __ATOMIC_RELAXED);
		looks = 0;
	}
	for (i = 0; i < looks; i++) {
		now = frame_of(p);
		if (slots[slot] != gen) {
			__atomic_fetch_add(&gone, 1, __ATOMIC_RELAXED);
			break;
		}
		if (now == frame)
			continue;
		if (!harness_failed)
			dprintf(STDOUT_FILENO,
				"# seed %llu: LOST: frame %#llx became %#llx (backing %u), the generation stood still\n",
				(unsigned long long)soak_seed,
				(unsigned long long)frame,
				(unsigned long long)now, c->backing);
		__atomic_store_n(&harness_failed, 1, __ATOMIC_RELAXED);
		break;
	}
	EXPECT_EQ(unwatch(dev.fd, slot), 0);
	__atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED);
}

static void *chaser(void *arg)
{
	unsigned int slot = (unsigned long)arg;
	struct random random = random_of(slot);

	while (__atomic_load_n(&seen, __ATOMIC_RELAXED) < soak_operations &&
	       !harness_failed)
		look(&random, slot);
	return NULL;
}

static bool make_places(void)
{
	unsigned int i;

	for (i = 0; i < PLACES; i++) {
		struct cell *c = &places[i];
		int flags = MAP_PRIVATE | MAP_ANONYMOUS;

		c->backing = i ? SHARED : ANON;
		c->file = -1;
		if (i) {
			flags = MAP_SHARED;
			c->file = memfd_create("place", MFD_CLOEXEC);
			if (c->file < 0 ||
			    ftruncate(c->file, PLACE_PAGES * PAGE))
				return false;
		}
		/* Apart from each other, for the reason in million.c. */
		c->p = (char *)(1UL << 40) + i * (4UL << 20);
		if (mmap(c->p, PLACE_PAGES * PAGE, PROT_READ | PROT_WRITE,
			 flags | MAP_FIXED_NOREPLACE, c->file, 0) != c->p)
			return false;
	}
	return true;
}

TEST_TIMEOUT(what_was_seen_is_there, 0)
{
	pthread_t chasers[CHASERS], changers[PLACES];
	unsigned long i;
	pid_t other;

	soak_begin();
	ASSERT(dev_open_with(&dev, FEATURE(GENSLOT) | FEATURE(FILTER), CHASERS));
	slots = map_slots(dev.fd, SLOTS_PER_PAGE);
	ASSERT(slots);
	ASSERT(make_places());
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_GE(pagemap, 0);
	*places[0].p = 1;
	if (!frame_of(places[0].p))
		SKIP("page frames are not for this user");

	other = fork();
	if (!other)
		other_process(&places[1]);
	for (i = 0; i < PLACES; i++)
		ASSERT_EQ(pthread_create(&changers[i], NULL, changer,
					 &places[i]), 0);
	for (i = 0; i < CHASERS; i++)
		ASSERT_EQ(pthread_create(&chasers[i], NULL, chaser,
					 (void *)i), 0);
	for (i = 0; i < CHASERS; i++)
		pthread_join(chasers[i], NULL);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < PLACES; i++)
		pthread_join(changers[i], NULL);
	kill(other, SIGKILL);
	EXPECT_EQ(child_status(other), SIGKILL);
	dprintf(STDOUT_FILENO,
		"# %lu ranges: %lu changed before they could be used, %lu later\n",
		seen, raced, gone);
}
