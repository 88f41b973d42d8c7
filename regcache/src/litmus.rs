//! The asymmetric barrier on the real processor: two threads, one that begins to hold a slot while
//! the other makes it stale. loom cannot model membarrier(2); this can be seen to go wrong without.
//!
//! ```text
//! cargo test --release -p regcache --lib litmus -- --include-ignored
//! ```

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::barrier::Barrier;
use crate::cells::Blocks;
use crate::slot::{Phase, Slot};

/// Holds that were found valid by the holder and not seen by who made the slot stale, and rounds,
/// of up to `rounds`, for up to `time`; stops at the first.
fn violations(barrier: Barrier, rounds: u32, time: Duration) -> (u32, u32) {
    // This also registers the process with membarrier(2).
    assert_eq!(Barrier::best(), Barrier::Membarrier, "the kernel has membarrier(2)");
    let blocks = Blocks::new(Barrier::Membarrier);
    let block = blocks.claim().expect("memory");
    let slot: Slot<()> = Slot::new();
    let valid = slot.state().to(Phase::Valid);
    // Each thread starts a round when the other is there too, with nothing but a load in between.
    let (holder_at, ender_at) = (AtomicU32::new(0), AtomicU32::new(0));
    let (found_valid, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let meet = |mine: &AtomicU32, other: &AtomicU32, round: u32| {
        mine.store(round, Ordering::SeqCst);
        while other.load(Ordering::SeqCst) < round && !stop.load(Ordering::Relaxed) {
            hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: only this thread uses the block.
            let cell = unsafe { block.owned() }.free_cell().expect("a cell");
            for round in (1..).step_by(3) {
                meet(&holder_at, &ender_at, round);
                cell.hold(0);
                let valid = slot.state().is(Phase::Valid);
                found_valid.store(valid, Ordering::SeqCst);
                meet(&holder_at, &ender_at, round + 1);
                cell.release();
                meet(&holder_at, &ender_at, round + 2);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let start = Instant::now();
        let mut violations = 0;
        let mut done = 0;
        for round in (1..).step_by(3) {
            slot.set(valid);
            meet(&ender_at, &holder_at, round);
            // A moment that differs from round to round, so that the two overlap in all ways.
            for _ in 0..done % 64 {
                hint::spin_loop();
            }
            slot.set(valid.to(Phase::Stale));
            let fenced = barrier.fence();
            let seen = !blocks.held().is_empty();
            meet(&ender_at, &holder_at, round + 1);
            violations += u32::from(found_valid.load(Ordering::SeqCst) && !seen);
            done += 1;
            if done == rounds || violations > 0 || fenced.is_err() || start.elapsed() > time {
                stop.store(true, Ordering::Relaxed);
            }
            meet(&ender_at, &holder_at, round + 2);
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        (violations, done)
    })
}

#[test]
fn with_the_barrier_no_hold_is_missed() {
    let (violations, rounds) = violations(Barrier::Membarrier, 100_000, Duration::from_secs(5));
    assert_eq!(violations, 0, "in {rounds} rounds");
}

/// Needs two processors that are not busy with other things.
#[test]
#[ignore = "shows that the test above can fail; needs an idle machine"]
fn without_the_barrier_some_are() {
    // `Atomic` has no fence: its order comes from counts, which cells do not have.
    let (violations, rounds) = violations(Barrier::Atomic, u32::MAX, Duration::from_secs(60));
    assert_ne!(violations, 0, "in {rounds} rounds: does this processor reorder at all?");
}
