//! A registration that one thread is making and others wait for.

use std::thread::{self, ThreadId};

use parking_lot::{Condvar, Mutex};

use crate::error::Error;

#[derive(Debug)]
pub(crate) struct Flight {
    by: ThreadId,
    outcome: Mutex<Option<Result<(), Error>>>,
    landed: Condvar,
}

impl Flight {
    pub(crate) fn new() -> Flight {
        Flight { by: thread::current().id(), outcome: Mutex::new(None), landed: Condvar::new() }
    }

    /// Whether the present thread is the one that registers: it must not wait for itself.
    pub(crate) fn is_own(&self) -> bool {
        self.by == thread::current().id()
    }

    /// Lets the waiters go. `Ok`: look again. `Err`: it failed for all who wait; nobody remembers.
    pub(crate) fn land(&self, outcome: Result<(), Error>) {
        *self.outcome.lock() = Some(outcome);
        self.landed.notify_all();
    }

    pub(crate) fn wait(&self) -> Result<(), Error> {
        let mut outcome = self.outcome.lock();
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => self.landed.wait(&mut outcome),
            }
        }
    }
}
