// SPDX-License-Identifier: GPL-2.0
/*
 * No event is ever lost: memory is changed at random, in every way and by
 * everyone who can, under ranges that are watched in every way, in several
 * processes at once.  See soak.h for how often.
 *
 * Each thread has memory that nobody else changes, so it knows of each change
 * which of its ranges it must invalidate.  When the call that made the change
 * returns, the counter and the slot must have moved, and the event must be
 * there; it may have come to any thread that reads the same file.  Nothing may
 * come of a range once it is not watched any more.
 *
 * Other events may come too: a fork or clear_refs of another thread is one for
 * everybody, and the kernel does things of its own.
 */
#include "noting.h"

/*
 * Within a huge page nothing else is mapped than one cell: splitting it clears
 * all of it.
 */
#define CELLS_FROM	(1UL << 40)

/* How long the thread that sleeps may take. */
#define PATIENCE_MS	20000

/* For each thread: a cell, a child's copy, a pinned one, one on its way. */
#define HUGE_PAGES	(PROCESSES * PLAYERS * CELL_UNITS * 4)
#define NR_HUGE_PAGES	"/proc/sys/vm/nr_hugepages"

/* Files of memory, made before there is anyone who shares them. */
static int files[PROCESSES * PLAYERS][CELLS];
static struct helper foreign[PROCESSES * PLAYERS];

static bool has_guard, has_huge, huge_fit = true;

/*
 * Reads what is left of before, so that the ranges which the change must hit
 * are valid; from here on, whoever hits them makes an event.
 */
static void before(struct player *p, unsigned int cell, unsigned int which,
		   const struct change *c, __u64 *gen)
{
	struct listener *l = listener(p, which);
	struct range *range;
	bool any = false;
	unsigned int n;

	for (n = which; n < RANGES_OF_CELL; n += LISTENERS) {
		range = &p->ranges[cell][n];
		range->due = is_hit(range, c);
		range->taken_back = false;
		any |= range->due;
		if (range->due && range->parm.flags & UMMUNOTIFY_REGISTER_SLOT)
			range->slot = l->slots[range->parm.reserved];
	}
	*gen = *l->d.gen;
	if (!any)
		return;

	pthread_mutex_lock(&l->lock);
	collect(l);
	for (n = which; n < RANGES_OF_CELL; n += LISTENERS) {
		struct account *a = &accounts[range_number(p, cell, n)];

		range = &p->ranges[cell][n];
		range->events = a->events;
		account_forget(a);
		/* It was for one event, which came. */
		if (a->events && is_oneshot(range))
			range->due = false;
	}
	pthread_mutex_unlock(&l->lock);
}

static void missed(struct player *p, const struct change *c,
		   const struct range *range, const struct listener *l,
		   const char *what)
{
	report("thread %u, step %lu: %s of units %u to %u (backing %u) by %s: %s of %#llx to %#llx, flags %#x, %s%s",
	       p->number, p->step, verbs[c->verb].name, c->first,
	       c->first + c->units - 1, c->cell.backing, actor_name(c->actor),
	       what, range->parm.start - addr(c->cell.p),
	       range->parm.end - addr(c->cell.p), range->parm.flags,
	       l->features ? "negotiated" : "as of 2009",
	       l->has_sleeper ? ", a reader sleeps" : "");
}

/*
 * The event must say what was hit, and by what.  One that was for one event may
 * have had that of another thread's fork or clear_refs.
 */
static void check_event(struct player *p, const struct change *c,
			const struct range *range, const struct listener *l,
			const struct account *a)
{
	const __u32 final = KIND(UNMAP) | KIND(CLEAR) | KIND(OTHER);
	const __u32 others = KIND(PROTECTION_PAGE) | KIND(SOFT_DIRTY);
	__u64 from = addr(change_start(c)), to = from + change_len(c);

	if (is_oneshot(range) && a->kinds & others)
		return;
	if (from < range->parm.start)
		from = range->parm.start;
	if (to > range->parm.end)
		to = range->parm.end;
	if (!a->whole && (a->from > from || a->to < to))
		missed(p, c, range, l, "hint too small");
	if (l->features && !(a->kinds & (change_kind(c) | final)))
		missed(p, c, range, l, "kind missing");
}

