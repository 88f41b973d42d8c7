//! A monitor that the caller feeds.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Cookie, Monitor, MonitorError};
use crate::range::AddressRange;

/// A monitor that knows only what it is told: for allocators and GPU runtimes that announce their
/// frees, and for tests.
///
/// The promise of the cache holds exactly for the changes that the caller announces, before they
/// happen, by [`invalidate`](Manual::invalidate).
#[derive(Debug, Default)]
pub struct Manual {
    generation: AtomicU64,
    watches: Mutex<Watches>,
}

#[derive(Debug, Default)]
struct Watches {
    ranges: HashMap<Cookie, AddressRange>,
    invalid: Vec<Cookie>,
}

impl Manual {
    /// A monitor with nothing watched.
    pub fn new() -> Manual {
        Manual::default()
    }

    /// Announces that the mappings of `range` are about to change.
    pub fn invalidate(&self, range: AddressRange) {
        let mut watches = self.watches.lock();
        let Watches { ranges, invalid } = &mut *watches;
        let before = invalid.len();
        invalid.extend(ranges.iter().filter(|(_, w)| w.overlaps(range)).map(|(cookie, _)| *cookie));
        if invalid.len() > before {
            // Release pairs with the Acquire in `generation`: who sees the new value and drains
            // finds the events, which the lock also guards.
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}

impl Monitor for Manual {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        match self.watches.lock().ranges.insert(cookie, range) {
            None => Ok(()),
            Some(_) => {
                Err(MonitorError::Other(format!("cookie {:#x} is already watched", cookie.0)))
            }
        }
    }

    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        let mut watches = self.watches.lock();
        watches.invalid.retain(|c| *c != cookie);
        match watches.ranges.remove(&cookie) {
            Some(_) => Ok(()),
            None => Err(MonitorError::Other(format!("cookie {:#x} is not watched", cookie.0))),
        }
    }

    fn drain(&self, invalid: &mut dyn FnMut(Cookie)) -> Result<u64, MonitorError> {
        let (cookies, generation) = {
            let mut watches = self.watches.lock();
            (mem::take(&mut watches.invalid), self.generation.load(Ordering::Relaxed))
        };
        cookies.into_iter().for_each(invalid);
        Ok(generation)
    }
}
