/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The cache as a BTL uses it, in Open MPI's framework, on a real device. */
#include <pthread.h>

#include "btl.h"

#define PAGES(n)	((size_t)(n) * 4096)

enum {
	WRITE = MCA_RCACHE_ACCESS_LOCAL_WRITE,
	REMOTE = MCA_RCACHE_ACCESS_REMOTE_READ | MCA_RCACHE_ACCESS_REMOTE_WRITE,
};

static void open_or_exit(struct btl *btl)
{
	if (btl_open(btl, "regcache"))
		return;
	printf("Bail out! there is no rcache component \"regcache\"\n");
	exit(1);
}

static void a_second_lookup_is_a_hit_and_a_put_keeps_it(void)
{
	char *memory = map_at(NULL);
	struct registration *one, *two;
	struct btl btl;

	open_or_exit(&btl);
	one = get(&btl, memory + 10, 100, 0, WRITE);
	two = get(&btl, memory + 200, 5, 0, WRITE);
	EXPECT(one && one == two);
	EXPECT_EQ(one->base.ref_count, 2);
	put(&btl, one);
	EXPECT_EQ(one->base.ref_count, 1);
	put(&btl, two);
	EXPECT_EQ(one->base.ref_count, 0);
	EXPECT_EQ(btl.registered, 1);
	EXPECT(get(&btl, memory, 1, 0, WRITE) == one);
	put(&btl, one);
	EXPECT_EQ(btl.calls, 1);
	btl_close(&btl);
	EXPECT_EQ(btl.registered, 0);
}

static void the_bound_is_the_last_byte(void)
{
	char *memory = map_at(NULL);
	struct registration *page, *again, *more;
	struct btl btl;

	open_or_exit(&btl);
	page = get(&btl, memory + 1, PAGES(1) - 1, 0, WRITE | REMOTE);
	EXPECT((char *)page->base.base == memory);
	EXPECT((char *)page->base.bound == memory + PAGES(1) - 1);
	again = get(&btl, memory, PAGES(1), 0, WRITE | REMOTE);
	EXPECT(again == page);
	more = get(&btl, memory, PAGES(1) + 1, 0, WRITE | REMOTE);
	EXPECT(more != page);
	EXPECT((char *)more->base.bound == memory + PAGES(2) - 1);
	put(&btl, page);
	put(&btl, again);
	put(&btl, more);
	btl_close(&btl);
}

static void whatever_overlaps_is_covered(void)
{
	char *memory = map_at(NULL);
	struct btl btl;

	open_or_exit(&btl);
	for (size_t from = 0; from < 4; from++) {
		for (size_t to = from; to < 4; to++) {
			char *addr = memory + PAGES(from) + 7;
			size_t size = PAGES(to - from) + 9;
			struct registration *reg = get(&btl, addr, size, 0, WRITE);

			EXPECT((char *)reg->base.base <= addr);
			EXPECT((char *)reg->base.bound >= addr + size - 1);
			EXPECT(reg->mr->addr == reg->base.base);
			EXPECT_EQ(reg->mr->length,
				  reg->base.bound - reg->base.base + 1);
			put(&btl, reg);
		}
	}
	btl_close(&btl);
	EXPECT_EQ(btl.registered, 0);
}

static void a_bypass_is_its_owners_alone(void)
{
	static const uint32_t flags[] = {
		MCA_RCACHE_FLAGS_CACHE_BYPASS,
		MCA_RCACHE_FLAGS_PERSIST,
		MCA_RCACHE_FLAGS_SO_MEM,
		MCA_RCACHE_FLAGS_CACHE_BYPASS | MCA_RCACHE_FLAGS_CUDA_REGISTER_MEM,
	};
	char *memory = map_at(NULL);
	struct registration *cached, *own, *another;
	struct btl btl;

	open_or_exit(&btl);
	cached = get(&btl, memory, LENGTH, 0, WRITE);
	for (size_t n = 0; n < 4; n++) {
		own = get(&btl, memory + 5, 5, flags[n], WRITE);
		another = get(&btl, memory + 5, 5, flags[n], WRITE);
		EXPECT(own && another && own != another && own != cached);
		EXPECT_EQ(own->base.flags, flags[n]);
		EXPECT((char *)own->base.base == memory);
		EXPECT((char *)own->base.bound == memory + PAGES(1) - 1);
		EXPECT_EQ(btl.registered, 3);
		put(&btl, own);
		put(&btl, another);
		EXPECT_EQ(btl.registered, 1);
	}
	put(&btl, cached);
	EXPECT(get(&btl, memory, LENGTH, 0, WRITE) == cached);
	put(&btl, cached);
	btl_close(&btl);
}

