//! Two connected queue pairs of one RDMA device, in one process: what one sends, the other receives.
//!
//! No more of verbs than the demonstration needs. Every transfer is waited for, so there is at most
//! one work request on each queue pair.

mod sys;

use std::ffi::{CStr, CString, c_int, c_void};
use std::fs;
use std::io;
use std::net::Ipv6Addr;
use std::ptr::{self, NonNull};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
pub use sys::Mr;

/// How long a transfer may take. Emulated machines are slow; a device answers in microseconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The same as in `shim.c`.
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
    pd: Owned<sys::Pd>,
    context: Owned<sys::Context>,
    name: String,
    gid: Gid,
}

impl Device {
    /// Opens the device of that name, or the first one.
    pub fn open(name: Option<&str>) -> Result<Device> {
        let context = open_context(name)?;
        // SAFETY: the context is open, and so its device has a name, a C string.
        let name = unsafe { CStr::from_ptr(sys::shim_name(context.as_ptr())) };
        let name = name.to_string_lossy().into_owned();
        let gid = Gid::find(&name)?;
        // SAFETY: the context is open and outlives the pd; the new pd is nobody else's.
        let pd = unsafe {
            own("ibv_alloc_pd", sys::shim_alloc_pd(context.as_ptr()), sys::shim_dealloc_pd)
        }?;
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

    fn active_mtu(&self) -> Result<c_int> {
        let mut mtu = 0;
        // SAFETY: the context is open and `mtu` is writable.
        check("ibv_query_port", unsafe { sys::shim_active_mtu(self.context.as_ptr(), &mut mtu) })?;
        Ok(mtu)
    }
}

/// What the `struct ibv_mr` at `mr` says of itself.
///
/// # Safety
///
/// `mr` is a live `struct ibv_mr`.
pub unsafe fn read_mr(mr: *const c_void) -> Mr {
    let (nothing, key) = (ptr::null_mut(), 0);
    let mut said = Mr { pd: nothing, addr: nothing, length: 0, lkey: key, rkey: key };
    // SAFETY: the caller promises that `mr` is live, and `said` is writable.
    unsafe { sys::shim_read_mr(mr, &mut said) };
    said
}

/// Two queue pairs, each the other's peer.
pub struct Link<'d> {
    // Destroyed in this order.
    sender: Owned<sys::Qp>,
    receiver: Owned<sys::Qp>,
    cq: Owned<sys::Cq>,
    device: &'d Device,
}

impl<'d> Link<'d> {
    /// Creates the queue pairs and connects them.
    pub fn new(device: &'d Device) -> Result<Link<'d>> {
        let context = device.context.as_ptr();
        // SAFETY: the context is open and outlives the queue, which is nobody else's.
        let cq = unsafe {
            let cq = sys::shim_create_cq(context, 8);
            own("ibv_create_cq", cq, sys::shim_destroy_cq)
        }?;
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
                Some(SUCCESS) => {
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
    fn poll(&self) -> Result<Option<c_int>> {
        let mut status = 0;
        // SAFETY: the completion queue is live and `status` is writable.
        match unsafe { sys::shim_poll_cq(self.cq.as_ptr(), &mut status) } {
            0 => Ok(None),
            1 => Ok(Some(status)),
            result => Err(format!("ibv_poll_cq: {result}").into()),
        }
    }

    /// Connects the queue pairs, whatever state they are in, and forgets what they had to do.
    fn connect(&self) -> Result<()> {
        for qp in [&self.sender, &self.receiver] {
            // SAFETY: the queue pair is live.
            check("ibv_modify_qp to RESET", unsafe { sys::shim_to_reset(qp.as_ptr()) })?;
        }
        while self.poll()?.is_some() {}

        let mtu = self.device.active_mtu()?;
        let gid = self.device.gid.address.octets();
        let index = self.device.gid.index;
        for (qp, peer) in [(&self.sender, &self.receiver), (&self.receiver, &self.sender)] {
            let qp = qp.as_ptr();
            // SAFETY: both queue pairs are live, and the address has 16 bytes.
            unsafe {
                let peer = sys::shim_qp_number(peer.as_ptr());
                check("ibv_modify_qp to INIT", sys::shim_to_init(qp))?;
                let result = sys::shim_to_receive(qp, peer, mtu, gid.as_ptr(), index);
                check("ibv_modify_qp to RTR", result)?;
                check("ibv_modify_qp to RTS", sys::shim_to_send(qp))?;
            }
        }
        Ok(())
    }
}

/// `IBV_WC_SUCCESS`.
const SUCCESS: c_int = 0;

fn queue_pair(device: &Device, cq: &Owned<sys::Cq>) -> Result<Owned<sys::Qp>> {
    // SAFETY: the pd and the completion queue are live, and `Link` drops its queue pairs first; the
    // new queue pair is nobody else's.
    unsafe {
        let qp = sys::shim_create_qp(device.pd.as_ptr(), cq.as_ptr());
        own("ibv_create_qp", qp, sys::shim_destroy_qp)
    }
}

/// # Safety
///
/// As for [`Link::transfer`], until the receive has completed or the queue pair is reset.
unsafe fn post_recv(qp: &Owned<sys::Qp>, to: Segment) -> Result<()> {
    // SAFETY: the queue pair is live, the call copies the request, and the caller answers for the
    // segment.
    let result = unsafe { sys::shim_post_recv(qp.as_ptr(), to.addr as u64, to.len, to.lkey) };
    check("ibv_post_recv", result)
}

/// # Safety
///
/// As for [`Link::transfer`], until the send has completed or the queue pair is reset.
unsafe fn post_send(qp: &Owned<sys::Qp>, from: Segment) -> Result<()> {
    // SAFETY: the queue pair is live, the call copies the request, and the caller answers for the
    // segment.
    let result = unsafe { sys::shim_post_send(qp.as_ptr(), from.addr as u64, from.len, from.lkey) };
    check("ibv_post_send", result)
}

fn status_text(status: c_int) -> String {
    // SAFETY: libibverbs answers with a constant string, whatever the status.
    unsafe { CStr::from_ptr(sys::shim_status_text(status)) }.to_string_lossy().into_owned()
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

fn open_context(name: Option<&str>) -> Result<Owned<sys::Context>> {
    let text = name.map(CString::new).transpose()?;
    let pointer = text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
    let mut context = ptr::null_mut();
    // SAFETY: the name is null or a C string, and `context` is writable.
    match unsafe { sys::shim_open(pointer, &mut context) } {
        sys::NO_RDMA => {
            let error = io::Error::last_os_error();
            Err(format!("no RDMA in this kernel: ibv_get_device_list: {error}; {REMEDY}").into())
        }
        sys::NO_DEVICE => {
            let device = name.map(|name| format!(" {name}")).unwrap_or_default();
            Err(format!("no RDMA device{device}; {REMEDY}").into())
        }
        // SAFETY: the new context is nobody else's; it is null if it could not be opened.
        _ => unsafe { own("ibv_open_device", context, sys::shim_close) },
    }
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
