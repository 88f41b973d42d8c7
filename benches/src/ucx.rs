//! UCX's registration cache, `ucs_rcache`, with registrations that cost nothing.

use std::ffi::{c_int, c_ulong, c_void};
use std::hint::black_box;
use std::ptr::{self, NonNull};

use regcache::page_size;

use crate::subject::Subject;

/// `ucs_rcache_t`, `ucs_rcache_region_t` and the shim's own structure, never looked into.
type Opaque = c_void;

/// `ucs_status_t` is a packed enumeration: a byte.
type Status = i8;

const UCS_OK: Status = 0;
/// `UCS_RCACHE_MIN_ALIGNMENT`, as UCX's own users ask for.
#[cfg(ucx_alignment_by_lookup)]
const MIN_ALIGNMENT: usize = 16;
const PROT: c_int = libc::PROT_READ | libc::PROT_WRITE;

unsafe extern "C" {
    fn ucx_shim_create(max_regions: c_ulong, rcache: *mut *mut Opaque) -> *mut Opaque;
    fn ucx_shim_registrations(counted: *mut Opaque) -> u64;
    // <ucs/memory/rcache.h>
    fn ucs_rcache_get(
        rcache: *mut Opaque,
        address: *mut c_void,
        length: usize,
        #[cfg(ucx_alignment_by_lookup)] alignment: usize,
        prot: c_int,
        arg: *mut c_void,
        region: *mut *mut Opaque,
    ) -> Status;
    fn ucs_rcache_region_put(rcache: *mut Opaque, region: *mut Opaque);
    // <ucm/api/ucm.h>
    fn ucm_vm_munmap(addr: *mut c_void, length: usize);
}

/// A cache of UCX's, which lives as long as the process.
#[derive(Debug, Clone, Copy)]
pub struct Ucx {
    rcache: NonNull<Opaque>,
    counted: NonNull<Opaque>,
    page_size: usize,
}

// SAFETY: `ucs_rcache` is made for any number of threads, and the count is atomic.
unsafe impl Send for Ucx {}
// SAFETY: the same.
unsafe impl Sync for Ucx {}

impl Ucx {
    /// Makes a cache of at most `max_regions` registrations.
    pub fn new(max_regions: usize) -> Ucx {
        let mut rcache = ptr::null_mut();
        // SAFETY: `rcache` is writable.
        let counted = unsafe { ucx_shim_create(max_regions as c_ulong, &mut rcache) };
        let counted = NonNull::new(counted).expect("ucs_rcache_create");
        Ucx {
            rcache: NonNull::new(rcache).expect("ucs_rcache_create"),
            counted,
            page_size: page_size(),
        }
    }

    /// How often it has registered.
    pub fn registrations(&self) -> u64 {
        // SAFETY: the shim made it and nobody frees it.
        unsafe { ucx_shim_registrations(self.counted.as_ptr()) }
    }

    /// Tells it, as its hooks would, that the page at `addr` is about to be unmapped.
    pub fn announce(&self, addr: usize) {
        // SAFETY: any range may be announced; every cache of the process only forgets it.
        unsafe { ucm_vm_munmap(addr as *mut c_void, page_size()) };
    }
}

impl Subject for Ucx {
    #[inline(never)]
    fn look_up(&mut self, addr: usize) {
        let (rcache, mut region) = (self.rcache.as_ptr(), ptr::null_mut());
        // SAFETY: the cache is live; it never touches the memory, and `region` is writable.
        let status = unsafe {
            let arg = ptr::null_mut();
            ucs_rcache_get(
                rcache,
                addr as *mut c_void,
                self.page_size,
                #[cfg(ucx_alignment_by_lookup)]
                MIN_ALIGNMENT,
                PROT,
                arg,
                &mut region,
            )
        };
        assert!(status == UCS_OK, "ucs_rcache_get: {status}");
        // SAFETY: the region was just got from this cache, and starts with its address; a caller
        // reads its keys.
        unsafe {
            black_box(region.cast::<usize>().read());
            ucs_rcache_region_put(rcache, region);
        }
    }
}

/// The library's name and version, as its headers' package tells it.
pub const NAME: &str = concat!("UCX ", env!("UCX_VERSION"));
