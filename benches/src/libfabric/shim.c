/* A domain of libfabric's verbs provider, with its registration cache. Most of libfabric's interface
 * is inline functions, so it is called from here. */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <rdma/fabric.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>

/* Opens the first device. It is never closed. Returns 0 or a negative error. */
int libfabric_shim_open(struct fid_domain **domain)
{
	struct fi_info *hints = fi_allocinfo(), *info = NULL;
	struct fid_fabric *fabric;
	int result;

	if (hints == NULL)
		return -FI_ENOMEM;
	hints->caps = FI_MSG | FI_RMA;
	hints->ep_attr->type = FI_EP_MSG;
	hints->domain_attr->mr_mode =
		FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
	hints->fabric_attr->prov_name = strdup("verbs");
	result = fi_getinfo(FI_VERSION(1, 13), NULL, NULL, 0, hints, &info);
	fi_freeinfo(hints);
	if (result != 0)
		return result;
	result = fi_fabric(info->fabric_attr, &fabric, NULL);
	if (result == 0)
		result = fi_domain(fabric, info, domain, NULL);
	fi_freeinfo(info);
	return result;
}

/* What a sender and receiver needs: IBV_ACCESS_LOCAL_WRITE. */
int libfabric_shim_get(struct fid_domain *domain, const void *addr, size_t len, struct fid_mr **mr)
{
	return fi_mr_reg(domain, addr, len, FI_SEND | FI_RECV, 0, 0, 0, mr, NULL);
}

uint64_t libfabric_shim_key(struct fid_mr *mr)
{
	return (uint64_t)(uintptr_t)fi_mr_desc(mr);
}

int libfabric_shim_put(struct fid_mr *mr)
{
	return fi_close(&mr->fid);
}
