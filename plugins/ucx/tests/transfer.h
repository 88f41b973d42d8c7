/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Messages from this process to itself, by way of an RDMA device. */
#ifndef REGCACHE_UCX_TRANSFER_H
#define REGCACHE_UCX_TRANSFER_H

#include <stddef.h>
#include <ucp/api/ucp.h>

/* A pair of workers, for one thread. */
struct link {
	ucp_context_h context;
	ucp_worker_h sender, receiver;
	ucp_ep_h endpoint;
	/* Where the receiver's peers may write. */
	char *window;
	ucp_rkey_h key;
};

/* Ends the program if UCX cannot. */
ucp_context_h transfer_context(void);
void transfer_link(struct link *link, ucp_context_h context);

/* Sends `from` and receives it in `to`. */
void transfer(struct link *link, const void *from, void *to, size_t size);

#define TRANSFER_WINDOW	((size_t)4096)

/* Writes `from` to the receiver's window, by one RDMA write. */
ucs_status_t transfer_put(struct link *link, const void *from, size_t size);

/* What is called with memory that ibv_reg_mr(3) or its like has just pinned. */
extern void (*transfer_pinned)(void *addr, size_t length);

/* What is called as soon as UCX looks into a cache's index, or another. */
extern void (*transfer_looking_up)(void);

/* How often UCX has called those. */
unsigned long transfer_registrations(void);

#endif
