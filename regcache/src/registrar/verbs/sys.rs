//! The calls into libibverbs, which is loaded at run time.
//!
//! Everything unsafe of the verbs registrar is here. The structures and symbols are those of
//! `<infiniband/verbs.h>`.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::NonNull;

use libloading::Library;
use nix::errno::Errno;

use super::VerbsError;

/// The soname of libibverbs since its first release.
pub(super) const LIBRARY: &str = "libibverbs.so.1";

/// `IBV_ACCESS_OPTIONAL_RANGE`: flags that a kernel or a library may ignore.
const OPTIONAL_RANGE: u32 = 0x3ff << 20;

/// `struct ibv_mr`.
#[repr(C)]
struct IbvMr {
    context: *mut c_void,
    pd: *mut c_void,
    addr: *mut c_void,
    length: usize,
    handle: u32,
    lkey: u32,
    rkey: u32,
}

type RegMr = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, c_int) -> *mut IbvMr;
type RegMrIova2 = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, u64, c_uint) -> *mut IbvMr;
type DeregMr = unsafe extern "C" fn(*mut IbvMr) -> c_int;

/// The functions of libibverbs that a registrar calls.
struct Functions {
    reg_mr: RegMr,
    /// Since rdma-core 29.
    reg_mr_iova2: Option<RegMrIova2>,
    dereg_mr: DeregMr,
    /// Keeps the functions mapped; `None` where they are part of this program.
    _library: Option<Library>,
}

impl Functions {
    fn load(name: &'static str) -> Result<Functions, VerbsError> {
        // SAFETY: the initialisers of libibverbs and of its dependencies ask nothing of the caller;
        // they are those of every program that is linked with it.
        let library = unsafe { Library::new(name) };
        let library = library.map_err(|source| VerbsError::Library { name, source })?;
        // dlsym(3) picks the default version of a symbol, as the link editor does: here IBVERBS_1.1
        // and not the ABI of 1.0.
        Ok(Functions {
            // SAFETY: the type is that of the function's declaration in <infiniband/verbs.h>.
            reg_mr: unsafe { symbol(&library, name, "ibv_reg_mr") }?,
            // SAFETY: as above.
            reg_mr_iova2: unsafe { symbol(&library, name, "ibv_reg_mr_iova2") }.ok(),
            // SAFETY: as above.
            dereg_mr: unsafe { symbol(&library, name, "ibv_dereg_mr") }?,
            _library: Some(library),
        })
    }
}

/// # Safety
///
/// `T` is the type of a pointer to the function that `library` exports as `symbol`, and the result
/// is not called after the library is gone.
unsafe fn symbol<T: Copy>(
    library: &Library,
    name: &'static str,
    symbol: &'static str,
) -> Result<T, VerbsError> {
    // SAFETY: the caller promises that T is the type of the symbol.
    match unsafe { library.get::<T>(symbol.as_bytes()) } {
        Ok(function) => Ok(*function),
        Err(source) => Err(VerbsError::Symbol { library: name, symbol, source }),
    }
}

/// A protection domain and the means to register with it.
pub(super) struct Pd {
    pd: NonNull<c_void>,
    functions: Functions,
}

// SAFETY: the pointer is only handed to ibv_reg_mr and ibv_dereg_mr, and the verbs are thread safe:
// libibverbs and its providers lock what they share.
unsafe impl Send for Pd {}
// SAFETY: as above; no method changes anything in this process without libibverbs' own locks.
unsafe impl Sync for Pd {}

impl Pd {
    /// # Safety
    ///
    /// `pd` is a live `struct ibv_pd`, and stays so as long as this value and every [`Mr`] that it
    /// registers.
    pub(super) unsafe fn new(pd: NonNull<c_void>) -> Result<Pd, VerbsError> {
        Ok(Pd { pd, functions: Functions::load(LIBRARY)? })
    }

    pub(super) fn as_ptr(&self) -> NonNull<c_void> {
        self.pd
    }

    /// `ibv_reg_mr`, which in C is a macro: optional flags go by `ibv_reg_mr_iova2`, and a library
    /// that lacks it cannot honour them, so they are dropped, as rdma-core drops them for a kernel
    /// that cannot.
    pub(super) fn reg_mr(&self, addr: usize, len: usize, access: u32) -> Result<Mr, Errno> {
        let pd = self.pd.as_ptr();
        let pointer = addr as *mut c_void;
        let mr = match self.functions.reg_mr_iova2 {
            Some(reg_mr_iova2) if access & OPTIONAL_RANGE != 0 => {
                // SAFETY: `new`'s caller keeps the pd alive. The library does not touch the memory,
                // and the kernel checks the range and answers EFAULT.
                unsafe { reg_mr_iova2(pd, pointer, len, addr as u64, access) }
            }
            _ => {
                let access = (access & !OPTIONAL_RANGE) as c_int;
                // SAFETY: as above.
                unsafe { (self.functions.reg_mr)(pd, pointer, len, access) }
            }
        };
        let mr = NonNull::new(mr).ok_or_else(Errno::last)?;
        // SAFETY: a non-null result is a live ibv_mr, which nobody else knows yet. Its keys are read
        // here, so that nobody needs to look into it after it is gone.
        let (lkey, rkey) = unsafe { ((*mr.as_ptr()).lkey, (*mr.as_ptr()).rkey) };
        Ok(Mr { mr, lkey, rkey })
    }

