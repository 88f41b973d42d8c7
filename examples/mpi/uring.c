/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE
#include "uring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A ring of one entry: the shared counters, and where the entries are. */
struct ring {
	int fd;
	char *shared;
	struct io_uring_sqe *entry;
	struct io_uring_params params;
};

static int setup(struct ring *ring)
{
	struct io_uring_params *params = &ring->params;
	const int shared = MAP_SHARED | MAP_POPULATE;
	size_t completions, submissions;

	ring->fd = (int)syscall(SYS_io_uring_setup, 1, params);
	if (ring->fd < 0)
		return -1;
	if (!(params->features & IORING_FEAT_SINGLE_MMAP)) {
		errno = ENOSYS;
		return -1;
	}
	submissions = params->sq_off.array +
		      params->sq_entries * sizeof(uint32_t);
	completions = params->cq_off.cqes +
		      params->cq_entries * sizeof(struct io_uring_cqe);
	ring->shared = mmap(NULL, submissions > completions ? submissions : completions,
			    PROT_READ | PROT_WRITE, shared, ring->fd,
			    IORING_OFF_SQ_RING);
	ring->entry = mmap(NULL, params->sq_entries * sizeof(*ring->entry),
			   PROT_READ | PROT_WRITE, shared, ring->fd,
			   IORING_OFF_SQES);
	return ring->shared == MAP_FAILED || ring->entry == MAP_FAILED ? -1 : 0;
}

static uint32_t *word(struct ring *ring, uint32_t offset)
{
	return (uint32_t *)(ring->shared + offset);
}

/* Submits the ring's entry and returns its result. */
static int submit(struct ring *ring)
{
	const struct io_sqring_offsets *sq = &ring->params.sq_off;
	const struct io_cqring_offsets *cq = &ring->params.cq_off;
	uint32_t *tail = word(ring, sq->tail), *head = word(ring, cq->head);
	const struct io_uring_cqe *done;
	unsigned int to_submit = 1;
	int result;

	*word(ring, sq->array) = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	while (*head == __atomic_load_n(word(ring, cq->tail), __ATOMIC_ACQUIRE)) {
		int count = (int)syscall(SYS_io_uring_enter, ring->fd, to_submit,
					 1, IORING_ENTER_GETEVENTS, NULL, 0);

		if (count < 0 && errno != EINTR)
			return -errno;
		if (count > 0)
			to_submit = 0;
	}
	done = (struct io_uring_cqe *)(ring->shared + cq->cqes);
	result = done[*head & *word(ring, cq->ring_mask)].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

int uring_madvise(void *addr, size_t len, int advice)
{
	static struct ring ring = { .fd = -1 };
	int result;

	if (ring.fd < 0 && setup(&ring))
		return -1;
	memset(ring.entry, 0, sizeof(*ring.entry));
	ring.entry->opcode = IORING_OP_MADVISE;
	ring.entry->fd = -1;
	ring.entry->addr = (uintptr_t)addr;
	ring.entry->len = (uint32_t)len;
	ring.entry->fadvise_advice = (uint32_t)advice;
	result = submit(&ring);
	if (result >= 0)
		return 0;
	errno = -result;
	return -1;
}