static bool is_heard(struct listener *l, const struct account *a,
		     unsigned int events, struct account *copy)
{
	pthread_mutex_lock(&l->lock);
	if (!l->has_sleeper)
		collect(l);
	*copy = *a;
	pthread_mutex_unlock(&l->lock);
	return copy->events > events;
}

static bool heard(struct listener *l, const struct account *a,
		  unsigned int events, struct account *copy)
{
	unsigned int i;

	for (i = 0; i < 20; i++) {
		if (is_heard(l, a, events, copy))
			return true;
		if (!l->has_sleeper)
			return false;
		sched_yield();
	}
	return WAIT_FOR(is_heard(l, a, events, copy), PATIENCE_MS);
}

static void after(struct player *p, unsigned int cell, unsigned int which,
		  const struct change *c, __u64 gen)
{
	struct listener *l = listener(p, which);
	struct account copy;
	unsigned int n;

	for (n = which; n < RANGES_OF_CELL; n += LISTENERS) {
		const struct range *range = &p->ranges[cell][n];
		const struct account *a = &accounts[range_number(p, cell, n)];

		if (!range->due)
			continue;
		COUNT(due, 1);
		if (*l->d.gen == gen)
			missed(p, c, range, l, "LOST, the counter stood still");
		if (range->parm.flags & UMMUNOTIFY_REGISTER_SLOT &&
		    l->slots[range->parm.reserved] == range->slot)
			missed(p, c, range, l, "LOST, the slot stood still");
		if (range->taken_back)
			continue;
		if (heard(l, a, range->events, &copy))
			check_event(p, c, range, l, &copy);
		else
			missed(p, c, range, l, "LOST, no event");
	}
}

/* Chooses one of the verbs that there are for this cell, by weight. */
static enum verb random_verb(struct player *p, enum backing backing)
{
	unsigned int verb, total = 0, choice;

	for (verb = 0; verb < NR_VERBS; verb++) {
		if (verbs[verb].backings & backing &&
		    (verb != GUARD || has_guard))
			total += verbs[verb].weight;
	}
	choice = random_below(&p->random, total);
	for (verb = 0; verb < NR_VERBS; verb++) {
		if (!(verbs[verb].backings & backing) ||
		    (verb == GUARD && !has_guard))
			continue;
		if (choice < verbs[verb].weight)
			break;
		choice -= verbs[verb].weight;
	}
	return verb;
}

static struct change random_change(struct player *p, unsigned int cell)
{
	struct change c = { .cell = p->cells[cell], .owner = getpid() };
	struct random *r = &p->random;

	c.verb = random_verb(p, c.cell.backing);
	/* Half of it is done by others, where others can. */
	c.actor = random_one_in(r, 2) ? SELF : SELF << random_below(r, 4);
	if (!(verbs[c.verb].actors & c.actor) ||
	    (c.actor == RING && !p->actors.has_ring))
		c.actor = SELF;

	switch (verbs[c.verb].part) {
	case WHOLE:
		c.units = CELL_UNITS;
		break;
	case ONE_UNIT:
		c.first = random_below(r, CELL_UNITS);
		c.units = 1;
		break;
	case TAIL:
		c.first = 1 + random_below(r, CELL_UNITS - 1);
		c.units = CELL_UNITS - c.first;
		/* The page with the cut stays. */
		c.cut = c.first * PAGE - random_below(r, 2) * 100;
		break;
	case ANY_PART:
		c.first = random_below(r, CELL_UNITS);
		c.units = 1 + random_below(r, CELL_UNITS - c.first);
		break;
	}
	return c;
}

/* Files are mapped and watched by the helper too. */
static bool others_watch(const struct change *c)
{
	return c->verb == TRUNCATE || c->verb == PUNCH || c->verb == REMOVE;
}

