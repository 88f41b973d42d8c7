//! Registration with an RDMA device, through libibverbs.

mod sys;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use super::{Keys, Registrar};
use crate::access::Access;
use crate::range::AddressRange;

/// Why libibverbs could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerbsError {
    /// The library is not installed, or something that it needs is not.
    #[error("cannot load {name} (Debian and Ubuntu: package libibverbs1): {source}")]
    Library {
        /// What was asked for.
        name: &'static str,
        /// What the dynamic linker said.
        source: libloading::Error,
    },
    /// The library lacks a function that every libibverbs has.
    #[error("{library} has no function {symbol}: {source}")]
    Symbol {
        /// The library.
        library: &'static str,
        /// The function.
        symbol: &'static str,
        /// What the dynamic linker said.
        source: libloading::Error,
    },
}

/// Registers memory with a protection domain: any `struct ibv_pd`, from whichever binding of
/// libibverbs.
///
/// libibverbs is loaded at run time, so a program that contains this starts on machines that have
/// none.
pub struct Verbs {
    pd: sys::Pd,
}

impl Verbs {
    /// Registers with `pd`, a pointer to a `struct ibv_pd`.
    ///
    /// # Safety
    ///
    /// `pd` is a live `struct ibv_pd` of the libibverbs.so.1 that the dynamic linker finds, and
    /// outlives the `Verbs` and every region that it registers.
    pub unsafe fn from_pd(pd: NonNull<c_void>) -> Result<Verbs, VerbsError> {
        // SAFETY: the caller promises what `new` asks for.
        Ok(Verbs { pd: unsafe { sys::Pd::new(pd) }? })
    }

    /// The `struct ibv_pd` that it registers with.
    pub fn pd(&self) -> NonNull<c_void> {
        self.pd.as_ptr()
    }
}

impl Registrar for Verbs {
    type Region = VerbsRegion;

    /// `ibv_reg_mr(3)`. Flags that a device may ignore (relaxed ordering) are dropped where the
    /// installed libibverbs does not know them.
    unsafe fn register(&self, range: AddressRange, access: Access) -> Result<VerbsRegion, Errno> {
        let mr = self.pd.reg_mr(range.start(), range.len(), access.bits())?;
        Ok(VerbsRegion { mr, registered: AtomicBool::new(true) })
    }

    /// `ibv_dereg_mr(3)`. `EINVAL` for a region that is deregistered already.
    fn deregister(&self, region: &VerbsRegion) -> Result<(), Errno> {
        // One of several callers wins the flag. Ordering: the flag alone decides who calls; the
        // memory region itself was published to this thread with the `VerbsRegion`.
        if !region.registered.swap(false, Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        // SAFETY: a `VerbsRegion` only comes from `register`, so a `Pd` registered it, and the flag
        // was still set, so nobody has deregistered it.
        let result = unsafe { self.pd.dereg_mr(&region.mr) };
        if result.is_err() {
            region.registered.store(true, Ordering::Relaxed);
        }
        result
    }

    fn keys(&self, region: &VerbsRegion) -> Keys {
        Keys { local: region.lkey(), remote: region.rkey() }
    }
}

/// A memory region of a [`Verbs`]. Dropping it does not deregister.
#[derive(Debug)]
pub struct VerbsRegion {
    mr: sys::Mr,
    registered: AtomicBool,
}

impl VerbsRegion {
    /// The `struct ibv_mr`, which lives until the region is deregistered.
    pub fn as_ptr(&self) -> *mut c_void {
        self.mr.as_ptr()
    }

    /// The key for this process's own work requests.
    pub fn lkey(&self) -> u32 {
        self.mr.lkey
    }

    /// The key for a peer's work requests.
    pub fn rkey(&self) -> u32 {
        self.mr.rkey
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verbs() -> Verbs {
        Verbs { pd: sys::tests::fake_pd(true) }
    }

    impl Verbs {
        fn pin(&self, range: AddressRange, access: Access) -> Result<VerbsRegion, Errno> {
            // SAFETY: the functions are fakes, which let nobody reach any memory.
            unsafe { self.register(range, access) }
        }
    }

    #[test]
    fn registers_and_deregisters_once() {
        let verbs = verbs();
        let range = AddressRange::new(0x1000, 16).unwrap();
        let region = verbs.pin(range, Access::LOCAL_WRITE).unwrap();
        assert_eq!(verbs.keys(&region), Keys { local: 1, remote: 1 });
        assert!(!region.as_ptr().is_null());
        assert_eq!(verbs.deregister(&region), Ok(()));
        assert_eq!(verbs.deregister(&region), Err(Errno::EINVAL));
    }

    #[test]
    fn a_refusal_is_the_errno() {
        let range = AddressRange::new(0, 16).unwrap();
        let result = verbs().pin(range, Access::empty());
        assert_eq!(result.err(), Some(Errno::EFAULT));
    }

    #[test]
    fn a_busy_region_can_be_deregistered_later() {
        let verbs = verbs();
        let region = verbs.pin(AddressRange::new(0x1000, 7).unwrap(), Access::empty()).unwrap();
        assert_eq!(verbs.deregister(&region), Err(Errno::EBUSY));
        assert_eq!(verbs.deregister(&region), Ok(()));
    }

    #[test]
    fn crosses_threads() {
        fn check<T: Send + Sync>() {}
        check::<Verbs>();
        check::<VerbsRegion>();
    }
}
