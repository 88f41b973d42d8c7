//! Who tells a cache that mappings changed: the kernel and the caller, or the caller alone.

use regcache::AddressRange;
use regcache::monitor::{Cookie, Invalid, Manual, Monitor, MonitorError, Ummunotify};
use std::os::fd::BorrowedFd;

/// A monitor that the caller can add to.
#[derive(Debug)]
pub(crate) struct Source {
    kernel: Option<Ummunotify>,
    /// Its generation counts where there is no kernel.
    announced: Manual,
}

impl Source {
    pub(crate) fn new(kernel: Option<Ummunotify>) -> Source {
        Source { kernel, announced: Manual::new() }
    }

    pub(crate) fn kernel(&self) -> Option<&Ummunotify> {
        self.kernel.as_ref()
    }

    /// Announces a change. With the kernel's monitor it counts from the next drain on; without, from
    /// now on.
    pub(crate) fn announce(&self, range: AddressRange) {
        self.announced.invalidate(range);
    }
}

impl Monitor for Source {
    #[inline]
    fn generation(&self) -> u64 {
        match &self.kernel {
            Some(kernel) => kernel.generation(),
            None => self.announced.generation(),
        }
    }

    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        self.kernel.as_ref().map_or(Ok(()), |kernel| kernel.watch(cookie, range))
    }

    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.kernel.as_ref().map_or(Ok(()), |kernel| kernel.unwatch(cookie))
    }

    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        let generation = self.announced.drain(invalid)?;
        self.kernel.as_ref().map_or(Ok(generation), |kernel| kernel.drain(invalid))
    }

    #[inline]
    fn slot_generation(&self, slot: u32) -> Option<u64> {
        self.kernel.as_ref()?.slot_generation(slot)
    }

    fn pinned(&self, cookie: Cookie) {
        if let Some(kernel) = &self.kernel {
            kernel.pinned(cookie);
        }
    }

    fn verify(&self, cookie: Cookie) -> bool {
        self.kernel.as_ref().is_some_and(|kernel| kernel.verify(cookie))
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.kernel.as_ref()?.pollable()
    }
}