    /// `ibv_dereg_mr`.
    ///
    /// # Safety
    ///
    /// A [`Pd`] registered `mr`, and no call before has deregistered it.
    pub(super) unsafe fn dereg_mr(&self, mr: &Mr) -> Result<(), Errno> {
        // SAFETY: the caller promises that `mr` is live.
        match unsafe { (self.functions.dereg_mr)(mr.mr.as_ptr()) } {
            0 => Ok(()),
            // The manual promises the value of errno; some providers answer -1 and set errno.
            error @ 1.. => Err(Errno::from_raw(error)),
            _ => Err(Errno::last()),
        }
    }
}

/// A `struct ibv_mr` with a copy of its keys.
#[derive(Debug)]
pub(super) struct Mr {
    mr: NonNull<IbvMr>,
    pub(super) lkey: u32,
    pub(super) rkey: u32,
}

// SAFETY: this module never looks through the pointer after `reg_mr`, and only hands it to
// ibv_dereg_mr, which may be called from any thread.
unsafe impl Send for Mr {}
// SAFETY: as above.
unsafe impl Sync for Mr {}

impl Mr {
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.mr.as_ptr().cast()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::mem::offset_of;

    /// A pd whose functions are `fake_reg_mr`, `fake_dereg_mr` and, if asked for, `fake_iova2`.
    pub(in super::super) fn fake_pd(with_iova2: bool) -> Pd {
        Pd {
            pd: NonNull::dangling(),
            functions: Functions {
                reg_mr: fake_reg_mr,
                reg_mr_iova2: with_iova2.then_some(fake_iova2 as RegMrIova2),
                dereg_mr: fake_dereg_mr,
                _library: None,
            },
        }
    }

    /// Registers anything but address 0; the lkey tells the access that arrived.
    unsafe extern "C" fn fake_reg_mr(
        pd: *mut c_void,
        addr: *mut c_void,
        length: usize,
        access: c_int,
    ) -> *mut IbvMr {
        if addr.is_null() {
            Errno::EFAULT.set();
            return std::ptr::null_mut();
        }
        let (lkey, rkey) = (access as u32, 1);
        Box::into_raw(Box::new(IbvMr { context: pd, pd, addr, length, handle: 0, lkey, rkey }))
    }

    /// As `fake_reg_mr`; the rkey is 2.
    unsafe extern "C" fn fake_iova2(
        pd: *mut c_void,
        addr: *mut c_void,
        length: usize,
        iova: u64,
        access: c_uint,
    ) -> *mut IbvMr {
        assert_eq!(iova, addr as u64);
        let (lkey, rkey) = (access, 2);
        Box::into_raw(Box::new(IbvMr { context: pd, pd, addr, length, handle: 0, lkey, rkey }))
    }

    /// Frees, but is busy for a registration of length 7.
    unsafe extern "C" fn fake_dereg_mr(mr: *mut IbvMr) -> c_int {
        // SAFETY: `mr` came from Box::into_raw in the functions above, and `Pd::dereg_mr`'s caller
        // promises that it has not been freed.
        unsafe {
            if (*mr).length == 7 {
                (*mr).length = 8;
                return Errno::EBUSY as c_int;
            }
            drop(Box::from_raw(mr));
        }
        0
    }

    #[test]
    fn layout_of_ibv_mr() {
        assert_eq!(size_of::<IbvMr>(), 48);
        assert_eq!(offset_of!(IbvMr, addr), 16);
        assert_eq!(offset_of!(IbvMr, length), 24);
        assert_eq!(offset_of!(IbvMr, handle), 32);
        assert_eq!(offset_of!(IbvMr, lkey), 36);
        assert_eq!(offset_of!(IbvMr, rkey), 40);
    }

    #[test]
    fn an_absent_library_is_named_with_its_package() {
        let error = Functions::load("libibverbs-absent.so.1").err().unwrap();
        assert!(matches!(error, VerbsError::Library { .. }));
        let message = error.to_string();
        assert!(message.contains("libibverbs-absent.so.1"), "{message}");
        assert!(message.contains("libibverbs1"), "{message}");
    }

    #[test]
    fn a_library_without_the_functions_is_an_error() {
        let error = Functions::load("libc.so.6").err().unwrap();
        assert!(matches!(error, VerbsError::Symbol { symbol: "ibv_reg_mr", .. }), "{error}");
    }

    #[test]
    fn loads_the_real_library_where_there_is_one() {
        match Functions::load(LIBRARY) {
            Ok(functions) => assert!(functions.reg_mr_iova2.is_some()),
            Err(VerbsError::Library { .. }) => eprintln!("skipped: no {LIBRARY} here"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn optional_flags_take_the_second_entry_or_are_dropped() {
        const RELAXED_ORDERING: u32 = 1 << 20;
        for (with_iova2, access, expected) in [
            (true, 1, (1, 1)),
            (true, 1 | RELAXED_ORDERING, (1 | RELAXED_ORDERING, 2)),
            (false, 1 | RELAXED_ORDERING, (1, 1)),
        ] {
            let pd = fake_pd(with_iova2);
            let mr = pd.reg_mr(0x1000, 16, access).unwrap();
            assert_eq!((mr.lkey, mr.rkey), expected);
            // SAFETY: `mr` was registered above and this is the only deregistration.
            unsafe { pd.dereg_mr(&mr) }.unwrap();
        }
    }
}
