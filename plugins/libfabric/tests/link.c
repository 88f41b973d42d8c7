// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include "link.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <err.h>
#include <stdlib.h>
#include <string.h>

#include <infiniband/verbs.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

enum { LONGEST = 1 << 20 };

struct link {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_eq *eq;
	struct fid_pep *pep;
	struct fid_cq *cq;
	struct fid_ep *active, *passive;
	struct fid_mr *mr;
	unsigned char *arrived;
};

unsigned long link_registered, link_deregistered;
void (*link_after_registering)(void *addr, size_t len);

/* libibverbs 56 calls one of the two below by the other: that is one registration. */
static __thread int registering;

static void registered(void *addr, size_t len)
{
	if (registering)
		return;
	__atomic_fetch_add(&link_registered, 1, __ATOMIC_RELAXED);
	if (link_after_registering)
		link_after_registering(addr, len);
}

/* libfabric finds these before libibverbs's. */
#undef ibv_reg_mr
struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t len, int access)
{
	static struct ibv_mr *(*real)(struct ibv_pd *, void *, size_t, int);
	struct ibv_mr *mr;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ibv_reg_mr");
	registering++;
	mr = real(pd, addr, len, access);
	registering--;
	registered(addr, len);
	return mr;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t len, uint64_t iova,
				unsigned int access)
{
	static struct ibv_mr *(*real)(struct ibv_pd *, void *, size_t, uint64_t, unsigned int);
	struct ibv_mr *mr;

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ibv_reg_mr_iova2");
	registering++;
	mr = real(pd, addr, len, iova, access);
	registering--;
	registered(addr, len);
	return mr;
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	static int (*real)(struct ibv_mr *);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ibv_dereg_mr");
	__atomic_fetch_add(&link_deregistered, 1, __ATOMIC_RELAXED);
	return real(mr);
}

static void must(const char *what, long ret)
{
	if (ret < 0)
		errx(1, "%s: %s", what, fi_strerror((int)-ret));
}

/* The guest's soft-RoCE device has an IPv4 address; so has any that works here. */
static struct fi_info *find_verbs(void)
{
	struct fi_info *hints = fi_allocinfo(), *info, *one;

	hints->caps = FI_MSG | FI_RMA;
	hints->mode = FI_CONTEXT;
	hints->addr_format = FI_SOCKADDR_IN;
	hints->ep_attr->type = FI_EP_MSG;
	hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_ALLOCATED | FI_MR_PROV_KEY |
				      FI_MR_VIRT_ADDR;
	hints->fabric_attr->prov_name = strdup("verbs");
	must("no device of the verbs provider",
	     fi_getinfo(FI_VERSION(1, 13), NULL, NULL, 0, hints, &info));
	for (one = info; one && !one->src_addr; one = one->next)
		;
	if (!one)
		errx(1, "no device of the verbs provider has an address");
	one = fi_dupinfo(one);
	/* One address for both ends; any port. */
	((struct sockaddr_in *)one->src_addr)->sin_port = 0;
	fi_freeinfo(info);
	fi_freeinfo(hints);
	return one;
}

static struct fi_info *wait_for(struct link *link, uint32_t wanted)
{
	struct fi_eq_cm_entry entry;
	struct fi_eq_err_entry error;
	uint32_t event = 0;
	ssize_t ret = fi_eq_sread(link->eq, &event, &entry, sizeof(entry), 30000, 0);

	if (ret == -FI_EAVAIL && fi_eq_readerr(link->eq, &error, 0) > 0)
		errx(1, "no connection: %s", fi_strerror(error.err));
	must("no connection", ret);
	if (event != wanted)
		errx(1, "no connection: event %u, not %u", event, wanted);
	return entry.info;
}

static struct fid_ep *open_endpoint(struct link *link, struct fi_info *info)
{
	struct fid_ep *ep;

	must("fi_endpoint", fi_endpoint(link->domain, info, &ep, NULL));
	must("fi_ep_bind", fi_ep_bind(ep, &link->eq->fid, 0));
	must("fi_ep_bind", fi_ep_bind(ep, &link->cq->fid, FI_TRANSMIT | FI_RECV));
	must("fi_enable", fi_enable(ep));
	return ep;
}

