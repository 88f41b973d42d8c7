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

static struct {
	int fd;
	char *submissions, *completions;
	struct io_uring_sqe *entries;
	struct io_uring_params params;
} ring = { .fd = -1 };

static int set_up(void)
{
	struct io_uring_params *params = &ring.params;
	const int prot = PROT_READ | PROT_WRITE;
	const int flags = MAP_SHARED | MAP_POPULATE;

	ring.fd = (int)syscall(SYS_io_uring_setup, 1, params);
	if (ring.fd < 0)
		return -1;
	ring.submissions = mmap(NULL, params->sq_off.array +
				params->sq_entries * sizeof(uint32_t), prot,
				flags, ring.fd, IORING_OFF_SQ_RING);
	ring.completions = mmap(NULL, params->cq_off.cqes + params->cq_entries *
				sizeof(struct io_uring_cqe), prot, flags,
				ring.fd, IORING_OFF_CQ_RING);
	ring.entries = mmap(NULL, params->sq_entries * sizeof(*ring.entries),
			    prot, flags, ring.fd, IORING_OFF_SQES);
	return ring.submissions == MAP_FAILED || ring.completions == MAP_FAILED ||
	       ring.entries == MAP_FAILED ? -1 : 0;
}

int uring_madvise(void *address, size_t length, int advice)
{
	const struct io_uring_params *params = &ring.params;
	struct io_uring_cqe *result;
	uint32_t *tail, *head;

	if (ring.fd < 0 && set_up())
		return -1;
	memset(ring.entries, 0, sizeof(*ring.entries));
	ring.entries->opcode = IORING_OP_MADVISE;
	ring.entries->addr = (uintptr_t)address;
	ring.entries->len = (uint32_t)length;
	ring.entries->fadvise_advice = (uint32_t)advice;
	tail = (uint32_t *)(ring.submissions + params->sq_off.tail);
	((uint32_t *)(ring.submissions + params->sq_off.array))[0] = 0;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS,
		    NULL, 0) != 1)
		return -1;
	head = (uint32_t *)(ring.completions + params->cq_off.head);
	tail = (uint32_t *)(ring.completions + params->cq_off.tail);
	if (__atomic_load_n(tail, __ATOMIC_ACQUIRE) == *head) {
		errno = EIO;
		return -1;
	}
	result = (struct io_uring_cqe *)(ring.completions + params->cq_off.cqes) +
		 (*head & (params->cq_entries - 1));
	errno = result->res < 0 ? -result->res : 0;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return errno ? -1 : 0;
}
