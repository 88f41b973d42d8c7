/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* An RDMA device that sends to itself: bytes that arrive tell what is true. */
#ifndef LOOPBACK_H
#define LOOPBACK_H

#include <infiniband/verbs.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"

/* Some pages. */
#define LENGTH	(4 * PAGE)

static struct ibv_context *device;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp;

static void *map_at(void *where)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED_NOREPLACE : 0);
	void *memory = mmap(where, LENGTH, PROT_READ | PROT_WRITE, flags, -1, 0);

	if (memory == MAP_FAILED)
		exit(1);
	return memory;
}

/* By a system call that no hook in a library sees. */
static void remap(void *memory)
{
	EXPECT_EQ(syscall(SYS_munmap, memory, LENGTH), 0);
	EXPECT(map_at(memory) == memory);
}

/* A queue pair that is its own peer. */
static bool open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	struct ibv_port_attr port;
	union ibv_gid gid;
	int index, found = -1;

	device = list && list[0] ? ibv_open_device(list[0]) : NULL;
	if (list)
		ibv_free_device_list(list);
	if (!device || !(pd = ibv_alloc_pd(device)) ||
	    !(cq = ibv_create_cq(device, 8, NULL, NULL, 0)) || ibv_query_port(device, 1, &port))
		return false;
	/* An IPv4 address. */
	for (index = 0; index < port.gid_tbl_len && found < 0; index++)
		if (!ibv_query_gid(device, 1, index, &gid) && gid.raw[10] == 0xff && gid.raw[11] == 0xff)
			found = index;
	memset(&init, 0, sizeof(init));
	init.send_cq = init.recv_cq = cq;
	init.qp_type = IBV_QPT_RC;
	init.sq_sig_all = 1;
	init.cap.max_send_wr = init.cap.max_recv_wr = 4;
	init.cap.max_send_sge = init.cap.max_recv_sge = 1;
	qp = found < 0 ? NULL : ibv_create_qp(pd, &init);
	if (!qp)
		return false;
	memset(&attr, 0, sizeof(attr));
	attr.qp_state = IBV_QPS_INIT;
	attr.port_num = 1;
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
			  IBV_QP_ACCESS_FLAGS))
		return false;
	attr.qp_state = IBV_QPS_RTR;
	attr.path_mtu = port.active_mtu;
	attr.dest_qp_num = qp->qp_num;
	attr.max_dest_rd_atomic = 1;
	attr.min_rnr_timer = 1;
	attr.ah_attr.port_num = 1;
	attr.ah_attr.is_global = 1;
	attr.ah_attr.grh.dgid = gid;
	attr.ah_attr.grh.sgid_index = (uint8_t)found;
	attr.ah_attr.grh.hop_limit = 64;
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
			  IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
		return false;
	attr.qp_state = IBV_QPS_RTS;
	attr.max_rd_atomic = 1;
	attr.timeout = 14;
	attr.retry_cnt = attr.rnr_retry = 7;
	return !ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC |
			      IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY);
}

/* Sends what is in one buffer to the other.  False if the device refuses. */
static bool send_to_self(const char *from, uint32_t from_lkey, char *to, uint32_t to_lkey)
{
	struct ibv_sge send, receive;
	struct ibv_send_wr out, *bad_out;
	struct ibv_recv_wr in, *bad_in;
	struct ibv_wc done;
	int completed = 0;

	memset(&out, 0, sizeof(out));
	memset(&in, 0, sizeof(in));
	send.addr = (uintptr_t)from;
	receive.addr = (uintptr_t)to;
	send.length = receive.length = LENGTH;
	send.lkey = from_lkey;
	receive.lkey = to_lkey;
	out.sg_list = &send;
	in.sg_list = &receive;
	out.num_sge = in.num_sge = 1;
	out.opcode = IBV_WR_SEND;
	EXPECT_EQ(ibv_post_recv(qp, &in, &bad_in), 0);
	EXPECT_EQ(ibv_post_send(qp, &out, &bad_out), 0);
	while (completed < 2) {
		int count = ibv_poll_cq(cq, 1, &done);

		if (count < 0 || (count && done.status != IBV_WC_SUCCESS)) {
			printf("# %s\n", ibv_wc_status_str(done.status));
			return false;
		}
		completed += count;
	}
	return true;
}

#endif /* LOOPBACK_H */