static void connect_ends(struct link *link)
{
	struct fi_info *request, *to = fi_dupinfo(link->info);
	struct sockaddr_in address;
	size_t size = sizeof(address);

	must("fi_passive_ep", fi_passive_ep(link->fabric, link->info, &link->pep, NULL));
	must("fi_pep_bind", fi_pep_bind(link->pep, &link->eq->fid, 0));
	must("fi_listen", fi_listen(link->pep));
	must("fi_getname", fi_getname(&link->pep->fid, &address, &size));
	/* The endpoint that connects must know where to when it is opened. */
	to->dest_addr = memcpy(malloc(size), &address, size);
	to->dest_addrlen = size;
	link->active = open_endpoint(link, to);
	fi_freeinfo(to);
	must("fi_connect", fi_connect(link->active, &address, NULL, 0));
	request = wait_for(link, FI_CONNREQ);
	link->passive = open_endpoint(link, request);
	must("fi_accept", fi_accept(link->passive, NULL, 0));
	fi_freeinfo(request);
	wait_for(link, FI_CONNECTED);
	wait_for(link, FI_CONNECTED);
}

struct link *link_open(void)
{
	struct fi_eq_attr eq_attr = { .wait_obj = FI_WAIT_UNSPEC };
	struct fi_cq_attr cq_attr = { .wait_obj = FI_WAIT_NONE, .format = FI_CQ_FORMAT_CONTEXT };
	struct link *link = calloc(1, sizeof(*link));

	link->info = find_verbs();
	must("fi_fabric", fi_fabric(link->info->fabric_attr, &link->fabric, NULL));
	must("fi_domain", fi_domain(link->fabric, link->info, &link->domain, NULL));
	must("fi_eq_open", fi_eq_open(link->fabric, &eq_attr, &link->eq, NULL));
	must("fi_cq_open", fi_cq_open(link->domain, &cq_attr, &link->cq, NULL));
	connect_ends(link);
	link->arrived = aligned_alloc(4096, LONGEST);
	must("fi_mr_reg", fi_mr_reg(link->domain, link->arrived, LONGEST, FI_REMOTE_WRITE, 0, 0,
				    0, &link->mr, NULL));
	return link;
}

void link_close(struct link *link)
{
	fi_close(&link->mr->fid);
	fi_close(&link->active->fid);
	fi_close(&link->passive->fid);
	fi_close(&link->pep->fid);
	fi_close(&link->cq->fid);
	fi_close(&link->eq->fid);
	must("fi_close of a domain", fi_close(&link->domain->fid));
	fi_close(&link->fabric->fid);
	fi_freeinfo(link->info);
	free(link->arrived);
	free(link);
}

static struct fid_mr *acquire(struct link *link, const void *addr, size_t len)
{
	struct fid_mr *mr;

	must("fi_mr_reg", fi_mr_reg(link->domain, addr, len, FI_WRITE, 0, 0, 0, &mr, NULL));
	return mr;
}

static void release(struct fid_mr *mr)
{
	must("fi_close of a registration", fi_close(&mr->fid));
}

void link_register(struct link *link, const void *addr, size_t len)
{
	release(acquire(link, addr, len));
}

const void *link_send(struct link *link, const void *addr, size_t len)
{
	struct fi_cq_entry done;
	struct fi_cq_err_entry error;
	struct fi_context context;
	struct fid_mr *mr;
	ssize_t ret;

	if (len > LONGEST)
		errx(1, "%zu bytes are too long", len);
	memset(link->arrived, 0, len);
	mr = acquire(link, addr, len);
	must("fi_write", fi_write(link->active, addr, len, fi_mr_desc(mr), 0,
				  (uintptr_t)link->arrived, fi_mr_key(link->mr), &context));
	do
		ret = fi_cq_read(link->cq, &done, 1);
	while (ret == -FI_EAGAIN);
	if (ret == -FI_EAVAIL && fi_cq_readerr(link->cq, &error, 0) > 0)
		errx(1, "a write failed: %s", fi_strerror(error.err));
	must("fi_cq_read", ret);
	/* It stays in the cache. */
	release(mr);
	return link->arrived;
}

bool link_delivers(struct link *link, void *addr, size_t len)
{
	static uint64_t number;
	uint64_t seed = __atomic_add_fetch(&number, 1, __ATOMIC_RELAXED) << 32;
	uint64_t *words = addr;

	for (size_t n = 0; n < len / sizeof(*words); n++)
		words[n] = (seed | n) * UINT64_C(0x9e3779b97f4a7c15);
	return !memcmp(link_send(link, addr, len), addr, len);
}