/* Between these two everybody must be told. */
static void change_and_check(struct player *p, unsigned int cell,
			     const struct change *c)
{
	bool ask = random_one_in(&p->random, 4) && others_watch(c);
	int pinned = random_one_in(&p->random, 8) ? pin_and_note(p, cell) : -1;
	struct change other = *c;
	__u64 gen[LISTENERS];
	unsigned int n;
	long ret;

	other.verb = PREPARE;
	if (ask && helper_tell(&p->actors.foreign, &other))
		report("the other process is not prepared");
	for (n = 0; n < LISTENERS; n++)
		before(p, cell, n, c, &gen[n]);

	ret = actors_do(&p->actors, c);

	/* Takes back an event that nobody has read yet, or comes too late. */
	if (pinned >= 0 && random_one_in(&p->random, 2))
		verify_noted(p, cell, c);
	for (n = 0; n < LISTENERS; n++)
		after(p, cell, n, c, gen[n]);
	if (pinned >= 0) {
		verify_noted(p, cell, c);
		close(pinned);
	}
	other.verb = CHECK;
	if (ask && helper_tell(&p->actors.foreign, &other))
		report("thread %u, step %lu: %s by %s: LOST in another process",
		       p->number, p->step, verbs[c->verb].name,
		       actor_name(c->actor));
	if (ret)
		report("thread %u, step %lu: %s by %s: error %ld", p->number,
		       p->step, verbs[c->verb].name, actor_name(c->actor), ret);
	COUNT(changes, 1);
}

/* Many small pages are touched in the time of a huge one. */
static unsigned int random_cell(struct player *p)
{
	unsigned int cell = random_below(&p->random, CELLS);

	if (cell_unit(&p->cells[cell]) > PAGE && !random_one_in(&p->random, 4))
		return random_cell(p);
	return cell;
}

/* Two operations: of the ranges, and of the memory. */
static void one_step(struct player *p)
{
	unsigned int cell = random_cell(p);
	unsigned int n = random_below(&p->random, RANGES_OF_CELL);
	struct change c = random_change(p, cell);

	if (listener(p, n)->features && random_one_in(&p->random, 16)) {
		if (random_one_in(&p->random, 2))
			start_watching_all(p, n % LISTENERS);
		else
			stop_watching_all(p, n % LISTENERS);
		COUNT(batches, 1);
	} else if (p->ranges[cell][n].watched)
		stop_watching(p, cell, n);
	else
		start_watching(p, cell, n);
	COUNT(watched, 1);

	if (p->damaged[cell] ? !cell_map(&c.cell) : !cell_fill(&c.cell))
		report("a cell cannot be mapped: error %d", errno);
	p->damaged[cell] = verbs[c.verb].damages;
	change_and_check(p, cell, &c);
}

/* Files are for those that have one: see make_files(). */
static enum backing backing_of(unsigned int cell)
{
	static const enum backing backing[CELLS] = {
		SHARED, ANON, PRIVATE, THP, SHARED, ANON, PRIVATE, HUGE,
	};

	return backing[cell] == HUGE && !has_huge ? ANON : backing[cell];
}

static void *play(void *arg)
{
	/* Each is two operations. */
	unsigned long steps = soak_operations / (2 * PROCESSES * PLAYERS) + 1;
	struct player *p = arg;
	unsigned int cell, n;

	if (!listener_init(&p->own, 0) ||
	    !listener_init(&p->own_negotiated, ALL_FEATURES) ||
	    sibling_start(&p->actors.sibling) < 0) {
		report("a thread has not what it needs: error %d", errno);
		return NULL;
	}
	p->actors.foreign = foreign[p->number];
	p->actors.has_ring = ring_init(&p->actors.ring);
	p->random = random_of(p->number);
	for (cell = 0; cell < CELLS; cell++) {
		p->cells[cell] = (struct cell){
			.p = (char *)CELLS_FROM + ((unsigned long)p->number *
			     CELLS + cell) * CELL_STRIDE,
			.backing = backing_of(cell),
			.file = files[p->number][cell],
		};
		p->damaged[cell] = true;
		for (n = 0; n < RANGES_OF_CELL; n++)
			start_watching(p, cell, n);
	}

	for (; p->step < steps; p->step++) {
		one_step(p);
		if (__atomic_load_n(&tally->lost, __ATOMIC_RELAXED) >=
		    MOST_REPORTS)
			break;
	}

	for (cell = 0; cell < CELLS; cell++) {
		for (n = 0; n < RANGES_OF_CELL; n++) {
			if (p->ranges[cell][n].watched)
				stop_watching(p, cell, n);
		}
	}
	helper_quit(&p->actors.sibling);
	helper_quit(&p->actors.foreign);
	return NULL;
}

