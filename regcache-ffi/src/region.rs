//! A registration, as C sees it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::ptr::NonNull;

use nix::errno::Errno;
use regcache::{Access, AddressRange};

/// `struct regcache_region`
#[repr(C)]
#[derive(Debug)]
pub struct Region {
    /// The first byte that is registered.
    pub addr: *mut c_void,
    /// How many bytes are.
    pub len: usize,
    /// With what access.
    pub access: u32,
    /// The key for own work requests.
    pub lkey: u32,
    /// The key for a peer's work requests.
    pub rkey: u32,
    /// Zero.
    pub reserved: u32,
    /// `struct ibv_mr *`, or what the callback put there.
    pub mr: *mut c_void,
    /// The caller's bytes, or NULL.
    pub payload: *mut c_void,
}

/// Payloads are aligned as malloc(3)'s memory is.
const ALIGN: usize = 16;
const PAYLOAD_AT: usize = size_of::<Region>().next_multiple_of(ALIGN);

/// The largest payload.
pub(crate) const MOST_PAYLOAD: usize = 1 << 20;

/// A region and its payload, in one piece of memory.
#[derive(Debug)]
pub(crate) struct OwnRegion {
    region: NonNull<Region>,
    layout: Layout,
}

// SAFETY: it is plain memory that the value owns. The registering callback writes to it before the
// cache knows of it; from then on it is only read, but for the payload, which is the caller's.
unsafe impl Send for OwnRegion {}
// SAFETY: as above.
unsafe impl Sync for OwnRegion {}

impl OwnRegion {
    pub(crate) fn new(
        range: AddressRange,
        access: Access,
        payload_size: usize,
    ) -> Result<OwnRegion, Errno> {
        let layout =
            Layout::from_size_align(PAYLOAD_AT + payload_size, ALIGN).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let region = NonNull::new(memory.cast::<Region>()).ok_or(Errno::ENOMEM)?;
        let payload = match payload_size {
            0 => std::ptr::null_mut(),
            // SAFETY: the memory is larger than this.
            _ => unsafe { memory.add(PAYLOAD_AT) }.cast(),
        };
        let value = Region {
            addr: range.start() as *mut c_void,
            len: range.len(),
            access: access.bits(),
            lkey: 0,
            rkey: 0,
            reserved: 0,
            mr: std::ptr::null_mut(),
            payload,
        };
        // SAFETY: the memory is new, aligned and large enough.
        unsafe { region.write(value) };
        Ok(OwnRegion { region, layout })
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut Region {
        self.region.as_ptr()
    }

    /// The region, when the callback has filled it.
    #[inline]
    pub(crate) fn get(&self) -> &Region {
        // SAFETY: it is initialised, and nobody writes to it any more.
        unsafe { self.region.as_ref() }
    }
}

impl Drop for OwnRegion {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout; tickets on it are gone.
        unsafe { dealloc(self.region.as_ptr().cast(), self.layout) };
    }
}
