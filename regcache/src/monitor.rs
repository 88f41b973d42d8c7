//! Who tells that mappings changed.

mod announcements;
mod manual;
#[cfg(feature = "ummunotify")]
mod ummunotify;
#[cfg(feature = "userfaultfd")]
mod userfaultfd;

#[doc(hidden)]
pub use announcements::{Announcements, List};
pub use manual::Manual;
#[cfg(feature = "ummunotify")]
pub use ummunotify::Ummunotify;
#[cfg(feature = "userfaultfd")]
pub use userfaultfd::{Userfaultfd, UserfaultfdError};

use std::os::fd::BorrowedFd;

use crate::range::AddressRange;

/// Names one watch. The cache never uses a value twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cookie(pub u64);

impl Cookie {
    /// A small number that no two watches have at the same time: below
    /// [`Builder::max_regions`](crate::Builder::max_regions).
    pub fn slot(self) -> u32 {
        self.0 as u32
    }
}

/// What became invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// One watch.
    Watch(Cookie),
    /// Whatever overlaps this range, watched or not.
    Range(AddressRange),
}

/// Why a monitor could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MonitorError {
    /// The kernel module refused.
    #[cfg(feature = "ummunotify")]
    #[error(transparent)]
    Ummunotify(#[from] ::ummunotify::Error),
    /// As much is watched as can be.
    #[error("{0} ranges are watched, and no more can be")]
    TooManyWatches(usize),
    /// The monitor would not see all changes of this memory: it is handed out uncached.
    #[error("{range} cannot be watched: {reason}")]
    Unwatchable {
        /// What was to be watched.
        range: AddressRange,
        /// Why not.
        reason: String,
    },
    /// Any other reason.
    #[error("{0}")]
    Other(String),
}

impl MonitorError {
    /// Whether watching something else no more would help.
    pub fn is_limit(&self) -> bool {
        match self {
            #[cfg(feature = "ummunotify")]
            MonitorError::Ummunotify(error) => {
                matches!(error, ::ummunotify::Error::TooManyRegions { .. })
            }
            MonitorError::TooManyWatches(_) => true,
            MonitorError::Unwatchable { .. } | MonitorError::Other(_) => false,
        }
    }

    /// Whether the monitor will never work again.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            #[cfg(feature = "ummunotify")]
            MonitorError::Ummunotify(error) => {
                matches!(error, ::ummunotify::Error::DescriptorLost { .. })
            }
            _ => false,
        }
    }
}

/// A source of truth about changes to this process's mappings.
///
/// # Contract
///
/// The cache is as truthful as its monitor, so an implementation promises:
///
/// 1. Once [`watch`](Monitor::watch) has returned, memory that is pinned afterwards is the memory
///    mapped then, or an event for that cookie follows.
/// 2. [`generation`](Monitor::generation) has moved, as seen by any thread, before a mapping of a
///    watched range changes. It never goes back.
/// 3. [`drain`](Monitor::drain) reports everything that was hit up to the generation it returns.
///
/// The cache calls `drain` from one thread at a time, holds no lock of its own during `watch` and
/// `unwatch`, and calls every method from any thread.
pub trait Monitor: Send + Sync {
    /// The present generation. This is on the path of every lookup: one load.
    fn generation(&self) -> u64;

    /// Watches the pages of `range`.
    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError>;

    /// Stops watching.
    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError>;

    /// Calls `invalid` for each watch or range that was hit, and returns a generation up to which
    /// every hit has been reported. An error means that hits may have been lost: the cache then trusts nothing
    /// that it holds, and caches nothing more.
    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError>;

    /// A generation of one slot, where the monitor has one: as [`generation`](Monitor::generation),
    /// but it moves only for the watch whose cookie [has this slot](Cookie::slot). An event elsewhere
    /// then costs a lookup nothing. For a slot it is always `None` or never.
    #[inline]
    fn slot_generation(&self, slot: u32) -> Option<u64> {
        let _ = slot;
        None
    }

    /// The range of `cookie` has been pinned, and stays pinned for as long as it is watched:
    /// [`verify`](Monitor::verify) may be asked about it.
    fn pinned(&self, cookie: Cookie) {
        let _ = cookie;
    }

    /// Whether the range of `cookie`, of which an event has been reported, still has the pages that
    /// it had when it was [`pinned`](Monitor::pinned). With `true` it goes on being watched, and what
    /// happens from then on is reported by a later drain.
    fn verify(&self, cookie: Cookie) -> bool {
        let _ = cookie;
        false
    }

    /// What becomes readable when there is something to drain.
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
