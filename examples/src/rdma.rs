//! Two connected queue pairs of one RDMA device, in one process: what one sends, the other receives.
//!
//! No more of verbs than the demonstration needs. Every transfer is waited for, so there is at most
//! one work request on each queue pair.

use std::ffi::{CStr, c_int, c_void};
use std::fs;
use std::io;
use std::mem;
use std::net::Ipv6Addr;
use std::ptr::{self, NonNull};
use std::thread;
use std::time::{Duration, Instant};

use rdma_sys::ibv_qp_attr_mask as Mask;
use rdma_sys::*;

use crate::Result;

/// How long a transfer may take. Emulated machines are slow; a device answers in microseconds.
const TIMEOUT: Duration = Duration::from_secs(10);
const PORT: u8 = 1;
const REMEDY: &str = "`cargo xtask demo` boots a guest that has a device (soft-RoCE)";

/// What a queue pair sends from or receives to.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Where it is.
    pub addr: usize,
    /// Its length in bytes.
    pub len: u32,
    /// The key of a registration that covers it.
    pub lkey: u32,
}

/// How a transfer ended.
pub enum Outcome {
    /// All bytes arrived, as the device saw them.
    Delivered,
    /// The device reported an error, or nothing in time.
    Failed(String),
}

/// An open device with a protection domain.
pub struct Device {
    // Destroyed in this order.
    pd: Owned<ibv_pd>,
    context: Owned<ibv_context>,
    name: String,
    gid: Gid,
}

impl Device {
    /// Opens the device of that name, or the first one.
    pub fn open(name: Option<&str>) -> Result<Device> {
        let context = open_context(name)?;
        // SAFETY: an open context has a device.
        let name = unsafe { device_name((*context.as_ptr()).device) };
        let gid = Gid::find(&name)?;
        // SAFETY: the context is open and outlives the pd; the new pd is nobody else's.
        let pd = unsafe { own("ibv_alloc_pd", ibv_alloc_pd(context.as_ptr()), ibv_dealloc_pd) }?;
        Ok(Device { pd, context, name, gid })
    }

    /// The device's name, for instance `rxe0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `struct ibv_pd`, which lives as long as the device.
    pub fn pd(&self) -> NonNull<c_void> {
        self.pd.pointer.cast()
    }

    fn active_mtu(&self) -> Result<ibv_mtu::Type> {
        // SAFETY: the structure is plain data, for which zeros are a value.
        let mut port: ibv_port_attr = unsafe { mem::zeroed() };
        // SAFETY: the context is open and `port` is writable.
        check("ibv_query_port", unsafe {
            ___ibv_query_port(self.context.as_ptr(), PORT, &mut port)
        })?;
        Ok(port.active_mtu)
    }
}

/// Two queue pairs, each the other's peer.
pub struct Link<'d> {
    // Destroyed in this order.
    sender: Owned<ibv_qp>,
    receiver: Owned<ibv_qp>,
    cq: Owned<ibv_cq>,
    device: &'d Device,
}

