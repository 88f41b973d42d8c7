//! Ranges that a program announces.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::range::AddressRange;

/// More than this, and everything is announced: what nobody asks for takes no more memory.
const MOST: usize = 1024;

/// Ranges that were announced and not drained yet. It allocates only when it is made and when it is
/// taken out, and never under its lock, so that an allocator may announce.
#[doc(hidden)]
#[derive(Debug)]
pub struct Announcements {
    // Of the standard library: that of parking_lot may allocate while it waits.
    list: Mutex<List>,
}

#[doc(hidden)]
#[derive(Debug)]
pub struct List {
    ranges: Box<[AddressRange]>,
    len: usize,
    /// All memory.
    all: bool,
}

impl Announcements {
    /// Nothing.
    pub fn new() -> Announcements {
        let ranges = vec![AddressRange::EVERYTHING; MOST].into_boxed_slice();
        Announcements { list: Mutex::new(List { ranges, len: 0, all: false }) }
    }

    /// The list, for what belongs to one change of it.
    pub fn lock(&self) -> MutexGuard<'_, List> {
        // Nothing panics under it; if it did, the list would be as good.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is, with what `also` returns under the lock; [`AddressRange::EVERYTHING`] alone for
    /// all memory.
    pub fn take<T>(&self, also: impl FnOnce() -> T) -> (Vec<AddressRange>, T) {
        let list = self.lock();
        if list.is_empty() {
            return (Vec::new(), also());
        }
        drop(list);
        let mut taken = Vec::with_capacity(MOST);
        let mut list = self.lock();
        taken.extend_from_slice(&list.ranges[..list.len]);
        list.len = 0;
        if std::mem::take(&mut list.all) {
            taken.clear();
            taken.push(AddressRange::EVERYTHING);
        }
        let also = also();
        drop(list);
        (taken, also)
    }
}

impl Default for Announcements {
    fn default() -> Announcements {
        Announcements::new()
    }
}

impl List {
    /// Adds a range.
    pub fn push(&mut self, range: AddressRange) {
        // Often the same again, or inside the last.
        if self.all || self.ranges[..self.len].last().is_some_and(|last| last.covers(range)) {
            return;
        }
        match self.ranges.get_mut(self.len) {
            Some(place) => {
                *place = range;
                self.len += 1;
            }
            None => self.push_all(),
        }
    }

    /// Adds all memory.
    pub fn push_all(&mut self) {
        self.all = true;
        self.len = 0;
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && !self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_nothing() {
        let announced = Announcements::new();
        let ranges: Vec<_> =
            (1..=MOST).map(|n| AddressRange::new(n * 0x2000, 1).unwrap()).collect();
        ranges.iter().for_each(|range| announced.lock().push(*range));
        assert_eq!(announced.take(|| ()).0, ranges);
        assert!(announced.lock().is_empty());
        ranges.iter().for_each(|range| announced.lock().push(*range));
        announced.lock().push(AddressRange::new(1, 1).unwrap());
        assert!(!announced.lock().is_empty());
        assert_eq!(announced.take(|| ()).0, [AddressRange::EVERYTHING]);
        assert_eq!(announced.take(|| ()).0, []);
    }
}
