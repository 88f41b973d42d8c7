//! What C has in its hands: a few words that are never freed, so that a call on a handle that was
//! destroyed is an error and not a look at memory that is gone.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::failure::Failure;

/// A handle on a `T`, which lives until it is closed.
#[repr(C)]
pub struct Handle<T> {
    /// Names what the handle is on; never used twice in a process. 0 when it is closed.
    id: AtomicU64,
    body: AtomicPtr<T>,
}

/// Handles that were closed. They stay reachable, so that no search for leaks complains.
static CLOSED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

impl<T> Handle<T> {
    /// A handle on what `make` makes of its name.
    pub(crate) fn open(make: impl FnOnce(u64) -> T) -> *mut Handle<T> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Relaxed: a number says nothing about other memory.
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let body = Box::into_raw(Box::new(make(id)));
        Box::into_raw(Box::new(Handle { id: AtomicU64::new(id), body: AtomicPtr::new(body) }))
    }

    /// The name of what it is on, 0 if that is no more.
    #[inline]
    pub(crate) fn id(&self) -> u64 {
        // Relaxed: who uses a handle while it is destroyed breaks the contract; who uses it after
        // that sees it.
        self.id.load(Ordering::Relaxed)
    }

    /// What the handle is on.
    #[inline]
    pub(crate) fn body(&self) -> Result<&T, Failure> {
        // SAFETY: it lives until the handle is closed, and the header forbids that during a call.
        // Acquire pairs with the swap in `close`.
        unsafe { self.body.load(Ordering::Acquire).as_ref() }.ok_or_else(Failure::dead)
    }

    /// Closes the handle and returns what it was on.
    ///
    /// # Safety
    ///
    /// No call on the handle is under way, and no reference to the body is left.
    pub(crate) unsafe fn close(&self) -> Result<Box<T>, Failure> {
        let body = self.body.swap(ptr::null_mut(), Ordering::AcqRel);
        if body.is_null() {
            return Err(Failure::dead());
        }
        self.id.store(0, Ordering::Relaxed);
        CLOSED.lock().push(ptr::from_ref(self) as usize);
        // SAFETY: `open` made it, and the swap let nobody else take it.
        Ok(unsafe { Box::from_raw(body) })
    }
}

/// The handle that C passed.
///
/// # Safety
///
/// `pointer` is NULL or came from `Handle::open`.
#[inline]
pub(crate) unsafe fn handle<'h, T>(
    pointer: *const Handle<T>,
    name: &'static str,
) -> Result<&'h Handle<T>, Failure> {
    // SAFETY: the caller promises it.
    unsafe { handle_of(pointer, name) }
}

/// As [`handle`], of any handle that is never freed.
///
/// # Safety
///
/// The same.
#[inline]
pub(crate) unsafe fn handle_of<'h, H>(
    pointer: *const H,
    name: &'static str,
) -> Result<&'h H, Failure> {
    // SAFETY: handles are never freed.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::null(name))
}

/// Where a result goes.
///
/// # Safety
///
/// `pointer` is NULL or writable, and nobody else's during the call.
pub(crate) unsafe fn out<'o, T>(pointer: *mut T, name: &'static str) -> Result<&'o mut T, Failure> {
    // SAFETY: the caller promises it.
    unsafe { pointer.as_mut() }.ok_or_else(|| Failure::null(name))
}
