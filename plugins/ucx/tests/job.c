/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A program that uses UCX and knows nothing of the plug-in: what crossed an
 * RDMA device is compared with what the processor wrote.
 *
 *	job way NAME ROUNDS	one line: NAME CORRUPTED of ROUNDS
 *	job ways ROUNDS		such a line for each way
 *	job storm ROUNDS	one line: storm CORRUPTED of ROUNDS
 *	job pinning		one line: pinning CORRUPTED of 4; memory changes as soon
 *				as it is pinned, once
 *	job lost		one line: lost CORRUPTED of 4; the program closes files
 *				that it did not open, and their numbers become those
 *				of a socket on which nothing arrives
 *	job between ROUNDS	one line: between CORRUPTED of ROUNDS; another cache
 *				hears of a change while one is looked into
 *	job table ROUNDS	one line: table WRONG of ROUNDS; the program has an
 *				index of UCX's for its own purpose
 *	job reuse ROUNDS	one line: reuse REGISTRATIONS of ROUNDS
 *	job threads ROUNDS	one line: threads CORRUPTED of ROUNDS
 *	job fork		one line: fork CORRUPTED of 10, the child says 0
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucs/datastruct/pgtable.h>
#include <unistd.h>

#include "transfer.h"
#include "ways.h"

#define LARGEST	65536

/* Different in each message and at each place. */
static void fill(char *data, size_t size, unsigned long message)
{
	for (size_t at = 0; at < size; at += sizeof(message)) {
		unsigned long word = message * 0x9e3779b97f4a7c15ul + at;

		memcpy(data + at, &word, sizeof(word));
	}
}

/* Whether a message arrived as something else than what was written. */
static int is_corrupted(struct link *link, struct buffer *buffer, char *to,
			unsigned long message)
{
	fill(buffer->data, buffer->size, message);
	memset(to, 0xff, buffer->size);
	transfer(link, buffer->data, to, buffer->size);
	return memcmp(buffer->data, to, buffer->size) != 0;
}

/* How many messages were corrupted; -1 if this kernel does not have the way. */
static long change_and_send(struct link *link, const struct way *way,
				     unsigned long rounds)
{
	char *to = aligned_alloc(4096, LARGEST);
	struct buffer buffer;
	long corrupted = 0;

	if (!to || way->make(&buffer))
		err(3, "%s: no buffer", way->name);
	if (is_corrupted(link, &buffer, to, 0))
		errx(3, "%s: corrupted before anything was changed", way->name);
	for (unsigned long round = 1; round <= rounds; round++) {
		if (way->change(&buffer)) {
			if (errno != EOPNOTSUPP)
				err(3, "%s", way->name);
			corrupted = -1;
			break;
		}
		corrupted += is_corrupted(link, &buffer, to, round);
	}
	free(to);
	return corrupted;
}

static void report(struct link *link, const struct way *way, unsigned long rounds)
{
	long corrupted = change_and_send(link, way, rounds);

	if (corrupted < 0)
		printf("%s is not possible here\n", way->name);
	else
		printf("%s %ld of %lu\n", way->name, corrupted, rounds);
}

static int run_way(const char *name, unsigned long rounds)
{
	const struct way *way = way_find(name);
	struct link link;

	if (!way)
		errx(2, "no way is called %s", name);
	transfer_link(&link, transfer_context());
	report(&link, way, rounds);
	return 0;
}

static int run_ways(unsigned long rounds)
{
	struct link link;

	transfer_link(&link, transfer_context());
	for (size_t n = 0; n < ways_count; n++)
		report(&link, &ways[n], rounds);
	return 0;
}

/* The same by one RDMA write, which takes one look-up. */
static int is_put_corrupted(struct link *link, struct buffer *buffer,
			    unsigned long message)
{
	fill(buffer->data, TRANSFER_WINDOW, message);
	if (transfer_put(link, buffer->data, TRANSFER_WINDOW) != UCS_OK)
		errx(3, "a write failed");
	return memcmp(buffer->data, link->window, TRANSFER_WINDOW) != 0;
}

/* Messages after each of which the memory changes. */
static unsigned long put_and_change(struct link *link, struct buffer *buffer,
				    unsigned long first, unsigned long messages)
{
	const struct way *way = way_find("raw-munmap");
	unsigned long corrupted = 0;

	for (unsigned long message = 0; message < messages; message++) {
		corrupted += is_put_corrupted(link, buffer, first + message);
		if (way->change(buffer))
			err(3, "%s", way->name);
	}
	return corrupted;
}

static void link_and_buffer(struct link *link, struct buffer *buffer)
{
	transfer_link(link, transfer_context());
	if (way_find("raw-munmap")->make(buffer))
		err(3, "no buffer");
}

static int storm(unsigned long rounds)
{
	struct buffer buffer;
	struct link link;

	link_and_buffer(&link, &buffer);
	printf("storm %lu of %lu\n", put_and_change(&link, &buffer, 0, rounds),
	       rounds);
	return 0;
}

