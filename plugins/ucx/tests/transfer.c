/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#define _GNU_SOURCE
#include "transfer.h"

#include <dlfcn.h>
#include <err.h>
#include <infiniband/verbs.h>
#include <stdint.h>
#include <stdlib.h>
#include <ucs/datastruct/pgtable.h>
#undef ibv_reg_mr

static unsigned long registrations;
void (*transfer_pinned)(void *addr, size_t length);
void (*transfer_looking_up)(void);

unsigned long transfer_registrations(void)
{
	return __atomic_load_n(&registrations, __ATOMIC_RELAXED);
}

static struct ibv_mr *pinned(struct ibv_mr *mr)
{
	__atomic_add_fetch(&registrations, 1, __ATOMIC_RELAXED);
	if (mr && transfer_pinned)
		transfer_pinned(mr->addr, mr->length);
	return mr;
}

/* These stand before libibverbs's: UCX finds the program's first. */
struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	struct ibv_mr *(*next)(struct ibv_pd *, void *, size_t, int);

	*(void **)&next = dlsym(RTLD_NEXT, "ibv_reg_mr");
	return pinned(next(pd, addr, length, access));
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length,
				uint64_t iova, unsigned access)
{
	struct ibv_mr *(*next)(struct ibv_pd *, void *, size_t, uint64_t, unsigned);

	*(void **)&next = dlsym(RTLD_NEXT, "ibv_reg_mr_iova2");
	return pinned(next(pd, addr, length, iova, access));
}

/* This stands before the plug-in's, which is the next. */
ucs_pgt_region_t *ucs_pgtable_lookup(const ucs_pgtable_t *table,
				     ucs_pgt_addr_t address)
{
	static ucs_pgt_region_t *(*next)(const ucs_pgtable_t *, ucs_pgt_addr_t);

	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "ucs_pgtable_lookup");
	if (transfer_looking_up)
		transfer_looking_up();
	return next(table, address);
}

static void must(ucs_status_t status, const char *what)
{
	if (status != UCS_OK)
		errx(3, "%s: %s", what, ucs_status_string(status));
}

ucp_context_h transfer_context(void)
{
	ucp_params_t params = {
		.field_mask = UCP_PARAM_FIELD_FEATURES |
			      UCP_PARAM_FIELD_MT_WORKERS_SHARED,
		.features = UCP_FEATURE_TAG | UCP_FEATURE_RMA,
		.mt_workers_shared = 1,
	};
	ucp_context_h context;

	must(ucp_init(&params, NULL, &context), "ucp_init");
	return context;
}

static void open_window(struct link *link)
{
	ucp_mem_map_params_t params = {
		.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
			      UCP_MEM_MAP_PARAM_FIELD_LENGTH,
		.length = TRANSFER_WINDOW,
	};
	void *packed;
	ucp_mem_h memory;
	size_t size;

	link->window = aligned_alloc(4096, TRANSFER_WINDOW);
	params.address = link->window;
	must(ucp_mem_map(link->context, &params, &memory), "ucp_mem_map");
	must(ucp_rkey_pack(link->context, memory, &packed, &size), "ucp_rkey_pack");
	must(ucp_ep_rkey_unpack(link->endpoint, packed, &link->key),
	     "ucp_ep_rkey_unpack");
	ucp_rkey_buffer_release(packed);
}

void transfer_link(struct link *link, ucp_context_h context)
{
	ucp_worker_params_t params = {
		.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
		.thread_mode = UCS_THREAD_MODE_SINGLE,
	};
	ucp_ep_params_t to = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS };
	ucp_address_t *address;
	size_t length;

	link->context = context;
	must(ucp_worker_create(context, &params, &link->sender), "ucp_worker_create");
	must(ucp_worker_create(context, &params, &link->receiver), "ucp_worker_create");
	must(ucp_worker_get_address(link->receiver, &address, &length),
	     "ucp_worker_get_address");
	to.address = address;
	must(ucp_ep_create(link->sender, &to, &link->endpoint), "ucp_ep_create");
	ucp_worker_release_address(link->receiver, address);
	open_window(link);
}

static ucs_status_t finish(struct link *link, void *request)
{
	ucs_status_t status;

	if (!UCS_PTR_IS_PTR(request))
		return UCS_PTR_STATUS(request);
	do {
		ucp_worker_progress(link->sender);
		ucp_worker_progress(link->receiver);
		status = ucp_request_check_status(request);
	} while (status == UCS_INPROGRESS);
	ucp_request_free(request);
	return status;
}

void transfer(struct link *link, const void *from, void *to, size_t size)
{
	ucp_request_param_t param = { .op_attr_mask = 0 };
	void *receiving, *sending;

	receiving = ucp_tag_recv_nbx(link->receiver, to, size, 1, UINT64_MAX, &param);
	sending = ucp_tag_send_nbx(link->endpoint, from, size, 1, &param);
	must(finish(link, sending), "ucp_tag_send_nbx");
	must(finish(link, receiving), "ucp_tag_recv_nbx");
}

ucs_status_t transfer_put(struct link *link, const void *from, size_t size)
{
	ucp_request_param_t param = { .op_attr_mask = 0 };
	ucs_status_t status;

	status = finish(link, ucp_put_nbx(link->endpoint, from, size,
					  (uintptr_t)link->window, link->key,
					  &param));
	return status != UCS_OK ? status :
	       finish(link, ucp_ep_flush_nbx(link->endpoint, &param));
}
