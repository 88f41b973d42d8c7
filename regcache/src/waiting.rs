//! Who waits for whom: a registrar may look up memory that another thread is registering, whose
//! registrar may look up what this one is registering. Nobody waits where that would be a circle.

use crate::fork::PerProcess;
use crate::lock::Lock;
use crate::tls::this_thread;

/// The first waits for the second, in whatever cache of the process.
static WAITS: PerProcess<Lock<Vec<(usize, usize)>>> = PerProcess::new();

/// While it lives, a thread waits for another.
pub(crate) struct Waiting(usize, usize);

impl Waiting {
    /// `waiter` begins to wait for `other`; `None` where that one waits for `waiter` already.
    pub(crate) fn begin(waiter: usize, other: usize) -> Option<Waiting> {
        let mut waits = WAITS.get()?.lock();
        if leads_to(&waits, other, waiter) {
            return None;
        }
        waits.push((waiter, other));
        Some(Waiting(waiter, other))
    }

    /// This thread begins to wait for `other`.
    pub(crate) fn here(other: usize) -> Option<Waiting> {
        Waiting::begin(this_thread(), other)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(waits) = WAITS.get() else { return };
        let mut waits = waits.lock();
        let at = waits.iter().position(|(from, to)| (*from, *to) == (self.0, self.1));
        if let Some(at) = at {
            waits.swap_remove(at);
        }
    }
}

/// There are no circles in `waits`, so this ends; and as few edges as threads that wait now.
fn leads_to(waits: &[(usize, usize)], from: usize, to: usize) -> bool {
    from == to
        || waits
            .iter()
            .filter(|(waiter, _)| *waiter == from)
            .any(|(_, on)| leads_to(waits, *on, to))
}
