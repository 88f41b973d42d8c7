// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * How often a change is missed that another thread makes while libfabric
 * registers: it registers first and subscribes then, and nobody watches a new
 * range in between.
 *
 *	fi-window [ROUNDS]
 */
#define _GNU_SOURCE
#include <err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "link.h"
#include "memory.h"

enum { LENGTH = 16 * 4096 };

static struct link *a_link;
static pthread_barrier_t meet;
static char *volatile target;	/* NULL ends the other thread */
static volatile double delay;
static double registered;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static void note_time(void *addr, size_t len)
{
	(void)addr, (void)len;
	registered = now();
}

static void *change(void *unused)
{
	for (;;) {
		double start;

		pthread_barrier_wait(&meet);
		if (!target)
			return unused;
		start = now();
		while (now() - start < delay)
			;
		remap(target, LENGTH);
		pthread_barrier_wait(&meet);
	}
}

/* Of that many rounds, how many end with wrong bytes. */
static int missed(int rounds, bool fresh, double longest)
{
	char *memory = map(LENGTH);
	int wrong = 0;

	link_delivers(a_link, memory, LENGTH);
	for (int n = 0; n < rounds; n++) {
		if (fresh)
			memory = map(LENGTH);
		else
			remap(memory, LENGTH);
		target = memory;
		delay = longest * rand() / RAND_MAX;
		pthread_barrier_wait(&meet);
		link_send(a_link, memory, LENGTH);
		pthread_barrier_wait(&meet);
		wrong += !link_delivers(a_link, memory, LENGTH);
	}
	return wrong;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 2000;
	double start, whole = 0, window = 0;
	pthread_t thread;

	setenv("FI_PROVIDER_PATH", PLUGIN_DIRECTORY, 1);
	a_link = link_open();
	link_after_registering = note_time;
	for (int n = 0; n < 100; n++) {
		char *memory = map(LENGTH);

		start = now();
		link_register(a_link, memory, LENGTH);
		whole += (now() - start) / 100;
		window += (now() - registered) / 100;
	}
	link_after_registering = NULL;
	printf("a registration takes %.1f us, of which at most %.1f us are the window\n", whole,
	       window);
	pthread_barrier_init(&meet, NULL, 2);
	if (pthread_create(&thread, NULL, change, NULL))
		err(1, "no thread");
	printf("a new range changes meanwhile: %d of %d are missed\n",
	       missed(rounds, true, 1.5 * whole), rounds);
	printf("a range that is watched already: %d of %d are missed\n",
	       missed(rounds, false, 1.5 * whole), rounds);
	target = NULL;
	pthread_barrier_wait(&meet);
	pthread_join(thread, NULL);
	return 0;
}
