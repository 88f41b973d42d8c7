//! The cache's locks, which know that a thread is inside one.
//!
//! What a thread does under a lock may call the allocator, and an allocator may call the cache: then
//! the thread would wait for itself. So each public function asks first, and is refused instead.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard};

thread_local! {
    /// Locks that this thread has or waits for, of whatever cache. No destructor, so that reaching it
    /// allocates nothing.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Whether this thread has a lock of some cache.
pub(crate) fn is_inside() -> bool {
    // In the last moments of a thread it has none.
    INSIDE.try_with(|inside| inside.get() > 0).unwrap_or(false)
}

#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> Locked<'_, T> {
        // Before the lock is had: to wait for it may allocate too.
        let inside = Inside::enter();
        Locked { value: self.0.lock(), _inside: inside }
    }
}

/// The fields are dropped in this order.
pub(crate) struct Locked<'l, T> {
    value: MutexGuard<'l, T>,
    _inside: Inside,
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

struct Inside;

impl Inside {
    fn enter() -> Inside {
        let _ = INSIDE.try_with(|inside| inside.set(inside.get() + 1));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.set(inside.get().saturating_sub(1)));
    }
}