static void bad_requests_are_errors(void)
{
	mca_rcache_base_registration_t *reg;
	char *memory = map_at(NULL);
	struct btl btl;

	open_or_exit(&btl);
	EXPECT_EQ(btl.rcache->rcache_register(btl.rcache, memory, 0, 0, WRITE, &reg),
		  OPAL_ERR_BAD_PARAM);
	EXPECT_EQ(btl.rcache->rcache_register(btl.rcache, memory, 1,
					      MCA_RCACHE_FLAGS_INVALID, WRITE, &reg),
		  OPAL_ERR_BAD_PARAM);
	EXPECT_EQ(btl.rcache->rcache_register(btl.rcache, memory, 1, 0, 0x100, &reg),
		  OPAL_ERR_BAD_PARAM);
	EXPECT_EQ(btl.rcache->rcache_register(btl.rcache, memory, 1,
					      MCA_RCACHE_FLAGS_CUDA_GPU_MEM, WRITE, &reg),
		  OPAL_ERR_NOT_SUPPORTED);
	EXPECT(reg == NULL);
	EXPECT_EQ(btl.calls, 0);
	reg = (void *)-1;
	EXPECT_EQ(btl.rcache->rcache_find(btl.rcache, memory, 1, &reg), OPAL_SUCCESS);
	EXPECT(reg == NULL);
	btl_close(&btl);
}

static void access_is_never_less_than_asked_for(void)
{
	static const int32_t asked[] = {
		0, MCA_RCACHE_ACCESS_REMOTE_READ, WRITE,
		MCA_RCACHE_ACCESS_REMOTE_WRITE, WRITE | REMOTE,
		MCA_RCACHE_ACCESS_REMOTE_ATOMIC, MCA_RCACHE_ACCESS_ANY,
	};
	char *memory = map_at(NULL);
	struct registration *held[7];
	struct btl btl;

	/* A pin for reading may replace the page of zeroes: newer kernels tell of that. */
	memset(memory, 1, LENGTH);
	open_or_exit(&btl);
	for (size_t n = 0; n < 7; n++) {
		held[n] = get(&btl, memory, LENGTH, 0, asked[n]);
		EXPECT(held[n] && (held[n]->base.access_flags & asked[n]) == asked[n]);
	}
	for (size_t n = 0; n < 7; n++) {
		struct registration *again = get(&btl, memory, LENGTH, 0, asked[n]);

		EXPECT((again->base.access_flags & asked[n]) == asked[n]);
		put(&btl, again);
		put(&btl, held[n]);
	}
	EXPECT(btl.calls <= 7);
	btl_close(&btl);
	EXPECT_EQ(btl.registered, 0);
}

static void a_failure_is_told_and_forgotten(void)
{
	mca_rcache_base_registration_t *reg = (void *)-1;
	char *memory = map_at(NULL);
	struct registration *good;
	struct btl btl;

	open_or_exit(&btl);
	btl.fail = OPAL_ERROR;
	btl.fail_times = 1;
	EXPECT_EQ(btl.rcache->rcache_register(btl.rcache, memory, 1, 0, WRITE, &reg),
		  OPAL_ERROR);
	EXPECT(reg == NULL);
	btl.fail_times = 1;
	EXPECT_EQ(btl.rcache->rcache_register(btl.rcache, memory, 1,
					      MCA_RCACHE_FLAGS_CACHE_BYPASS, WRITE, &reg),
		  OPAL_ERROR);
	EXPECT(reg == NULL);
	/* There is nothing that could make room. */
	btl.fail = OPAL_ERR_OUT_OF_RESOURCE;
	btl.fail_times = 1000;
	EXPECT_EQ(btl.rcache->rcache_register(btl.rcache, memory, 1, 0, WRITE, &reg),
		  OPAL_ERR_OUT_OF_RESOURCE);
	EXPECT(reg == NULL);
	EXPECT_EQ(btl.rcache->rcache_register(btl.rcache, memory, 1,
					      MCA_RCACHE_FLAGS_CACHE_BYPASS, WRITE, &reg),
		  OPAL_ERR_OUT_OF_RESOURCE);
	btl.fail_times = 0;
	good = get(&btl, memory, 1, 0, WRITE);
	EXPECT(good != NULL);
	put(&btl, good);
	btl_close(&btl);
	EXPECT_EQ(btl.registered, 0);
}