/* Nothing is watched: no event comes, and nothing is left to be counted. */
static void must_be_over(struct listener *l)
{
	collect(l);
	EXPECT_QUIET(&l->d);
	if (l->features) {
		EXPECT_EQ(stats_of(&l->d)->regions, 0);
		EXPECT_GE(stats_of(&l->d)->hits, stats_of(&l->d)->delivered);
	}
}

/*
 * The threads of half of the processes take turns on one CPU: that is another
 * way to interleave, and a cheaper one.
 */
static bool stay_on_one_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	return !sched_setaffinity(0, sizeof(set), &set);
}

static void process(unsigned int number)
{
	static struct player players[PLAYERS];
	unsigned int i;

	if (number % 2)
		ASSERT(stay_on_one_cpu());
	ASSERT(listener_init(&shared, 0));
	ASSERT(listener_init(&slept_on, 0));
	ASSERT(listener_init(&shared_negotiated, ALL_FEATURES));
	ASSERT(sleeper_start(&slept_on));
	for (i = 0; i < PLAYERS; i++) {
		players[i].number = number * PLAYERS + i;
		ASSERT_EQ(pthread_create(&players[i].thread, NULL, play,
					 &players[i]), 0);
	}
	for (i = 0; i < PLAYERS; i++)
		pthread_join(players[i].thread, NULL);
	sleeper_stop(&slept_on);
	must_be_over(&shared);
	must_be_over(&slept_on);
	must_be_over(&shared_negotiated);
	for (i = 0; i < PLAYERS; i++) {
		must_be_over(&players[i].own);
		must_be_over(&players[i].own_negotiated);
	}
}

/* The process of another user of the same files, who watches them too. */
static struct dev foreign_dev;
static __u64 foreign_gen;
static char *foreign_map[CELLS];

static unsigned int foreign_cell(const struct change *c)
{
	return (addr(c->cell.p) - CELLS_FROM) / CELL_STRIDE % CELLS;
}

static long foreign_more(const struct change *c)
{
	unsigned int cell = foreign_cell(c);
	struct ummunotify_event ev[CELLS + 1];
	long n;

	if (c->verb == PREPARE) {
		n = ret_errno(madvise(foreign_map[cell], FILE_BYTES,
				      MADV_POPULATE_READ));
		while (drain(foreign_dev.fd) >= 0)
			;
		foreign_gen = *foreign_dev.gen;
		return n;
	}
	n = read_events(foreign_dev.fd, ev, CELLS + 1);
	while (n-- > 0) {
		if (ev[n].type == UMMUNOTIFY_EVENT_TYPE_INVAL &&
		    ev[n].user_cookie_counter == cell)
			return *foreign_dev.gen == foreign_gen ? -ESTALE : 0;
	}
	return -ENOMSG;
}

static void foreign_process(unsigned int number)
{
	unsigned int i;

	ASSERT(dev_open(&foreign_dev));
	for (i = 0; i < CELLS; i++) {
		if (files[number][i] < 0)
			continue;
		foreign_map[i] = mmap(NULL, FILE_BYTES, PROT_READ, MAP_SHARED,
				      files[number][i], 0);
		ASSERT(foreign_map[i] != MAP_FAILED);
		ASSERT_EQ(watch(foreign_dev.fd, foreign_map[i], FILE_BYTES, i),
			  0);
	}
	helper_serve(&foreign[number], foreign_more);
}

static bool make_files(unsigned int number)
{
	unsigned int i;

	for (i = 0; i < CELLS; i++) {
		files[number][i] = -1;
		if (i % 2)
			continue;
		files[number][i] = memfd_create("cell", MFD_CLOEXEC);
		if (files[number][i] < 0 ||
		    ftruncate(files[number][i], FILE_BYTES))
			return false;
	}
	return true;
}

static bool guard_is_known(void)
{
	char *p = area(1);
	bool known = !madvise(p, PAGE, MADV_GUARD_INSTALL);

	munmap(p, PAGE);
	return known;
}