/* A cache of another context's, with something to look up. */
static struct link other;
static struct buffer others;

static void hear_elsewhere(void)
{
	transfer_looking_up = NULL;
	if (is_put_corrupted(&other, &others, 0))
		errx(3, "between: corrupted elsewhere");
}

static int between(unsigned long rounds)
{
	const struct way *way = way_find("raw-munmap");
	unsigned long corrupted = 0;
	struct buffer buffer;
	struct link link;

	link_and_buffer(&link, &buffer);
	link_and_buffer(&other, &others);
	hear_elsewhere();
	for (unsigned long round = 0; round < rounds; round++) {
		/* Until nothing waits in this cache's queue. */
		for (unsigned long message = 0; message < 4; message++)
			if (is_put_corrupted(&link, &buffer, message))
				errx(3, "between: corrupted before the change");
		if (way->change(&buffer))
			err(3, "%s", way->name);
		transfer_looking_up = hear_elsewhere;
		corrupted += is_put_corrupted(&link, &buffer, round + 4);
		if (transfer_looking_up)
			errx(3, "between: no cache was looked into");
	}
	printf("between %lu of %lu\n", corrupted, rounds);
	return 0;
}

static ucs_pgt_dir_t *make_directory(const ucs_pgtable_t *table)
{
	(void)table;
	return aligned_alloc(UCS_PGT_ENTRY_MIN_ALIGN, sizeof(ucs_pgt_dir_t));
}

static void free_directory(const ucs_pgtable_t *table, ucs_pgt_dir_t *directory)
{
	(void)table;
	free(directory);
}

static int table(unsigned long rounds)
{
	ucs_pgt_region_t region = { 1 << 20, 2 << 20 };
	unsigned long wrong = 0;
	struct buffer buffer;
	ucs_pgtable_t own;
	struct link link;

	link_and_buffer(&link, &buffer);
	if (ucs_pgtable_init(&own, make_directory, free_directory) != UCS_OK ||
	    ucs_pgtable_insert(&own, &region) != UCS_OK)
		errx(3, "table: no table");
	for (unsigned long round = 0; round < rounds; round++) {
		wrong += put_and_change(&link, &buffer, round, 1);
		wrong += ucs_pgtable_lookup(&own, region.start) != &region;
	}
	printf("table %lu of %lu\n", wrong, rounds);
	return 0;
}

static int reuse(unsigned long rounds)
{
	char *from = aligned_alloc(4096, LARGEST), *to = aligned_alloc(4096, LARGEST);
	struct buffer buffer = { .data = from, .size = LARGEST };
	unsigned long before;
	struct link link;

	transfer_link(&link, transfer_context());
	/* What is fresh may change once while it is pinned. */
	for (unsigned long round = 0; round < 4; round++)
		if (is_corrupted(&link, &buffer, to, round))
			errx(3, "reuse: corrupted");
	before = transfer_registrations();
	for (unsigned long round = 0; round < rounds; round++)
		if (is_corrupted(&link, &buffer, to, round))
			errx(3, "reuse: corrupted");
	printf("reuse %lu of %lu\n", transfer_registrations() - before, rounds);
	return 0;
}

static struct buffer changing;

static void change_once(void *addr, size_t length)
{
	uintptr_t start = (uintptr_t)addr, data = (uintptr_t)changing.data;

	if (data < start || data >= start + length)
		return;
	transfer_pinned = NULL;
	if (way_find("raw-munmap")->change(&changing))
		err(3, "a change while pinning");
}

static int pinning(void)
{
	unsigned long corrupted = 0;
	struct link link;

	link_and_buffer(&link, &changing);
	fill(changing.data, TRANSFER_WINDOW, 0);
	transfer_pinned = change_once;
	/* This one may arrive as anything.  Nobody reads what is mapped now: the
	 * first write after that would be news of its own. */
	if (transfer_put(&link, changing.data, TRANSFER_WINDOW) != UCS_OK)
		errx(3, "a write failed");
	if (transfer_pinned)
		errx(3, "the buffer was not registered");
	for (unsigned long message = 1; message <= 4; message++)
		corrupted += is_put_corrupted(&link, &changing, message);
	printf("pinning %lu of 4\n", corrupted);
	return 0;
}

/* As programs do that become daemons. */
static int lost(void)
{
	char path[64], target[64];
	struct buffer buffer;
	struct link link;
	int closed = 0, quiet = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	ssize_t length;

	if (quiet < 0)
		err(3, "socket");
	link_and_buffer(&link, &buffer);
	if (put_and_change(&link, &buffer, 0, 1))
		errx(3, "corrupted before anything was closed");
	for (int file = 3; file < 256; file++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
		length = readlink(path, target, sizeof(target) - 1);
		target[length < 0 ? 0 : length] = '\0';
		if (!strcmp(target, "/dev/ummunotify"))
			closed += dup2(quiet, file) == file;
	}
	if (!closed)
		errx(3, "nobody has the device open");
	printf("lost %lu of 4\n", put_and_change(&link, &buffer, 1, 4));
	return 0;
}

