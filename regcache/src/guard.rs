//! A registration on loan.

use std::fmt;
use std::ptr::NonNull;

use crate::access::Access;
use crate::cells::HoldCell;
use crate::lock;
use crate::monitor::Monitor;
use crate::range::AddressRange;
use crate::registrar::Registrar;
use crate::shared::{BodyOf, Shared, SlotOf};
use crate::slot::{Phase, Slot};
use crate::unwinding::FirstPanic;

/// A registration that stays registered at least until this is dropped.
///
/// It is of the memory that was mapped when it was handed out. If the mapping changes while the
/// guard lives, the registration stays what it was, no later lookup returns it, and it is
/// deregistered when the last guard on it is dropped. A clone is another guard on the same
/// registration. Three words in size; it may be dropped on any thread, but not in a signal handler.
/// Nor in an allocator: where the cache itself has called that, a registration that is not cached is
/// leaked.
#[must_use = "the registration may be gone as soon as the guard is dropped"]
pub struct Guard<'c, R: Registrar, M: Monitor> {
    slot: NonNull<SlotOf<R>>,
    /// What it is held by; `None` for the slot's count.
    cell: Option<&'c HoldCell>,
    home: &'c Shared<R, M>,
}

// SAFETY: a guard is a shared reference to the slot and the cell, and both may be shared among
// threads, as the cache may. Whoever drops it stores to the cell atomically.
unsafe impl<R: Registrar, M: Monitor> Send for Guard<'_, R, M> {}
// SAFETY: as above.
unsafe impl<R: Registrar, M: Monitor> Sync for Guard<'_, R, M> {}

impl<'c, R: Registrar, M: Monitor> Guard<'c, R, M> {
    /// # Safety
    ///
    /// The slot lives for `'c`, holds a registration, and is held by `cell` or by a count, which
    /// becomes the guard's; or it is a leaked one that [`Slot::uncached`] made.
    #[inline]
    pub(crate) unsafe fn new(
        home: &'c Shared<R, M>,
        slot: NonNull<SlotOf<R>>,
        cell: Option<&'c HoldCell>,
    ) -> Self {
        Guard { slot, cell, home }
    }

    /// Lends out a registration that is not in the table.
    pub(crate) fn uncached(home: &'c Shared<R, M>, body: BodyOf<R>) -> Self {
        home.outside.lock().add(body.range);
        let slot = Slot::uncached(body);
        slot.add_reference();
        // SAFETY: it is leaked until the last guard on it is dropped.
        unsafe { Guard::new(home, NonNull::from(Box::leak(slot)), None) }
    }

    #[inline]
    fn slot(&self) -> &SlotOf<R> {
        // SAFETY: `new` was promised that it lives as long as the guard.
        unsafe { self.slot.as_ref() }
    }

    #[inline]
    fn body(&self) -> &BodyOf<R> {
        // SAFETY: the guard holds the slot.
        unsafe { self.slot().body() }
    }

    /// The key for this process's own work requests.
    #[inline]
    pub fn lkey(&self) -> u32 {
        self.body().keys.local
    }

    /// The key for a peer's work requests. A key that was given to a peer opens the memory until the
    /// registration is gone, which may be long after the guard is dropped:
    /// [`Cache::revoke`](crate::Cache::revoke) ends it.
    #[inline]
    pub fn rkey(&self) -> u32 {
        self.body().keys.remote
    }

    /// The registration itself.
    #[inline]
    pub fn region(&self) -> &R::Region {
        &self.body().region
    }

    /// What is registered: at least what was asked for.
    pub fn range(&self) -> AddressRange {
        self.body().range
    }

    /// With what access: at least what was asked for.
    pub fn access(&self) -> Access {
        self.body().access
    }

    /// Whether the cache holds the registration. If not, it is deregistered when the guard drops;
    /// [`Stats`](crate::Stats) has the reasons.
    pub fn is_cached(&self) -> bool {
        !self.slot().state().is(Phase::Uncached)
    }

    /// The last guard on a registration that is not in the table.
    #[cold]
    fn end_uncached(home: &Shared<R, M>, slot: NonNull<SlotOf<R>>) {
        if home.owner.is_foreign() {
            // It is the parent's; this copy of it is leaked.
            return;
        }
        if lock::is_inside() {
            // To deregister takes locks that this thread has: it is leaked, and stays pinned.
            home.counters.deregister_failures.add(1);
            return;
        }
        // SAFETY: `uncached` leaked it, and the last guard on it is being dropped.
        let slot = unsafe { Box::from_raw(slot.as_ptr()) };
        // SAFETY: it was filled when it was made, and nobody else knows of it any more.
        let body = unsafe { slot.take() };
        let range = body.range;
        let mut panic = FirstPanic::default();
        panic.catch(|| home.let_go([body]));
        home.outside.lock().remove(range);
        panic.resume();
    }
}

impl<R: Registrar, M: Monitor> Clone for Guard<'_, R, M> {
    /// Counts, so that a scan of the cells, which comes before the look at the count, cannot miss
    /// both this guard's cell and its clone's.
    fn clone(&self) -> Self {
        self.slot().add_reference();
        Guard { slot: self.slot, cell: None, home: self.home }
    }
}

impl<R: Registrar, M: Monitor> Drop for Guard<'_, R, M> {
    #[inline]
    fn drop(&mut self) {
        let (home, slot) = (self.home, self.slot());
        if self.cell.is_none() && slot.state().is(Phase::Uncached) {
            // SAFETY: the slot is one that `Slot::uncached` made, and this guard ends.
            if unsafe { Slot::release_uncached(self.slot) } {
                Self::end_uncached(home, self.slot);
            }
            return;
        }
        home.let_go_of(slot, self.cell);
    }
}

impl<R: Registrar, M: Monitor> fmt::Debug for Guard<'_, R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("range", &self.range())
            .field("access", &self.access())
            .field("lkey", &self.lkey())
            .field("rkey", &self.rkey())
            .field("cached", &self.is_cached())
            .finish()
    }
}
