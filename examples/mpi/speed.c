/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What two ways of running MPI cost, side by side in one job: latency and
 * bandwidth by message size, as osu_latency and osu_bw measure them, from
 * buffers that are used again and again.
 *
 *	mpirun -np 2 speed [SECONDS] : -np 2 env LD_PRELOAD=... speed [SECONDS]
 *
 * The first two ranks are one pair, the next two the other.  The pairs take
 * short turns, for SECONDS (3 if not given) with each size, and while one has
 * its turn the other sleeps, so that what else the machine does hits both
 * alike.  Each measure and size is a line of JSON on standard output: the
 * pairs' medians of all rounds as `first` and `second`, which are one way of a
 * ping-pong in microseconds, or a window of messages in 10^6 bytes a second;
 * and as `ratio` the second's to the first's, the median of what each two
 * neighbouring turns say, with its standard error as `error`.
 */
#include <err.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <mpi.h>

enum { SMALLEST = 1, LARGEST = 4 << 20, STEP = 4 };

/* Messages in flight at a time: many, but not of the largest. */
enum { WINDOW = 32, SMALLEST_WINDOW = 4, WINDOW_BYTES = 4 << 20 };

/* How long a turn should take, in seconds. */
static const double turn_time = 0.025;
enum { MOST_ROUNDS = 200, LEAST_TURNS = 4, MOST_TURNS = 200 };

enum measure { LATENCY, BANDWIDTH, END };

struct turn {
	int measure, bytes, rounds;
};

enum { TURN_TAG = 1, TIMES_TAG, DATA_TAG, ACK_TAG };

static int rank;
static char *send_buffer, *receive_buffer;

static int window(int bytes)
{
	int fit = WINDOW_BYTES / bytes;

	return fit > WINDOW ? WINDOW : fit < SMALLEST_WINDOW ? SMALLEST_WINDOW : fit;
}

