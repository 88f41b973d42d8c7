//! A registration that one thread is making and others wait for.

use parking_lot::{Condvar, Mutex};

use crate::error::Error;

#[derive(Debug, Default)]
pub(crate) struct Flight {
    outcome: Mutex<Option<Result<(), Error>>>,
    landed: Condvar,
}

impl Flight {
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
