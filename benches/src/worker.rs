//! A process that does one thing when told, and says how long it took.
//!
//! Each worker has an address space of its own, so that what one has mapped and watched costs the
//! other nothing; they take turns.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe};

use crate::row::{Row, median};

/// What a worker does in one turn; returns nanoseconds.
pub type Turn = Box<dyn FnMut() -> f64>;

/// A forked process that waits for its turns.
pub struct Worker {
    orders: Option<File>,
    results: File,
    child: Pid,
}

impl Worker {
    /// Forks a process that makes itself ready by `prepare`. The caller has one thread.
    pub fn new(prepare: impl FnOnce() -> Turn) -> nix::Result<Worker> {
        let (orders_out, orders_in) = pipe()?;
        let (results_out, results_in) = pipe()?;
        // SAFETY: this process has one thread, so the child inherits no lock that nobody releases.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop((orders_in, results_out));
                let finished = serve(prepare(), orders_out, results_in).is_ok();
                std::process::exit(if finished { 0 } else { 1 })
            }
            ForkResult::Parent { child } => {
                drop((orders_out, results_in));
                let results = File::from(results_out);
                Ok(Worker { orders: Some(File::from(orders_in)), results, child })
            }
        }
    }

    /// One turn.
    pub fn turn(&mut self) -> f64 {
        let mut orders = self.orders.as_ref().expect("open until dropped");
        orders.write_all(&[1]).expect("the worker waits");
        let mut result = [0; 8];
        self.results.read_exact(&mut result).expect("the worker answers");
        f64::from_ne_bytes(result)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        let _ = waitpid(self.child, None);
    }
}

fn serve(mut turn: Turn, orders: OwnedFd, results: OwnedFd) -> std::io::Result<()> {
    let (mut orders, mut results) = (File::from(orders), File::from(results));
    let mut order = [0];
    while orders.read(&mut order)? == 1 {
        results.write_all(&turn().to_ne_bytes())?;
    }
    Ok(())
}

/// Lets the two take `turns` turns each, after one that does not count.
pub fn compare(measure: &str, turns: usize, baseline: &mut Worker, subject: &mut Worker) -> Row {
    let (mut values, mut baselines, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=turns {
        let (base, value) = (baseline.turn(), subject.turn());
        if turn > 0 {
            baselines.push(base);
            values.push(value);
            ratios.push(value / base);
        }
    }
    Row::new(measure, median(values), median(baselines), median(ratios))
}
