//! Threads that start together, do one thing for a while, and stop together.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::clock::Clock;
use crate::worker::Turn;

/// Tells the members to stop.
#[derive(Debug)]
pub struct Stop {
    flag: AtomicBool,
    clock: Clock,
}

impl Stop {
    /// Whether it is time.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// By which time members are measured.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    fn set(&self, stop: bool) {
        self.flag.store(stop, Ordering::Relaxed);
    }
}

/// What a member does in one turn; returns nanoseconds of one step.
pub type Member = Box<dyn FnMut(&Stop) -> f64>;

struct Shared {
    gate: Barrier,
    stop: Stop,
    results: Vec<AtomicU64>,
}

/// Makes a team whose turns take `time`, and are measured by `clock`. `member` makes each member, on its own thread. The result
/// of a turn is the mean over the members.
///
/// Members are pinned to the processors in turn, so with more members than processors some share
/// one. They live as long as the process.
pub fn team(
    threads: usize,
    clock: Clock,
    time: Duration,
    member: impl Fn(usize) -> Member + Send + Sync + 'static,
) -> Turn {
    let shared = Arc::new(Shared {
        gate: Barrier::new(threads + 1),
        stop: Stop { flag: AtomicBool::new(false), clock },
        results: (0..threads).map(|_| AtomicU64::new(0)).collect(),
    });
    let member = Arc::new(member);
    for index in 0..threads {
        let (shared, member) = (shared.clone(), member.clone());
        thread::spawn(move || {
            // Not pinned where that is forbidden: the figures are then only less steady.
            let _ = pin(index);
            let mut member = member(index);
            shared.gate.wait();
            loop {
                shared.gate.wait();
                let nanos = member(&shared.stop);
                shared.results[index].store(nanos.to_bits(), Ordering::Relaxed);
                shared.gate.wait();
            }
        });
    }
    // All are ready.
    shared.gate.wait();
    Box::new(move || {
        shared.stop.set(false);
        shared.gate.wait();
        thread::sleep(time);
        shared.stop.set(true);
        shared.gate.wait();
        let nanos = |result: &AtomicU64| f64::from_bits(result.load(Ordering::Relaxed));
        shared.results.iter().map(nanos).sum::<f64>() / threads as f64
    })
}

/// Keeps the calling thread on one of the processors that the process may use, the last one first:
/// the first one often serves interrupts.
fn pin(index: usize) -> nix::Result<()> {
    let this_thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(this_thread)?;
    let mut processors: Vec<_> =
        (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    processors.reverse();
    let mut one = CpuSet::new();
    one.set(processors[index % processors.len()])?;
    sched_setaffinity(this_thread, &one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_the_mean_of_all_members() {
        let mut turn = team(3, Clock::Wall, Duration::ZERO, |index| {
            Box::new(move |stop| {
                while !stop.is_set() {}
                index as f64 * 10.0
            })
        });
        assert_eq!((turn(), turn()), (10.0, 10.0));
    }
}
