//! The events on their way from the thread that reads them to whoever drains: a ring of fixed size
//! with one writer, who never waits, and one reader at a time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::range::AddressRange;

/// Events that wait to be drained at a time. More are told as one that is of all memory.
const CAPACITY: usize = 1024;

/// What changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Unmapped(AddressRange),
    /// Announced, and not done until some time after `at`, in nanoseconds.
    Removing {
        range: AddressRange,
        at: u64,
    },
    Moved {
        from: AddressRange,
        to: AddressRange,
    },
}

const UNMAPPED: u64 = 0;
const REMOVING: u64 = 1;
const MOVED: u64 = 2;

/// A change in four words: its kind, a range, and one word more.
#[derive(Debug, Default)]
struct Slot([AtomicU64; 4]);

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    slots: Box<[Slot]>,
    /// Changes ever written; the writer's.
    head: AtomicUsize,
    /// Changes ever read; the reader's.
    tail: AtomicUsize,
    /// A change found no room, and when the last of those was.
    lost: AtomicBool,
    lost_at: AtomicU64,
}

impl Ring {
    pub(super) fn new() -> Ring {
        Ring {
            slots: (0..CAPACITY).map(|_| Slot::default()).collect(),
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            lost_at: AtomicU64::new(0),
        }
    }

    /// Writes `change`, which was read at `at`. Called by one thread; does not wait, allocate or
    /// panic.
    pub(super) fn push(&self, change: Change, at: u64) {
        let head = self.head.load(Ordering::Relaxed);
        // Acquire pairs with the Release in `pop`: the reader is done with the slot.
        let full = head.wrapping_sub(self.tail.load(Ordering::Acquire)) >= CAPACITY;
        let slot = if full { None } else { self.slots.get(head % CAPACITY) };
        let Some(Slot(words)) = slot else {
            return self.lose(at);
        };
        let (kind, range, more) = match change {
            Change::Unmapped(range) => (UNMAPPED, range, 0),
            Change::Removing { range, at } => (REMOVING, range, at),
            Change::Moved { from, to } => (MOVED, from, to.start() as u64),
        };
        let values = [kind, range.start() as u64, range.len() as u64, more];
        for (word, value) in words.iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        // Release pairs with the Acquire in `pop`: the words are written.
        self.head.store(head.wrapping_add(1), Ordering::Release);
    }

    /// Something changed at `at`, and it is not known what. As [`push`](Ring::push).
    pub(super) fn lose(&self, at: u64) {
        self.lost_at.store(at, Ordering::Relaxed);
        // Release pairs with the Acquire in `take_lost`, which then has the time.
        self.lost.store(true, Ordering::Release);
    }

    /// The oldest change, if there is one. Called by one thread at a time.
    pub(super) fn pop(&self) -> Option<Change> {
        let tail = self.tail.load(Ordering::Relaxed);
        // Acquire pairs with the Release in `push`.
        if tail == self.head.load(Ordering::Acquire) {
            return None;
        }
        let words = self.slots[tail % CAPACITY].0.each_ref().map(|w| w.load(Ordering::Relaxed));
        // Release pairs with the Acquire in `push`: the slot has been read.
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
        let [kind, start, len, more] = words;
        let range = |start: u64| AddressRange::new(start as usize, len as usize);
        match kind {
            REMOVING => Some(Change::Removing { range: range(start)?, at: more }),
            MOVED => Some(Change::Moved { from: range(start)?, to: range(more)? }),
            _ => range(start).map(Change::Unmapped),
        }
    }

    /// Whether changes were lost since the last call, and when the last of them was.
    pub(super) fn take_lost(&self) -> Option<u64> {
        // Acquire pairs with the Release in `push`.
        let lost = self.lost.swap(false, Ordering::Acquire);
        lost.then(|| self.lost_at.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn unmapped(n: usize) -> Change {
        Change::Unmapped(AddressRange::new(n * 4096, 4096).unwrap())
    }

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let ring = Ring::new();
        let range = AddressRange::new(4096, 8192).unwrap();
        let to = AddressRange::new(65536, 8192).unwrap();
        let changes =
            [unmapped(3), Change::Removing { range, at: 7 }, Change::Moved { from: range, to }];
        for change in changes {
            ring.push(change, 9);
        }
        for change in changes {
            assert_eq!(ring.pop(), Some(change));
        }
        assert_eq!(ring.pop(), None);
        assert_eq!(ring.take_lost(), None);
    }

    #[test]
    fn what_finds_no_room_is_told_once() {
        let ring = Ring::new();
        for n in 0..CAPACITY + 2 {
            ring.push(unmapped(n), n as u64);
        }
        assert_eq!(ring.take_lost(), Some(CAPACITY as u64 + 1));
        assert_eq!(ring.take_lost(), None);
        assert_eq!((0..).map_while(|_| ring.pop()).count(), CAPACITY);
        ring.push(unmapped(1), 0);
        assert_eq!(ring.pop(), Some(unmapped(1)));
    }

    #[test]
    fn a_writer_and_a_reader_at_once() {
        let ring = Ring::new();
        let total = 100_000;
        thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..total {
                    ring.push(unmapped(n), 0);
                    if n % 512 == 0 {
                        thread::yield_now();
                    }
                }
            });
            let mut next = 0;
            while next < total {
                match ring.pop() {
                    Some(Change::Unmapped(range)) => {
                        let n = range.start() / 4096;
                        assert!(n >= next, "{n} after {next}");
                        next = n + 1;
                    }
                    Some(other) => panic!("{other:?}"),
                    None if ring.take_lost().is_some() && ring.pop().is_none() => break,
                    None => thread::yield_now(),
                }
            }
        });
    }
}