impl<'d> Link<'d> {
    /// Creates the queue pairs and connects them.
    pub fn new(device: &'d Device) -> Result<Link<'d>> {
        let context = device.context.as_ptr();
        // SAFETY: the context is open and outlives the queue; no completion channel is asked for.
        let cq = unsafe { ibv_create_cq(context, 8, ptr::null_mut(), ptr::null_mut(), 0) };
        // SAFETY: the new completion queue is nobody else's.
        let cq = unsafe { own("ibv_create_cq", cq, ibv_destroy_cq) }?;
        let sender = queue_pair(device, &cq)?;
        let receiver = queue_pair(device, &cq)?;
        let link = Link { sender, receiver, cq, device };
        link.connect()?;
        Ok(link)
    }

    /// Sends `from` on one queue pair, receives it to `to` on the other, and waits for both. After a
    /// failure the queue pairs are connected anew, and the device does not touch the memory again.
    ///
    /// # Safety
    ///
    /// The keys are those of live registrations of the device's protection domain that cover the
    /// segments, and nothing in this program relies on the bytes registered for `to` meanwhile.
    pub unsafe fn transfer(&self, from: Segment, to: Segment) -> Result<Outcome> {
        // SAFETY: the caller promises this of both segments, and below the device is done with them.
        unsafe {
            post_recv(&self.receiver, to)?;
            post_send(&self.sender, from)?;
        }
        let deadline = Instant::now() + TIMEOUT;
        let mut completed = 0;
        while completed < 2 {
            let failure = match self.poll()? {
                Some(ibv_wc_status::IBV_WC_SUCCESS) => {
                    completed += 1;
                    continue;
                }
                Some(status) => status_text(status),
                None if Instant::now() > deadline => format!("no completion within {TIMEOUT:?}"),
                None => {
                    thread::yield_now();
                    continue;
                }
            };
            self.connect()?;
            return Ok(Outcome::Failed(failure));
        }
        Ok(Outcome::Delivered)
    }

    /// The status of the next completion, if there is one.
    fn poll(&self) -> Result<Option<ibv_wc_status::Type>> {
        // SAFETY: the structure is plain data, for which zeros are a value.
        let mut completion: ibv_wc = unsafe { mem::zeroed() };
        // SAFETY: the completion queue is live and there is room for one completion.
        match unsafe { ibv_poll_cq(self.cq.as_ptr(), 1, &mut completion) } {
            0 => Ok(None),
            1 => Ok(Some(completion.status)),
            result => Err(format!("ibv_poll_cq: {result}").into()),
        }
    }

    /// Connects the queue pairs, whatever state they are in, and forgets what they had to do.
    fn connect(&self) -> Result<()> {
        for qp in [&self.sender, &self.receiver] {
            modify(qp, ibv_qp_state::IBV_QPS_RESET, |_| Mask::IBV_QP_STATE)?;
        }
        while self.poll()?.is_some() {}

        let mtu = self.device.active_mtu()?;
        for (qp, peer) in [(&self.sender, &self.receiver), (&self.receiver, &self.sender)] {
            modify(qp, ibv_qp_state::IBV_QPS_INIT, |attr| {
                attr.port_num = PORT;
                Mask::IBV_QP_STATE
                    | Mask::IBV_QP_PKEY_INDEX
                    | Mask::IBV_QP_PORT
                    | Mask::IBV_QP_ACCESS_FLAGS
            })?;
            modify(qp, ibv_qp_state::IBV_QPS_RTR, |attr| {
                attr.path_mtu = mtu;
                // SAFETY: the peer is a live queue pair, whose number never changes.
                attr.dest_qp_num = unsafe { (*peer.as_ptr()).qp_num };
                attr.max_dest_rd_atomic = 1;
                attr.min_rnr_timer = 1;
                attr.ah_attr.port_num = PORT;
                attr.ah_attr.is_global = 1;
                attr.ah_attr.grh.dgid.raw = self.device.gid.address.octets();
                attr.ah_attr.grh.sgid_index = self.device.gid.index;
                attr.ah_attr.grh.hop_limit = 64;
                Mask::IBV_QP_STATE
                    | Mask::IBV_QP_AV
                    | Mask::IBV_QP_PATH_MTU
                    | Mask::IBV_QP_DEST_QPN
                    | Mask::IBV_QP_RQ_PSN
                    | Mask::IBV_QP_MAX_DEST_RD_ATOMIC
                    | Mask::IBV_QP_MIN_RNR_TIMER
            })?;
            modify(qp, ibv_qp_state::IBV_QPS_RTS, |attr| {
                attr.max_rd_atomic = 1;
                attr.timeout = 14; // 4.096 us << 14 = 67 ms
                attr.retry_cnt = 7;
                attr.rnr_retry = 7;
                Mask::IBV_QP_STATE
                    | Mask::IBV_QP_SQ_PSN
                    | Mask::IBV_QP_MAX_QP_RD_ATOMIC
                    | Mask::IBV_QP_TIMEOUT
                    | Mask::IBV_QP_RETRY_CNT
                    | Mask::IBV_QP_RNR_RETRY
            })?;
        }
        Ok(())
    }
}

fn queue_pair(device: &Device, cq: &Owned<ibv_cq>) -> Result<Owned<ibv_qp>> {
    // SAFETY: the structure is plain data, for which zeros are a value.
    let mut init: ibv_qp_init_attr = unsafe { mem::zeroed() };
    init.send_cq = cq.as_ptr();
    init.recv_cq = cq.as_ptr();
    init.qp_type = ibv_qp_type::IBV_QPT_RC;
    init.sq_sig_all = 1;
    init.cap.max_send_wr = 1;
    init.cap.max_recv_wr = 1;
    init.cap.max_send_sge = 1;
    init.cap.max_recv_sge = 1;
    // SAFETY: the pd and the completion queue are live, and `Link` drops its queue pairs first; the
    // new queue pair is nobody else's.
    unsafe {
        let qp = ibv_create_qp(device.pd.as_ptr(), &mut init);
        own("ibv_create_qp", qp, ibv_destroy_qp)
    }
}

/// Moves `qp` to `state`; `fill` sets the attributes and tells which.
fn modify(
    qp: &Owned<ibv_qp>,
    state: ibv_qp_state::Type,
    fill: impl FnOnce(&mut ibv_qp_attr) -> Mask,
) -> Result<()> {
    // SAFETY: the structure is plain data, for which zeros are a value.
    let mut attr: ibv_qp_attr = unsafe { mem::zeroed() };
    attr.qp_state = state;
    let mask = fill(&mut attr);
    // SAFETY: the queue pair is live and `attr` is readable.
    let result = unsafe { ibv_modify_qp(qp.as_ptr(), &mut attr, mask.0 as c_int) };
    check(&format!("ibv_modify_qp to state {state}"), result)
}

/// # Safety
///
/// As for [`Link::transfer`], until the receive has completed or the queue pair is reset.
unsafe fn post_recv(qp: &Owned<ibv_qp>, to: Segment) -> Result<()> {
    let mut sge = ibv_sge { addr: to.addr as u64, length: to.len, lkey: to.lkey };
    // SAFETY: the structure is plain data, for which zeros are a value.
    let mut request: ibv_recv_wr = unsafe { mem::zeroed() };
    request.sg_list = &mut sge;
    request.num_sge = 1;
    let mut bad = ptr::null_mut();
    // SAFETY: the queue pair is live, the call copies the request, and the caller answers for the
    // segment.
    check("ibv_post_recv", unsafe { ibv_post_recv(qp.as_ptr(), &mut request, &mut bad) })
}

/// # Safety
///
/// As for [`Link::transfer`], until the send has completed or the queue pair is reset.
unsafe fn post_send(qp: &Owned<ibv_qp>, from: Segment) -> Result<()> {
    let mut sge = ibv_sge { addr: from.addr as u64, length: from.len, lkey: from.lkey };
    // SAFETY: the structure is plain data, for which zeros are a value.
    let mut request: ibv_send_wr = unsafe { mem::zeroed() };
    request.sg_list = &mut sge;
    request.num_sge = 1;
    request.opcode = ibv_wr_opcode::IBV_WR_SEND;
    let mut bad = ptr::null_mut();
    // SAFETY: the queue pair is live, the call copies the request, and the caller answers for the
    // segment.
    check("ibv_post_send", unsafe { ibv_post_send(qp.as_ptr(), &mut request, &mut bad) })
}

fn status_text(status: ibv_wc_status::Type) -> String {
    // SAFETY: libibverbs answers with a constant string, whatever the status.
    unsafe { CStr::from_ptr(ibv_wc_status_str(status)) }.to_string_lossy().into_owned()
}

/// An address of the device's port that RoCEv2 packets carry.
struct Gid {
    index: u8,
    address: Ipv6Addr,
}

impl Gid {
    /// The port's first RoCEv2 address, an IPv4 one if there is one.
    fn find(device: &str) -> Result<Gid> {
        let port = format!("/sys/class/infiniband/{device}/ports/{PORT}");
        let read = |file: String| fs::read_to_string(format!("{port}/{file}"));
        let gids = (0..=u8::MAX).filter_map(|index| {
            // Reading the type of an entry that is not in use is an error.
            let kind = read(format!("gid_attrs/types/{index}")).ok()?;
            let address: Ipv6Addr = read(format!("gids/{index}")).ok()?.trim().parse().ok()?;
            let usable = kind.trim() == "RoCE v2" && !address.is_unspecified();
            usable.then_some(Gid { index, address })
        });
        gids.min_by_key(|gid| gid.address.to_ipv4_mapped().is_none())
            .ok_or_else(|| format!("{device} has no RoCEv2 address (see {port}/gids)").into())
    }
}

fn open_context(name: Option<&str>) -> Result<Owned<ibv_context>> {
    let mut count = 0;
    // SAFETY: `count` is writable.
    let list = unsafe { ibv_get_device_list(&mut count) };
    if list.is_null() {
        let error = io::Error::last_os_error();
        return Err(
            format!("no RDMA in this kernel: ibv_get_device_list: {error}; {REMEDY}").into()
        );
    }
    let found = (0..count as usize)
        // SAFETY: the list has `count` entries.
        .map(|index| unsafe { *list.add(index) })
        // SAFETY: the device is in the list, which is not yet freed.
        .find(|device| name.is_none_or(|name| unsafe { device_name(*device) } == name));
    let context = found.map(|device| {
        // SAFETY: the device is in the list, which is not yet freed; the new context is nobody
        // else's.
        unsafe { own("ibv_open_device", ibv_open_device(device), ibv_close_device) }
    });
    // SAFETY: the list is freed once; an open context keeps its device.
    unsafe { ibv_free_device_list(list) };
    context.unwrap_or_else(|| {
        let missing = name.map_or("no RDMA device".into(), |name| format!("no RDMA device {name}"));
        Err(format!("{missing}; {REMEDY}").into())
    })
}

/// # Safety
///
/// `device` is of a device list that is not yet freed, or of an open context.
unsafe fn device_name(device: *mut ibv_device) -> String {
    // SAFETY: the caller promises that the device is live, and its name is a C string.
    unsafe { CStr::from_ptr(ibv_get_device_name(device)) }.to_string_lossy().into_owned()
}

/// An object of libibverbs that is destroyed with this.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T) -> c_int,
}

impl<T> Owned<T> {
    fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `own`'s caller promised that nobody else destroys it, and that what needs it is
        // gone. There is nobody to tell of an error.
        unsafe { (self.destroy)(self.pointer.as_ptr()) };
    }
}

/// Owns what `call` returned, or reads errno.
///
/// # Safety
///
/// `pointer` is null or an object that `destroy` destroys and nobody else does; it is dropped after
/// all that needs it.
unsafe fn own<T>(
    call: &str,
    pointer: *mut T,
    destroy: unsafe extern "C" fn(*mut T) -> c_int,
) -> Result<Owned<T>> {
    let pointer =
        NonNull::new(pointer).ok_or_else(|| format!("{call}: {}", io::Error::last_os_error()))?;
    Ok(Owned { pointer, destroy })
}

/// The verbs return the value of errno.
fn check(call: &str, result: c_int) -> Result<()> {
    match result {
        0 => Ok(()),
        error => Err(format!("{call}: {}", io::Error::from_raw_os_error(error)).into()),
    }
}
