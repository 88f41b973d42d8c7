//! How a thread of the application waits for the event thread, which itself never waits for it.

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::futex;
use rustix::time::Timespec;

/// Looks at what is waited for, before the thread sleeps.
const SPINS: u32 = 100;

/// How long a thread sleeps at a time. Nobody relies on this: a wake-up that is missed would be a
/// delay, and not a hang.
const BRIEFLY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// For a thread that may have nothing to do for long.
pub(super) const LONG: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A futex(2) that counts.
#[derive(Debug, Default)]
pub(super) struct Gate {
    moves: AtomicU32,
    waiting: AtomicU32,
}

impl Gate {
    /// Something has changed that a thread may wait for. Does not wait, allocate or panic.
    pub(super) fn open(&self) {
        // SeqCst, here and in `wait_until`: either this finds the waiting thread, or that thread
        // finds the move.
        self.moves.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // It fails for no word of this process's memory.
            let _ = futex::wake(&self.moves, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }

    /// Waits until `done`, which is asked again after each [`open`](Gate::open).
    pub(super) fn wait_until(&self, done: impl Fn() -> bool) {
        self.wait(BRIEFLY, done);
    }

    /// The same, asked at least each `at_most`.
    pub(super) fn wait(&self, at_most: Timespec, done: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if done() {
                return;
            }
            std::hint::spin_loop();
        }
        // Pairs with the accesses in `open`.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        loop {
            let moves = self.moves.load(Ordering::SeqCst);
            if done() {
                break;
            }
            // It returns at a move, a signal, the end of the time, or for no reason: ask again.
            let _ = futex::wait(&self.moves, futex::Flags::PRIVATE, moves, Some(&at_most));
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
