//! The calls into libibverbs, by `shim.c`, which the C compiler checks against its header.

use std::ffi::{c_char, c_int, c_void};

/// Declares structures of libibverbs that are only pointed to.
macro_rules! opaque {
    ($($name:ident),*) => {
        $(
            #[repr(C)]
            pub(super) struct $name {
                _private: [u8; 0],
            }
        )*
    };
}

opaque!(Context, Pd, Cq, Qp);

/// Results of [`shim_open`] other than a context, or null where it could not be opened.
pub(super) const NO_RDMA: c_int = 1;
pub(super) const NO_DEVICE: c_int = 2;

/// `struct shim_mr`: what a `struct ibv_mr` says of itself.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Mr {
    /// The `struct ibv_pd` that it belongs to.
    pub pd: *mut c_void,
    /// Where the memory begins.
    pub addr: *mut c_void,
    /// Its length in bytes.
    pub length: u64,
    /// The key for this process's own work requests.
    pub lkey: u32,
    /// The key for a peer's work requests.
    pub rkey: u32,
}

// Every pointer is to a live object of libibverbs, and outputs are writable.
unsafe extern "C" {
    pub(super) fn shim_open(name: *const c_char, context: *mut *mut Context) -> c_int;
    pub(super) fn shim_close(context: *mut Context) -> c_int;
    pub(super) fn shim_name(context: *mut Context) -> *const c_char;
    pub(super) fn shim_active_mtu(context: *mut Context, mtu: *mut c_int) -> c_int;
    pub(super) fn shim_alloc_pd(context: *mut Context) -> *mut Pd;
    pub(super) fn shim_dealloc_pd(pd: *mut Pd) -> c_int;
    pub(super) fn shim_create_cq(context: *mut Context, entries: c_int) -> *mut Cq;
    pub(super) fn shim_destroy_cq(cq: *mut Cq) -> c_int;
    pub(super) fn shim_poll_cq(cq: *mut Cq, status: *mut c_int) -> c_int;
    pub(super) fn shim_status_text(status: c_int) -> *const c_char;
    pub(super) fn shim_create_qp(pd: *mut Pd, cq: *mut Cq) -> *mut Qp;
    pub(super) fn shim_destroy_qp(qp: *mut Qp) -> c_int;
    pub(super) fn shim_qp_number(qp: *mut Qp) -> u32;
    pub(super) fn shim_to_reset(qp: *mut Qp) -> c_int;
    pub(super) fn shim_to_init(qp: *mut Qp) -> c_int;
    pub(super) fn shim_to_receive(
        qp: *mut Qp,
        peer: u32,
        mtu: c_int,
        gid: *const u8,
        gid_index: u8,
    ) -> c_int;
    pub(super) fn shim_to_send(qp: *mut Qp) -> c_int;
    pub(super) fn shim_post_recv(qp: *mut Qp, addr: u64, length: u32, lkey: u32) -> c_int;
    pub(super) fn shim_post_send(qp: *mut Qp, addr: u64, length: u32, lkey: u32) -> c_int;
    pub(super) fn shim_read_mr(mr: *const c_void, said: *mut Mr);
}
