// SPDX-License-Identifier: GPL-2.0
/*
 * Feeds programs to the core: from libFuzzer, or random ones for so many
 * seconds:
 *
 *	fuzz_core [seconds] [seed]
 *
 * A program that fails is printed, made as short as dropping calls can make
 * it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fuzz.h"

#define MAX_OPS		400

static jmp_buf failed;
static char why[512];
static struct world world;

void differs(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	longjmp(failed, 1);
}

void shim_broken(const char *what)
{
	differs("%s", what);
}

/* Runs @n calls.  Returns how many went well: @n if there is no difference. */
static size_t run(const u8 *program, size_t n)
{
	static size_t i;

	world_init(&world);
	if (!setjmp(failed)) {
		for (i = 0; i < n; i++)
			do_op(&world, program + i * OP_BYTES);
	}
	world_free(&world);
	return i;
}

#ifdef LIBFUZZER

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	size_t i, n = size / OP_BYTES, good = run(data, n);

	if (good == n)
		return 0;
	fprintf(stderr, "fuzz_core: %s, after:\n", why);
	for (i = 0; i <= good; i++)
		print_op(stderr, data + i * OP_BYTES);
	abort();
}

#else

/* For the sanitizers, which end the process themselves. */
void __sanitizer_set_death_callback(void (*callback)(void));

static u8 program[MAX_OPS * OP_BYTES];
static size_t nr_ops;
static unsigned long long seed, programs;

static void print_program(void)
{
	size_t i;

	fprintf(stderr, "seed %llu, program %llu:\n", seed, programs);
	for (i = 0; i < nr_ops; i++)
		print_op(stderr, program + i * OP_BYTES);
}

void __ubsan_on_report(void);

void __ubsan_on_report(void)
{
	print_program();
}

static u64 next_random(u64 *state)
{
	u64 x = *state += 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static void drop_op(size_t i)
{
	nr_ops--;
	memmove(program + i * OP_BYTES, program + (i + 1) * OP_BYTES,
		(nr_ops - i) * OP_BYTES);
}

/* Drops calls one by one, as long as it fails without them. */
static void shrink(void)
{
	u8 dropped[OP_BYTES];
	bool shorter;
	size_t i;

	do {
		shorter = false;
		for (i = nr_ops; i-- > 0;) {
			memcpy(dropped, program + i * OP_BYTES, OP_BYTES);
			drop_op(i);
			if (run(program, nr_ops) < nr_ops) {
				shorter = true;
				continue;
			}
			memmove(program + (i + 1) * OP_BYTES,
				program + i * OP_BYTES,
				(nr_ops - i) * OP_BYTES);
			memcpy(program + i * OP_BYTES, dropped, OP_BYTES);
			nr_ops++;
		}
	} while (shorter);
	run(program, nr_ops);
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 10;
	unsigned long long operations = 0;
	struct timespec begin, now;
	u64 random;
	size_t i;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	seed = argc > 2 ? strtoull(argv[2], NULL, 0) :
			  (unsigned long long)time(NULL);
	random = seed;
	printf("fuzz_core: seed %llu\n", seed);
	fflush(stdout);
	__sanitizer_set_death_callback(print_program);

	do {
		nr_ops = 1 + next_random(&random) % MAX_OPS;
		for (i = 0; i < nr_ops * OP_BYTES; i++)
			program[i] = next_random(&random) >> 24;
		i = run(program, nr_ops);
		if (i < nr_ops) {
			nr_ops = i + 1;
			shrink();
			print_program();
			fprintf(stderr, "fuzz_core: %s\n", why);
			return 1;
		}
		operations += nr_ops;
		programs++;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - begin.tv_sec +
		 (now.tv_nsec - begin.tv_nsec) / 1e9 < seconds);

	printf("fuzz_core: %llu operations, no difference\n", operations);
	return 0;
}

#endif
