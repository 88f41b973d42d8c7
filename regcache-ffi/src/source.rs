//! Who tells a cache that mappings changed: the kernel and the caller, or the caller alone.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use regcache::AddressRange;
use regcache::monitor::{Cookie, Invalid, Monitor, MonitorError, Ummunotify};

use crate::feed::SharedFeed;

/// A monitor that the caller can add to.
#[derive(Debug)]
pub(crate) struct Source {
    kernel: Option<Ummunotify>,
    feed: SharedFeed,
    /// Announcements so far. It is the generation where there is no kernel.
    fed: AtomicU64,
}

impl Source {
    pub(crate) fn new(kernel: Option<Ummunotify>) -> Source {
        Source { kernel, feed: SharedFeed::default(), fed: AtomicU64::new(0) }
    }

    pub(crate) fn kernel(&self) -> Option<&Ummunotify> {
        self.kernel.as_ref()
    }

    /// Announces a change. With the kernel's monitor it counts from the next drain on; without, from
    /// now on.
    pub(crate) fn announce(&self, range: AddressRange) {
        let mut feed = self.feed.lock();
        feed.push(range);
        // Release pairs with the Acquire in `generation`: who sees the new value and drains finds
        // the range, which the lock also guards.
        self.fed.fetch_add(1, Ordering::Release);
    }
}

impl Monitor for Source {
    #[inline]
    fn generation(&self) -> u64 {
        match &self.kernel {
            Some(kernel) => kernel.generation(),
            None => self.fed.load(Ordering::Acquire),
        }
    }

    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        self.kernel.as_ref().map_or(Ok(()), |kernel| kernel.watch(cookie, range))
    }

    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.kernel.as_ref().map_or(Ok(()), |kernel| kernel.unwatch(cookie))
    }

    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        let (fed, generation) = {
            let mut feed = self.feed.lock();
            (feed.take(), self.fed.load(Ordering::Relaxed))
        };
        match fed {
            Some(ranges) => ranges.into_iter().map(Invalid::Range).for_each(&mut *invalid),
            None => AddressRange::new(0, usize::MAX)
                .map(Invalid::Range)
                .into_iter()
                .for_each(&mut *invalid),
        }
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