/* Waits without using the processor: MPI_Recv alone would spin. */
static void sleep_until_sent(int source, int tag)
{
	static const struct timespec pause = { .tv_nsec = 20000000 };
	int there = 0;

	for (;;) {
		MPI_Iprobe(source, tag, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
		if (there)
			return;
		nanosleep(&pause, NULL);
	}
}

static void send(const char *data, int bytes, int tag)
{
	MPI_Send(data, bytes, MPI_BYTE, rank ^ 1, tag, MPI_COMM_WORLD);
}

static void receive(char *data, int bytes, int tag)
{
	MPI_Recv(data, bytes, MPI_BYTE, rank ^ 1, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

static void ping_pong(int bytes, int first)
{
	if (first)
		send(send_buffer, bytes, DATA_TAG);
	receive(receive_buffer, bytes, DATA_TAG);
	if (!first)
		send(send_buffer, bytes, DATA_TAG);
}

static void stream(int bytes, int first)
{
	MPI_Request requests[WINDOW];
	int count = window(bytes);
	char ack = 0;

	for (int n = 0; n < count; n++) {
		if (first)
			MPI_Isend(send_buffer, bytes, MPI_BYTE, rank ^ 1, DATA_TAG,
				  MPI_COMM_WORLD, &requests[n]);
		else
			MPI_Irecv(receive_buffer, bytes, MPI_BYTE, rank ^ 1, DATA_TAG,
				  MPI_COMM_WORLD, &requests[n]);
	}
	MPI_Waitall(count, requests, MPI_STATUSES_IGNORE);
	if (first)
		receive(&ack, 1, ACK_TAG);
	else
		send(&ack, 1, ACK_TAG);
}

/* The pair's turn, by both its ranks: the seconds of each round. */
static void take(const struct turn *turn, int first, double *times)
{
	void (*round)(int, int) = turn->measure == LATENCY ? ping_pong : stream;
	double before, now;

	/* Both are awake after this, and the caches know the buffers. */
	round(turn->bytes, first);
	before = MPI_Wtime();
	for (int n = 0; n < turn->rounds; n++) {
		round(turn->bytes, first);
		now = MPI_Wtime();
		times[n] = now - before;
		before = now;
	}
}

/* Has the pair of `leader` take a turn; only rank 0 calls it. */
static void ask(const struct turn *turn, int leader, double *times)
{
	MPI_Send(turn, 3, MPI_INT, leader ? leader : 1, TURN_TAG, MPI_COMM_WORLD);
	if (!leader) {
		take(turn, 1, times);
		return;
	}
	sleep_until_sent(leader, TIMES_TAG);
	MPI_Recv(times, turn->rounds, MPI_DOUBLE, leader, TIMES_TAG, MPI_COMM_WORLD,
		 MPI_STATUS_IGNORE);
}

/* What all ranks but 0 do: they wait for their turns. */
static void follow(void)
{
	static double times[MOST_ROUNDS];
	int from = rank == 2 ? 0 : rank - 1;
	struct turn turn;

	for (;;) {
		sleep_until_sent(from, TURN_TAG);
		MPI_Recv(&turn, 3, MPI_INT, from, TURN_TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
		if (rank == 2)
			MPI_Send(&turn, 3, MPI_INT, 3, TURN_TAG, MPI_COMM_WORLD);
		if (turn.measure == END)
			return;
		take(&turn, rank == 2, times);
		if (rank == 2)
			MPI_Send(times, turn.rounds, MPI_DOUBLE, 0, TIMES_TAG, MPI_COMM_WORLD);
	}
}

static int compare(const void *one, const void *other)
{
	const double *a = one, *b = other;

	return (*a > *b) - (*a < *b);
}

static double median(double *values, int count)
{
	qsort(values, (size_t)count, sizeof(*values), compare);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* The standard error of the median of sorted values: of quartiles, since some
 * values may be far off. */
static double median_error(const double *values, int count)
{
	return 0.93 * (values[count * 3 / 4] - values[count / 4]) / sqrt(count);
}

/* How many rounds fill a turn. */
static int rounds(enum measure measure, int bytes)
{
	static double times[MOST_ROUNDS];
	struct turn trial = { .measure = measure, .bytes = bytes, .rounds = 5 };
	double fit;

	ask(&trial, 2, times);
	ask(&trial, 0, times);
	fit = turn_time / median(times, trial.rounds);
	return fit > MOST_ROUNDS ? MOST_ROUNDS : fit < 1 ? 1 : (int)fit;
}

/* What a round of so many seconds measured. */
static double value(enum measure measure, int bytes, double seconds)
{
	if (measure == LATENCY)
		return seconds / 2 * 1e6;
	return (double)bytes * window(bytes) / seconds / 1e6;
}

static void measure(enum measure measure, int bytes, double seconds)
{
	static double times[2][MOST_TURNS * MOST_ROUNDS], ratios[MOST_TURNS];
	struct turn turn = { .measure = measure, .bytes = bytes };
	double end = MPI_Wtime() + seconds, ratio;
	int turns = 0;

	turn.rounds = rounds(measure, bytes);
	while (turns < LEAST_TURNS || (turns < MOST_TURNS && MPI_Wtime() < end)) {
		double typical[2];

		/* Who comes first alternates too. */
		for (int half = 0; half < 2; half++) {
			int pair = (turns + half) % 2;
			double *here = &times[pair][turns * turn.rounds];

			ask(&turn, 2 * pair, here);
			typical[pair] = value(measure, bytes, median(here, turn.rounds));
		}
		ratios[turns++] = typical[1] / typical[0];
	}
	ratio = median(ratios, turns);
	printf("{\"measure\": \"%s\", \"bytes\": %d, \"first\": %.4g, \"second\": %.4g, "
	       "\"ratio\": %.4f, \"error\": %.4f}\n",
	       measure == LATENCY ? "latency_us" : "bandwidth_mb_s", bytes,
	       value(measure, bytes, median(times[0], turns * turn.rounds)),
	       value(measure, bytes, median(times[1], turns * turn.rounds)),
	       ratio, median_error(ratios, turns));
	fflush(stdout);
}

static void lead(double seconds)
{
	struct turn end = { .measure = END };

	for (int bytes = SMALLEST; bytes <= LARGEST; bytes *= STEP)
		measure(LATENCY, bytes, seconds);
	for (int bytes = SMALLEST; bytes <= LARGEST; bytes *= STEP)
		measure(BANDWIDTH, bytes, seconds);
	MPI_Send(&end, 3, MPI_INT, 1, TURN_TAG, MPI_COMM_WORLD);
	MPI_Send(&end, 3, MPI_INT, 2, TURN_TAG, MPI_COMM_WORLD);
}

/* Whole pages that nothing else is in. */
static char *buffer(int content)
{
	char *addr = mmap(NULL, LARGEST, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED)
		err(1, "cannot map %d bytes", LARGEST);
	memset(addr, content, LARGEST);
	return addr;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 3;
	int ranks;

	if (!(seconds > 0 && seconds <= 1000))
		errx(2, "SECONDS is \"%s\", not a number above 0 and up to 1000", argv[1]);
	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (ranks != 4)
		errx(2, "this takes 4 ranks, not %d: mpirun -np 2 speed : -np 2 speed", ranks);
	send_buffer = buffer(1);
	receive_buffer = buffer(2);
	if (rank == 0)
		lead(seconds);
	else
		follow();
	MPI_Finalize();
	return 0;
}
