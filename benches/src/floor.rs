//! What no cache can be faster than.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::subject::Subject;

/// One load of a counter: what it costs to learn that nothing changed.
#[derive(Debug, Default)]
pub struct CounterLoad(AtomicU64);

impl Subject for CounterLoad {
    #[inline(never)]
    fn look_up(&mut self, addr: usize) {
        black_box(addr);
        black_box(self.0.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
    }
}

/// An atomic add and a sub on one word that nobody else uses: what it costs to count references.
#[derive(Debug, Default)]
pub struct AddSub(AtomicU64);

impl Subject for AddSub {
    #[inline(never)]
    fn look_up(&mut self, addr: usize) {
        black_box(addr);
        black_box(self.0.fetch_add(1, Ordering::Acquire));
        black_box(self.0.fetch_sub(1, Ordering::Release));
    }
}
