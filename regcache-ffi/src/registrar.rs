//! Who pins: libibverbs, or the caller's callbacks.

use std::ffi::c_void;
use std::sync::Arc;

use libc::c_int;
use nix::errno::Errno;
use regcache::registrar::{Keys, Registrar, Verbs, VerbsRegion};
use regcache::{Access, AddressRange};

use crate::boundary;
use crate::completion::Living;
use crate::region::{OwnRegion, Region};

/// `mem_reg` and `mem_dereg` of `struct regcache_callbacks`
pub type RegionFn = unsafe extern "C-unwind" fn(context: *mut c_void, region: *mut Region) -> c_int;

/// The caller's two functions.
pub(crate) struct Functions {
    pub mem_reg: RegionFn,
    pub mem_dereg: RegionFn,
    pub context: *mut c_void,
}

// SAFETY: the header says that the functions are called on any thread, with this context.
unsafe impl Send for Functions {}
// SAFETY: as above.
unsafe impl Sync for Functions {}

impl Functions {
    fn call(&self, function: RegionFn, region: &OwnRegion) -> Result<(), Errno> {
        // SAFETY: the caller of regcache_create() promised functions that can be called with this
        // context and a region.
        match boundary::callback(|| unsafe { function(self.context, region.as_ptr()) }) {
            Some(0) => Ok(()),
            Some(code) => Err(errno(code)),
            None => Err(Errno::ENOTRECOVERABLE),
        }
    }
}

/// What a callback said. The header asks for a negative errno; a positive one is understood.
fn errno(code: c_int) -> Errno {
    match Errno::from_raw(code.saturating_abs()) {
        Errno::UnknownErrno => Errno::EIO,
        errno => errno,
    }
}

/// Who pins.
pub(crate) enum Backend {
    Verbs(Verbs),
    Callbacks(Functions),
}

/// A registrar whose regions C can see.
pub(crate) struct Pinner {
    pub backend: Backend,
    pub payload_size: usize,
    pub living: Arc<Living>,
}

/// A registration: what C sees, and libibverbs' own.
pub(crate) struct Pinned {
    region: OwnRegion,
    verbs: Option<VerbsRegion>,
}

impl Pinned {
    #[inline]
    pub(crate) fn region(&self) -> *const Region {
        self.region.as_ptr()
    }
}

impl Registrar for Pinner {
    type Region = Pinned;

    unsafe fn register(&self, range: AddressRange, access: Access) -> Result<Pinned, Errno> {
        let region = OwnRegion::new(range, access, self.payload_size)?;
        let verbs = match &self.backend {
            Backend::Verbs(verbs) => {
                // SAFETY: the caller promises the same.
                let mr = unsafe { verbs.register(range, access) }?;
                // SAFETY: nobody else knows of the region yet.
                let own = unsafe { &mut *region.as_ptr() };
                (own.lkey, own.rkey, own.mr) = (mr.lkey(), mr.rkey(), mr.as_ptr());
                Some(mr)
            }
            Backend::Callbacks(functions) => {
                functions.call(functions.mem_reg, &region)?;
                None
            }
        };
        self.living.begin(region.as_ptr() as usize, range);
        Ok(Pinned { region, verbs })
    }

    fn deregister(&self, pinned: &Pinned) -> Result<(), Errno> {
        match (&self.backend, &pinned.verbs) {
            (Backend::Verbs(verbs), Some(region)) => verbs.deregister(region),
            (Backend::Callbacks(functions), _) => {
                functions.call(functions.mem_dereg, &pinned.region)
            }
            (Backend::Verbs(_), None) => Err(Errno::EINVAL),
        }?;
        // No lock is held here.
        drop(self.living.end(pinned.region.as_ptr() as usize));
        Ok(())
    }

    fn keys(&self, pinned: &Pinned) -> Keys {
        let region = pinned.region.get();
        Keys { local: region.lkey, remote: region.rkey }
    }
}
