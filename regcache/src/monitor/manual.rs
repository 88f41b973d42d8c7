//! A monitor that the caller feeds.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Cookie, Invalid, Monitor, MonitorError};
use crate::range::AddressRange;

/// A monitor that knows only what it is told: for allocators and GPU runtimes that announce their
/// frees, and for tests.
///
/// The promise of the cache holds exactly for the changes that the caller announces, before they
/// happen, by [`invalidate`](Manual::invalidate).
#[derive(Debug, Default)]
pub struct Manual {
    generation: AtomicU64,
    announced: Mutex<Vec<AddressRange>>,
}

impl Manual {
    /// A monitor that has been told nothing.
    pub fn new() -> Manual {
        Manual::default()
    }

    /// Announces that the mappings of `range` are about to change.
    pub fn invalidate(&self, range: AddressRange) {
        let mut announced = self.announced.lock();
        announced.push(range);
        // Release pairs with the Acquire in `generation`: who sees the new value and drains finds
        // the range, which the lock also guards.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Monitor for Manual {
    #[inline]
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Nothing to do: the cache itself knows what an announced range concerns.
    fn watch(&self, _cookie: Cookie, _range: AddressRange) -> Result<(), MonitorError> {
        Ok(())
    }

    fn unwatch(&self, _cookie: Cookie) -> Result<(), MonitorError> {
        Ok(())
    }

    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        let (announced, generation) = {
            let mut announced = self.announced.lock();
            (mem::take(&mut *announced), self.generation.load(Ordering::Relaxed))
        };
        announced.into_iter().map(Invalid::Range).for_each(invalid);
        Ok(generation)
    }
}