static ucp_context_h shared;
static unsigned long each_rounds;
static long all_corrupted;

static void *one_of_many(void *context)
{
	struct link link;

	transfer_link(&link, shared);
	__atomic_add_fetch(&all_corrupted,
			   change_and_send(&link, context, each_rounds),
			   __ATOMIC_RELAXED);
	return NULL;
}

static int threads(unsigned long rounds)
{
	static const char *const names[] = { "raw-munmap", "punch-hole",
					     "dontneed-locked", "ftruncate" };
	enum { THREADS = sizeof(names) / sizeof(names[0]) };
	pthread_t all[THREADS];

	shared = transfer_context();
	each_rounds = rounds / THREADS;
	for (int n = 0; n < THREADS; n++)
		if (pthread_create(&all[n], NULL, one_of_many,
				   (void *)way_find(names[n])))
			errx(3, "pthread_create");
	for (int n = 0; n < THREADS; n++)
		pthread_join(all[n], NULL);
	printf("threads %ld of %lu\n", all_corrupted, each_rounds * THREADS);
	return 0;
}

static ucs_status_t register_in(ucp_context_h context, struct buffer *buffer)
{
	ucp_mem_map_params_t params = {
		.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
			      UCP_MEM_MAP_PARAM_FIELD_LENGTH,
		.address = buffer->data,
		.length = buffer->size,
	};
	ucp_mem_h memory;

	return ucp_mem_map(context, &params, &memory);
}

/*
 * A child's answer: 0 if its parent's context refuses, and its own serves.  That
 * it forks makes UCX deregister all that it believes to have.
 */
static int in_child(struct link *parents, struct buffer *buffer)
{
	struct buffer own;
	pid_t child;

	if (transfer_put(parents, buffer->data, TRANSFER_WINDOW) == UCS_OK)
		return 1;
	child = fork();
	if (child == 0)
		_exit(0);
	if (child < 0 || waitpid(child, NULL, 0) != child)
		return 2;
	if (way_find("raw-munmap")->make(&own) ||
	    register_in(transfer_context(), &own) != UCS_OK)
		return 3;
	return 0;
}

static bool is_alarmed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
}

static int with_fork(void)
{
	unsigned long corrupted = 0;
	struct buffer buffer;
	struct link link;
	int status = SIGALRM;
	pid_t child;

	link_and_buffer(&link, &buffer);
	for (unsigned long message = 0; message < 4; message++)
		corrupted += is_put_corrupted(&link, &buffer, message);
	fflush(stdout);
	/* Without UCX's handlers, which would first empty the cache.  A child waits
	 * for ever for a lock that another thread of UCX's had meanwhile: once more. */
	for (int again = 0; again < 3 && is_alarmed(status); again++) {
		child = _Fork();
		if (child == 0) {
			alarm(20);
			_exit(in_child(&link, &buffer));
		}
		waitpid(child, &status, 0);
	}
	/* The parent's registrations are as good as before, and it hears what
	 * happens to them. */
	for (unsigned long message = 4; message < 8; message++)
		corrupted += is_put_corrupted(&link, &buffer, message);
	corrupted += put_and_change(&link, &buffer, 8, 2);
	printf("fork %lu of 10, the child says %d\n", corrupted,
	       WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 4 && !strcmp(what, "way"))
		return run_way(argv[2], strtoul(argv[3], NULL, 0));
	if (argc == 3 && !strcmp(what, "ways"))
		return run_ways(strtoul(argv[2], NULL, 0));
	if (argc == 3 && !strcmp(what, "storm"))
		return storm(strtoul(argv[2], NULL, 0));
	if (argc == 3 && !strcmp(what, "between"))
		return between(strtoul(argv[2], NULL, 0));
	if (argc == 3 && !strcmp(what, "table"))
		return table(strtoul(argv[2], NULL, 0));
	if (argc == 3 && !strcmp(what, "reuse"))
		return reuse(strtoul(argv[2], NULL, 0));
	if (argc == 3 && !strcmp(what, "threads"))
		return threads(strtoul(argv[2], NULL, 0));
	if (argc == 2 && !strcmp(what, "pinning"))
		return pinning();
	if (argc == 2 && !strcmp(what, "lost"))
		return lost();
	if (argc == 2 && !strcmp(what, "fork"))
		return with_fork();
	errx(2, "usage: job way NAME ROUNDS | ways ROUNDS | storm ROUNDS | pinning | lost | "
	     "between ROUNDS | table ROUNDS | reuse ROUNDS | threads ROUNDS | fork");
}
