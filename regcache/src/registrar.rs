//! Who pins memory.

#[cfg(feature = "io-uring")]
mod io_uring;
#[cfg(feature = "verbs")]
mod verbs;

#[cfg(feature = "io-uring")]
pub use io_uring::{IoUring, IoUringError, IoUringRegion};
#[cfg(feature = "verbs")]
pub use verbs::{Verbs, VerbsError, VerbsRegion};

use nix::errno::Errno;

use crate::access::Access;
use crate::range::AddressRange;

/// The keys by which work requests name a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// Names the registration in this process's own work requests.
    pub local: u32,
    /// Names it in a peer's work requests.
    pub remote: u32,
}

/// Pins memory for a device and lets it go.
///
/// The cache calls every method from any thread and holds no lock meanwhile.
pub trait Registrar: Send + Sync {
    /// A registration.
    type Region: Send + Sync;

    /// Pins `range`, long-term. An error that [`is_exhausted`](Registrar::is_exhausted) makes the
    /// cache evict and try again.
    ///
    /// # Safety
    ///
    /// Where `access` [is remote](Access::is_remote), a peer may reach the memory until the region
    /// is deregistered: the caller makes sure that this breaks no promise that Rust relies on, as
    /// for [`Cache::get_or_register_remote`](crate::Cache::get_or_register_remote). Other accesses
    /// ask nothing of the caller.
    unsafe fn register(&self, range: AddressRange, access: Access) -> Result<Self::Region, Errno>;

    /// Unpins. After `Ok` the cache does not touch `region` again; after an error (`EBUSY` while a
    /// memory window is bound) it calls again later.
    fn deregister(&self, region: &Self::Region) -> Result<(), Errno>;

    /// Whether an error of [`register`](Registrar::register) means that there are too many
    /// registrations, so that ending one may help. Devices and kernels say it in many ways: by
    /// default, ENOMEM, EAGAIN, ENOSPC, EBUSY, EMFILE and ENFILE.
    fn is_exhausted(&self, errno: Errno) -> bool {
        use Errno::{EAGAIN, EBUSY, EMFILE, ENFILE, ENOMEM, ENOSPC};
        matches!(errno, ENOMEM | EAGAIN | ENOSPC | EBUSY | EMFILE | ENFILE)
    }

    /// The keys of `region`.
    fn keys(&self, region: &Self::Region) -> Keys;

    /// What is in the way, in words for a person, where the registrar knows more than `errno` says.
    /// Asked after [`register`](Registrar::register) has failed, on the way to the error.
    fn why(&self, range: AddressRange, access: Access, errno: Errno) -> Option<String> {
        let _ = (range, access, errno);
        None
    }
}
