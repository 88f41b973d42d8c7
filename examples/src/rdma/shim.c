// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What the examples call of libibverbs. The C compiler checks every structure
 * and every function against <infiniband/verbs.h>; sys.rs sees plain numbers and
 * pointers that it does not look through.
 *
 * Functions that return int return 0 or the value of errno, as the verbs do;
 * those that return a pointer return NULL and set errno.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <infiniband/verbs.h>

enum { SHIM_PORT = 1 };

/* What shim_open() could not do. */
enum shim_open_error { SHIM_OPENED, SHIM_NO_RDMA, SHIM_NO_DEVICE, SHIM_NOT_OPENED };

/* The device of that name, or the first one. Sets errno unless there is none. */
int shim_open(const char *name, struct ibv_context **context)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	int result = SHIM_NO_DEVICE;

	if (!list)
		return SHIM_NO_RDMA;
	for (struct ibv_device **device = list; *device; device++) {
		if (name && strcmp(ibv_get_device_name(*device), name))
			continue;
		*context = ibv_open_device(*device);
		result = *context ? SHIM_OPENED : SHIM_NOT_OPENED;
		break;
	}
	/* An open context keeps its device. */
	int error = errno;

	ibv_free_device_list(list);
	errno = error;
	return result;
}

int shim_close(struct ibv_context *context)
{
	return ibv_close_device(context);
}

/* Lives as long as the context. */
const char *shim_name(struct ibv_context *context)
{
	return ibv_get_device_name(context->device);
}

/* As `path_mtu` of a queue pair. */
int shim_active_mtu(struct ibv_context *context, int *mtu)
{
	struct ibv_port_attr attr = { 0 };
	int error = ibv_query_port(context, SHIM_PORT, &attr);

	*mtu = attr.active_mtu;
	return error;
}

struct ibv_pd *shim_alloc_pd(struct ibv_context *context)
{
	return ibv_alloc_pd(context);
}

int shim_dealloc_pd(struct ibv_pd *pd)
{
	return ibv_dealloc_pd(pd);
}

struct ibv_cq *shim_create_cq(struct ibv_context *context, int entries)
{
	return ibv_create_cq(context, entries, NULL, NULL, 0);
}

int shim_destroy_cq(struct ibv_cq *cq)
{
	return ibv_destroy_cq(cq);
}

/* The number of completions taken, at most one, or a negative number. */
int shim_poll_cq(struct ibv_cq *cq, int *status)
{
	struct ibv_wc wc = { 0 };
	int count = ibv_poll_cq(cq, 1, &wc);

	*status = wc.status;
	return count;
}

/* A constant string. */
const char *shim_status_text(int status)
{
	return ibv_wc_status_str((enum ibv_wc_status)status);
}

/* A reliable connection with room for one request of one segment each way. */
struct ibv_qp *shim_create_qp(struct ibv_pd *pd, struct ibv_cq *cq)
{
	struct ibv_qp_init_attr init = {
		.send_cq = cq,
		.recv_cq = cq,
		.cap = {
			.max_send_wr = 1,
			.max_recv_wr = 1,
			.max_send_sge = 1,
			.max_recv_sge = 1,
		},
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
	};

	return ibv_create_qp(pd, &init);
}

int shim_destroy_qp(struct ibv_qp *qp)
{
	return ibv_destroy_qp(qp);
}

uint32_t shim_qp_number(struct ibv_qp *qp)
{
	return qp->qp_num;
}

/* The states of a queue pair, in the order of a connection's life. */
int shim_to_reset(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RESET };

	return ibv_modify_qp(qp, &attr, IBV_QP_STATE);
}

int shim_to_init(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = SHIM_PORT };

	return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
				IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

int shim_to_receive(struct ibv_qp *qp, uint32_t peer, int mtu, const uint8_t gid[16],
		    uint8_t gid_index)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = (enum ibv_mtu)mtu,
		.dest_qp_num = peer,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 1,
		.ah_attr = {
			.port_num = SHIM_PORT,
			.is_global = 1,
			.grh = { .sgid_index = gid_index, .hop_limit = 64 },
		},
	};

	memcpy(attr.ah_attr.grh.dgid.raw, gid, sizeof(attr.ah_attr.grh.dgid.raw));
	return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
				IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

int shim_to_send(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.max_rd_atomic = 1,
		.timeout = 14, /* 4.096 us << 14 = 67 ms */
		.retry_cnt = 7,
		.rnr_retry = 7,
	};

	return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN |
				IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_TIMEOUT |
				IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY);
}

int shim_post_recv(struct ibv_qp *qp, uint64_t addr, uint32_t length, uint32_t lkey)
{
	struct ibv_sge sge = { .addr = addr, .length = length, .lkey = lkey };
	struct ibv_recv_wr request = { .sg_list = &sge, .num_sge = 1 }, *bad;

	return ibv_post_recv(qp, &request, &bad);
}

int shim_post_send(struct ibv_qp *qp, uint64_t addr, uint32_t length, uint32_t lkey)
{
	struct ibv_sge sge = { .addr = addr, .length = length, .lkey = lkey };
	struct ibv_send_wr request = {
		.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND,
	}, *bad;

	return ibv_post_send(qp, &request, &bad);
}

/* What a memory region says of itself. */
struct shim_mr {
	void *pd;
	void *addr;
	uint64_t length;
	uint32_t lkey;
	uint32_t rkey;
};

void shim_read_mr(const struct ibv_mr *mr, struct shim_mr *said)
{
	*said = (struct shim_mr){ mr->pd, mr->addr, mr->length, mr->lkey, mr->rkey };
}