/* A line of /proc/vmstat. */
static unsigned long vmstat(const char *name)
{
	FILE *file = fopen("/proc/vmstat", "re");
	unsigned long value, ret = 0;
	char found[64];

	while (file && fscanf(file, "%63s %lu", found, &value) == 2) {
		if (!strcmp(found, name))
			ret = value;
	}
	if (file)
		fclose(file);
	return ret;
}

/*
 * Returns whether there are enough; as many as there were are left.  They leave
 * the other half of memory to the rest: large ones would take all.
 */
static bool reserve_huge_pages(char *before, size_t len)
{
	char wanted[16], now[16];
	size_t pages = sysconf(_SC_PHYS_PAGES);

	if (!file_get(NR_HUGE_PAGES, before, len))
		return false;
	huge_fit = HUGE_PAGES * huge_page_size() / PAGE <= pages / 2;
	if (!huge_fit) {
		printf("# no huge pages: %d of %zu bytes are too much\n",
		       HUGE_PAGES, huge_page_size());
		return false;
	}
	snprintf(wanted, sizeof(wanted), "%d", atoi(before) + HUGE_PAGES);
	return file_set(NR_HUGE_PAGES, wanted) &&
		file_get(NR_HUGE_PAGES, now, sizeof(now)) &&
		atoi(now) == atoi(wanted);
}

static void summary(unsigned long huge, long seconds)
{
	dprintf(STDOUT_FILENO,
		"# %lu operations, of which %lu changed memory: %lu events had to come, %lu came, %lu lost or wrong; VERIFY of %lu ranges: %lu have their pages, %lu have not, %lu unsure; %lu batches; %lu transparent and %s other huge pages; %ld s\n",
		tally->changes + tally->watched, tally->changes, tally->due,
		tally->heard, tally->lost,
		tally->same + tally->replaced + tally->unsure, tally->same,
		tally->replaced, tally->unsure, tally->batches, huge,
		has_huge ? "many" : "no", seconds);
}

TEST_TIMEOUT(no_event_is_lost, 0)
{
	pid_t pid[PROCESSES], helper[PROCESSES * PLAYERS];
	unsigned long huge = vmstat("thp_fault_alloc");
	long begin = now_ms();
	char huge_before[16];
	struct dev d;
	unsigned int i;

	soak_begin();
	tally = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED |
		     MAP_ANONYMOUS, -1, 0);
	ASSERT(tally != MAP_FAILED);
	ASSERT(dev_open_with(&d, ALL_FEATURES, 1));
	dev_close(&d);
	has_guard = guard_is_known();
	has_huge = reserve_huge_pages(huge_before, sizeof(huge_before));

	for (i = 0; i < PROCESSES * PLAYERS; i++) {
		ASSERT(make_files(i));
		ASSERT(helper_init(&foreign[i]));
		helper[i] = fork();
		if (!helper[i]) {
			foreign_process(i);
			child_exit();
		}
	}
	for (i = 0; i < PROCESSES; i++) {
		pid[i] = fork();
		if (!pid[i]) {
			process(i);
			child_exit();
		}
	}
	for (i = 0; i < PROCESSES; i++)
		EXPECT_CHILD_OK(pid[i]);
	for (i = 0; i < PROCESSES * PLAYERS; i++)
		EXPECT_CHILD_OK(helper[i]);
	file_set(NR_HUGE_PAGES, huge_before);
	huge = vmstat("thp_fault_alloc") - huge;
	EXPECT_EQ(tally->lost, 0);
	/* A machine that is busy elsewhere may make somebody wait too long. */
	EXPECT_GE(tally->same, 100 * tally->unsure);
	if (soak_operations >= 10000) {
		EXPECT_GT(tally->same, 0);
		EXPECT_GT(tally->replaced, 0);
		EXPECT_GT(tally->batches, 0);
		/* Real-time kernels have none. */
		if (!access("/sys/kernel/mm/transparent_hugepage", F_OK))
			EXPECT_GT(huge, 0);
		EXPECT(has_huge || !huge_fit);
	}
	summary(huge, (now_ms() - begin) / 1000);
}