static void what_is_idle_makes_room(void)
{
	char *idle = map_at(NULL), *used = map_at(NULL), *wanted = map_at(NULL);
	struct registration *kept, *reg;
	struct btl btl;

	open_or_exit(&btl);
	for (uint32_t flags = 0; flags < 2; flags++) {
		kept = get(&btl, used, LENGTH, 0, WRITE);
		put(&btl, get(&btl, idle, LENGTH, 0, WRITE));
		EXPECT_EQ(btl.registered, 2);
		btl.fail = OPAL_ERR_OUT_OF_RESOURCE;
		btl.fail_times = 1;
		reg = get(&btl, wanted, LENGTH, flags, WRITE);
		EXPECT(reg != NULL);
		EXPECT_EQ(btl.registered, 2);
		EXPECT_EQ(kept->live, LIVE);
		put(&btl, reg);
		put(&btl, kept);
		while (btl.rcache->rcache_evict(btl.rcache))
			;
		EXPECT_EQ(btl.registered, 0);
	}
	reg = get(&btl, used, LENGTH, 0, WRITE);
	EXPECT(!btl.rcache->rcache_evict(btl.rcache));
	EXPECT_EQ(reg->live, LIVE);
	put(&btl, reg);
	btl_close(&btl);
}

static void limits_of_the_environment_hold(void)
{
	char *memory = map_at(NULL);
	struct btl btl;

	setenv("REGCACHE_MAX_REGIONS", "2", 1);
	open_or_exit(&btl);
	unsetenv("REGCACHE_MAX_REGIONS");
	for (int round = 0; round < 3; round++) {
		char *at = round % 2 ? memory : map_at(NULL);

		for (int n = 0; n < 4; n++) {
			/* Apart, so that they do not merge. */
			struct registration *reg = get(&btl, n % 2 ? at : map_at(NULL),
						       1, 0, WRITE);

			EXPECT(reg && reg->live == LIVE);
			put(&btl, reg);
			EXPECT(btl.registered <= 2);
		}
	}
	EXPECT(btl.calls > 2);
	btl_close(&btl);
	EXPECT_EQ(btl.registered, 0);
}

static void messages_arrive_whatever_is_mapped(void)
{
	char *from = map_at(NULL), *to = map_at(NULL);
	int calls;
	struct btl btl;

	open_or_exit(&btl);
	for (int n = 0; n < 20; n++) {
		EXPECT(delivers(&btl, from, to));
		calls = btl.calls;
		EXPECT(delivers(&btl, from, to));
		EXPECT_EQ(btl.calls, calls);
		remap(n % 2 ? from : to);
	}
	EXPECT(btl.registered <= 2);
	btl_close(&btl);
	EXPECT_EQ(btl.registered, 0);
}

static void what_went_stale_in_use_ends_at_its_last_put(void)
{
	char *memory = map_at(NULL), *other = map_at(NULL);
	struct registration *old, *same, *new;
	struct btl btl;

	open_or_exit(&btl);
	old = get(&btl, memory, LENGTH, 0, WRITE);
	same = get(&btl, memory, LENGTH, 0, WRITE);
	EXPECT(old == same);
	remap(memory);
	new = get(&btl, memory, LENGTH, 0, WRITE);
	EXPECT(new != old);
	EXPECT_EQ(old->live, LIVE);
	EXPECT_EQ(btl.registered, 2);
	put(&btl, old);
	EXPECT_EQ(old->live, LIVE);
	EXPECT_EQ(btl.registered, 2);
	put(&btl, same);
	EXPECT_EQ(btl.registered, 1);
	EXPECT_EQ(new->live, LIVE);
	put(&btl, new);
	EXPECT(delivers(&btl, other, memory));
	btl_close(&btl);
	EXPECT_EQ(btl.registered, 0);
}

