/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Does MPI deliver what was sent, when memory changes between messages?
 *
 *	mpirun -np 2 stale [MESSAGES [BYTES]]
 *
 * One rank sends, the other compares.  Each way of changing memory has MESSAGES
 * messages (20 if not given) before each of which the sender's buffer changes,
 * and as many before which the receiver's does.  Each way is a line of JSON on
 * standard output: how many messages (`transfers`) arrived with wrong bytes
 * (`corrupted`), and whose memory had changed before those (`sender`,
 * `receiver`).  The exit status does not depend on that.
 */
#include <err.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <mpi.h>

#include "ways.h"

enum { SENDER, RECEIVER };

/* A word that no other message and no other place of this one has. */
static uint64_t word(uint64_t message, size_t index)
{
	uint64_t mixed = (message << 32 | index) * UINT64_C(0x9e3779b97f4a7c15);

	return mixed ^ mixed >> 29;
}

static void fill(const struct buffer *buffer, uint64_t message)
{
	uint64_t *words = buffer->addr;

	for (size_t index = 0; index < buffer->len / sizeof(*words); index++)
		words[index] = word(message, index);
}

static int holds(const struct buffer *buffer, uint64_t message)
{
	const uint64_t *words = buffer->addr;

	for (size_t index = 0; index < buffer->len / sizeof(*words); index++)
		if (words[index] != word(message, index))
			return 0;
	return 1;
}

/* Sends or receives the next message; 0 if it arrived with wrong bytes. */
static int transfer(int rank, const struct buffer *buffer)
{
	static uint64_t message;
	const int bytes = (int)buffer->len;

	/* What the receiver's memory holds before is in no message. */
	message += 2;
	fill(buffer, message + (rank == RECEIVER));
	if (rank == SENDER) {
		MPI_Send(buffer->addr, bytes, MPI_BYTE, RECEIVER, 0, MPI_COMM_WORLD);
		return 1;
	}
	MPI_Recv(buffer->addr, bytes, MPI_BYTE, SENDER, 0, MPI_COMM_WORLD,
		 MPI_STATUS_IGNORE);
	return holds(buffer, message);
}

/* How many of `count` messages arrived wrong when memory of `side` changed. */
static int corrupted(int rank, const struct way *way, int side, int count, size_t bytes)
{
	const struct way *here = rank == side ? way : &ways[0];
	struct buffer buffer = make_buffer(here, bytes);
	int wrong = 0;

	/* The caches learn of the buffers. */
	if (!transfer(rank, &buffer))
		errx(1, "%s: wrong bytes arrived before any memory changed", way->name);
	for (int done = 0; done < count; done++) {
		here->change(&buffer);
		wrong += !transfer(rank, &buffer);
	}
	return wrong;
}

/* A number from the command line. */
static long number(const char *what, const char *text, long multiple)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*end || value <= 0 || value > INT32_MAX || value % multiple)
		errx(2, "%s is \"%s\", not a positive multiple of %ld", what, text, multiple);
	return value;
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? (int)number("MESSAGES", argv[1], 1) : 20;
	size_t bytes = argc > 2 ? (size_t)number("BYTES", argv[2], 4096) : 1 << 20;
	int rank, ranks;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (ranks != 2)
		errx(2, "this takes 2 ranks, not %d: mpirun -np 2", ranks);
	for (size_t n = 0; n < way_count; n++) {
		int sender = corrupted(rank, &ways[n], SENDER, count, bytes);
		int receiver = corrupted(rank, &ways[n], RECEIVER, count, bytes);

		if (rank == RECEIVER) {
			printf("{\"way\": \"%s\", \"transfers\": %d, \"corrupted\": %d, "
			       "\"sender\": %d, \"receiver\": %d}\n", ways[n].name,
			       2 * count, sender + receiver, sender, receiver);
			fflush(stdout);
		}
	}
	MPI_Finalize();
	return 0;
}
