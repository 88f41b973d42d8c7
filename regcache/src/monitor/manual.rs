//! A monitor that the caller feeds.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Announcements, Cookie, Invalid, Monitor, MonitorError};
use crate::fork::Owner;
use crate::range::AddressRange;

/// A monitor that knows only what it is told: for allocators and GPU runtimes that announce their
/// frees, and for tests.
///
/// The promise of the cache holds exactly for the changes that the caller announces, before they
/// happen, by [`invalidate`](Manual::invalidate). It belongs to the process that made it: in a
/// forked child, whose copy may be in the midst of anything, `invalidate` does not wait, and a cache
/// that the child makes over it keeps nothing once it has been told of a change.
#[derive(Debug)]
pub struct Manual {
    /// `None` where forks cannot be told: then no cache can be made either.
    owner: Option<Owner>,
    generation: AtomicU64,
    announced: Announcements,
}

impl Manual {
    /// A monitor that has been told nothing.
    pub fn new() -> Manual {
        Manual {
            owner: Owner::current().ok(),
            generation: AtomicU64::new(0),
            announced: Announcements::new(),
        }
    }

    fn is_foreign(&self) -> bool {
        self.owner.is_some_and(Owner::is_foreign)
    }

    /// Announces that the mappings of `range` are about to change. It allocates nothing, so that a
    /// global allocator may call it, in the midst of a lookup too. Of more than 1,024 ranges that no
    /// lookup has asked for it is remembered that all memory may have changed.
    pub fn invalidate(&self, range: AddressRange) {
        if self.is_foreign() {
            // The lock may be another thread's, which is not in this process. The cache drains, and
            // is told that nothing is known any more. Release as below.
            self.generation.fetch_add(1, Ordering::Release);
            return;
        }
        let mut announced = self.announced.lock();
        announced.push(range);
        // Release pairs with the Acquire in `generation`: who sees the new value and drains finds
        // the range, which the lock also guards.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl Default for Manual {
    fn default() -> Manual {
        Manual::new()
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
        if self.is_foreign() {
            return Err(MonitorError::Other("this monitor belongs to the parent process".into()));
        }
        // Relaxed: under the list's lock.
        let generation = || self.generation.load(Ordering::Relaxed);
        let (announced, generation) = self.announced.take(generation);
        announced.into_iter().map(Invalid::Range).for_each(invalid);
        Ok(generation)
    }
}