/* Open MPI's hooks see this one, and would abort the job. */
static void memory_may_be_unmapped_while_in_use(void)
{
	char *memory = map_at(NULL);
	struct registration *reg;
	struct btl btl;

	open_or_exit(&btl);
	reg = get(&btl, memory, LENGTH, 0, WRITE);
	EXPECT_EQ(munmap(memory, LENGTH), 0);
	EXPECT_EQ(reg->live, LIVE);
	put(&btl, reg);
	btl_close(&btl);
	EXPECT_EQ(btl.registered, 0);
}

static void what_does_not_deregister_is_tried_again(void)
{
	char *memory = map_at(NULL);
	struct btl btl;

	open_or_exit(&btl);
	put(&btl, get(&btl, memory, LENGTH, 0, WRITE));
	btl.busy = 1000;
	EXPECT(!btl.rcache->rcache_evict(btl.rcache));
	EXPECT(btl.busy < 1000);
	EXPECT_EQ(btl.registered, 1);
	btl.busy = 0;
	EXPECT(btl.rcache->rcache_evict(btl.rcache));
	EXPECT_EQ(btl.registered, 0);
	btl_close(&btl);
}

static void the_end_deregisters_what_is_in_use(void)
{
	char *memory = map_at(NULL), *other = map_at(NULL);
	struct btl btl;

	open_or_exit(&btl);
	get(&btl, memory, LENGTH, 0, WRITE);
	get(&btl, memory, LENGTH, 0, WRITE);
	put(&btl, get(&btl, other, LENGTH, 0, WRITE));
	get(&btl, other, PAGES(1), 0, WRITE);
	EXPECT(btl.registered >= 2);
	btl_close(&btl);
	EXPECT_EQ(btl.registered, 0);
}

static void nothing_is_kept_if_nothing_is_to_be_left_pinned(void)
{
	char *memory = map_at(NULL), *other = map_at(NULL);
	int left = opal_leave_pinned;
	struct btl btl;

	opal_leave_pinned = 0;
	open_or_exit(&btl);
	EXPECT(delivers(&btl, memory, other));
	EXPECT_EQ(btl.registered, 0);
	EXPECT_EQ(btl.calls, 2);
	remap(other);
	EXPECT(delivers(&btl, memory, other));
	EXPECT(!btl.rcache->rcache_evict(btl.rcache));
	btl_close(&btl);
	opal_leave_pinned = left;
}

static int plain_register(void *context, void *base, size_t size,
			  mca_rcache_base_registration_t *reg)
{
	(void)context;
	return reg->base == base && reg->bound - reg->base + 1 == (ptrdiff_t)size ?
		OPAL_SUCCESS : OPAL_ERROR;
}

static int plain_deregister(void *context, mca_rcache_base_registration_t *reg)
{
	(void)reg;
	++*(int *)context;
	return OPAL_SUCCESS;
}

static void a_btl_may_add_nothing_to_a_registration(void)
{
	int deregistered = 0;
	mca_rcache_base_resources_t resources = {
		.cache_name = "plain",
		.reg_data = &deregistered,
		.register_mem = plain_register,
		.deregister_mem = plain_deregister,
	};
	mca_rcache_base_module_t *rcache =
		mca_rcache_base_module_create("regcache", NULL, &resources);
	mca_rcache_base_registration_t *one = NULL, *two = NULL;
	char *memory = map_at(NULL);

	EXPECT(rcache != NULL);
	EXPECT_EQ(rcache->rcache_register(rcache, memory, 1, 0, WRITE, &one), OPAL_SUCCESS);
	EXPECT_EQ(rcache->rcache_register(rcache, memory, 1, 0, WRITE, &two), OPAL_SUCCESS);
	EXPECT(one && one == two);
	EXPECT_EQ(one->ref_count, 2);
	EXPECT((char *)one->base == memory);
	EXPECT_EQ(rcache->rcache_deregister(rcache, two), OPAL_SUCCESS);
	EXPECT_EQ(rcache->rcache_deregister(rcache, one), OPAL_SUCCESS);
	EXPECT_EQ(deregistered, 0);
	EXPECT_EQ(mca_rcache_base_module_destroy(rcache), OPAL_SUCCESS);
	EXPECT_EQ(deregistered, 1);
}

