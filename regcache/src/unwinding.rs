//! Panics of callbacks, held back until what must be done is done.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The first panic of several calls.
#[derive(Default)]
pub(crate) struct FirstPanic(Option<Box<dyn Any + Send>>);

impl FirstPanic {
    /// Calls `callback`; `None` if it panicked.
    pub(crate) fn catch<T>(&mut self, callback: impl FnOnce() -> T) -> Option<T> {
        // Unwind safe: what a callback of the user's leaves behind is the user's, and the cache's own
        // state is not reached from within.
        match catch_unwind(AssertUnwindSafe(callback)) {
            Ok(value) => Some(value),
            Err(panic) => {
                self.0.get_or_insert(panic);
                None
            }
        }
    }

    /// Whether one was caught.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Goes on with the panic, if there was one.
    pub(crate) fn resume(self) {
        if let Some(panic) = self.0 {
            resume_unwind(panic);
        }
    }
}
