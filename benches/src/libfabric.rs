//! libfabric's registration cache, as its `verbs` provider uses it for `fi_mr_reg`.

use std::ffi::{c_int, c_void};
use std::hint::black_box;
use std::ptr::{self, NonNull};

use regcache::page_size;

use crate::subject::Subject;

/// The library's name and version, as its headers' package tells it.
pub const NAME: &str = concat!("libfabric ", env!("LIBFABRIC_VERSION"));

/// `struct fid_domain` and `struct fid_mr`, never looked into.
type Opaque = c_void;

unsafe extern "C" {
    fn libfabric_shim_open(domain: *mut *mut Opaque) -> c_int;
    fn libfabric_shim_get(
        domain: *mut Opaque,
        addr: *const c_void,
        len: usize,
        mr: *mut *mut Opaque,
    ) -> c_int;
    fn libfabric_shim_key(mr: *mut Opaque) -> u64;
    fn libfabric_shim_put(mr: *mut Opaque) -> c_int;
}

/// A domain of libfabric's, which lives as long as the process.
#[derive(Debug, Clone, Copy)]
pub struct Libfabric {
    domain: NonNull<Opaque>,
    page_size: usize,
}

// SAFETY: a domain is thread-safe unless its user asks for less (FI_THREAD_SAFE, fi_domain(3)).
unsafe impl Send for Libfabric {}
// SAFETY: the same.
unsafe impl Sync for Libfabric {}

impl Libfabric {
    /// Opens the first RDMA device, with a cache of `max_regions` registrations.
    ///
    /// # Safety
    ///
    /// The process has one thread, and has not used libfabric yet.
    pub unsafe fn open(max_regions: usize) -> Result<Libfabric, String> {
        // SAFETY: the caller promises that no other thread reads the environment.
        unsafe { std::env::set_var("FI_MR_CACHE_MAX_COUNT", max_regions.to_string()) };
        let mut domain = ptr::null_mut();
        // SAFETY: `domain` is writable.
        let result = unsafe { libfabric_shim_open(&mut domain) };
        match (result, NonNull::new(domain)) {
            (0, Some(domain)) => Ok(Libfabric { domain, page_size: page_size() }),
            _ => Err(format!("libfabric's verbs provider does not open: {result}")),
        }
    }

    /// Gets the registration of the page at `addr`, lets it go, and returns what names it in work
    /// requests. A cached one keeps its name.
    #[inline]
    pub fn key(&self, addr: usize) -> u64 {
        let mut mr = ptr::null_mut();
        // SAFETY: the domain is live and `mr` is writable; no peer is given a key.
        let result = unsafe {
            libfabric_shim_get(self.domain.as_ptr(), addr as *const c_void, self.page_size, &mut mr)
        };
        assert!(result == 0, "fi_mr_reg: {result}");
        // SAFETY: the region was just got, and is closed once.
        unsafe {
            let key = libfabric_shim_key(mr);
            assert!(libfabric_shim_put(mr) == 0, "fi_close");
            key
        }
    }
}

impl Subject for Libfabric {
    #[inline(never)]
    fn look_up(&mut self, addr: usize) {
        black_box(self.key(addr));
    }
}