enum { THREADS = 4, ROUNDS = 3000, BUFFERS = 3 };
static struct btl shared;
static char *buffers[BUFFERS];

static void *use_and_remap(void *seed)
{
	uint32_t random = (uint32_t)(uintptr_t)seed;

	for (int n = 0; n < ROUNDS; n++) {
		struct registration *held[3];
		char *buffer;

		random = random * 1664525 + 1013904223;
		buffer = buffers[(random >> 16) % BUFFERS];
		if (random >> 27 == 0)
			mmap(buffer, LENGTH, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		for (int k = 0; k < 3; k++)
			held[k] = get(&shared, buffer + PAGES(k), PAGES(1), 0, WRITE);
		for (int k = 0; k < 3; k++) {
			if (!held[k])
				return "a lookup failed";
			if (held[k]->live != LIVE || held[k]->base.ref_count < 1)
				return "what is in use was deregistered";
			put(&shared, held[k]);
		}
	}
	return NULL;
}

static void threads_do_not_end_each_others(void)
{
	pthread_t threads[THREADS];
	void *result;

	open_or_exit(&shared);
	for (int n = 0; n < BUFFERS; n++)
		buffers[n] = map_at(NULL);
	for (uintptr_t n = 0; n < THREADS; n++)
		EXPECT_EQ(pthread_create(&threads[n], NULL, use_and_remap,
					 (void *)(n + 1)), 0);
	for (int n = 0; n < THREADS; n++) {
		EXPECT_EQ(pthread_join(threads[n], &result), 0);
		if (result) {
			printf("# %s\n", (char *)result);
			check_failed = 1;
		}
	}
	/* Nobody uses anything: all of it can go. */
	while (shared.rcache->rcache_evict(shared.rcache))
		;
	EXPECT_EQ(shared.registered, 0);
	btl_close(&shared);
}

static void *use_one(void *addr)
{
	for (int n = 0; n < 100000; n++) {
		struct registration *one = get(&shared, addr, 1, 0, WRITE);
		struct registration *two = get(&shared, addr, 1, 0, WRITE);

		if (!one || one != two)
			return "a lookup did not hit";
		put(&shared, two);
		put(&shared, one);
	}
	return NULL;
}

static void the_users_of_one_are_counted(void)
{
	char *memory = map_at(NULL);
	struct registration *reg;
	pthread_t threads[THREADS];
	void *result;

	open_or_exit(&shared);
	reg = get(&shared, memory, 1, 0, WRITE);
	put(&shared, reg);
	for (int n = 0; n < THREADS; n++)
		EXPECT_EQ(pthread_create(&threads[n], NULL, use_one, memory), 0);
	for (int n = 0; n < THREADS; n++) {
		EXPECT_EQ(pthread_join(threads[n], &result), 0);
		EXPECT(result == NULL);
	}
	EXPECT_EQ(shared.calls, 1);
	EXPECT_EQ(reg->base.ref_count, 0);
	EXPECT(shared.rcache->rcache_evict(shared.rcache));
	EXPECT_EQ(shared.registered, 0);
	btl_close(&shared);
}

int main(int argc, char **argv)
{
	(void)argc;
	PLAN(18);
	if (!start(argv[0], "")) {
		printf("Bail out! no RDMA device that works, or no Open MPI\n");
		return 1;
	}
	RUN(a_second_lookup_is_a_hit_and_a_put_keeps_it);
	RUN(the_bound_is_the_last_byte);
	RUN(whatever_overlaps_is_covered);
	RUN(a_bypass_is_its_owners_alone);
	RUN(bad_requests_are_errors);
	RUN(access_is_never_less_than_asked_for);
	RUN(a_failure_is_told_and_forgotten);
	RUN(what_is_idle_makes_room);
	RUN(limits_of_the_environment_hold);
	RUN(messages_arrive_whatever_is_mapped);
	RUN(what_went_stale_in_use_ends_at_its_last_put);
	RUN(memory_may_be_unmapped_while_in_use);
	RUN(what_does_not_deregister_is_tried_again);
	RUN(the_end_deregisters_what_is_in_use);
	RUN(nothing_is_kept_if_nothing_is_to_be_left_pinned);
	RUN(a_btl_may_add_nothing_to_a_registration);
	RUN(threads_do_not_end_each_others);
	RUN(the_users_of_one_are_counted);
	DONE();
}
