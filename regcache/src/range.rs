//! Ranges of this process's address space.

use std::fmt;
use std::sync::OnceLock;

/// A non-empty range of addresses, `start` inclusive and `end` exclusive, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    start: usize,
    end: usize,
}

impl AddressRange {
    /// All addresses that a range can have.
    pub const EVERYTHING: AddressRange = AddressRange { start: 0, end: usize::MAX };

    /// The range of `len` bytes at `addr`, or `None` where it is empty or wraps around the end of
    /// the address space.
    pub fn new(addr: usize, len: usize) -> Option<AddressRange> {
        let end = addr.checked_add(len)?;
        (len > 0).then_some(AddressRange { start: addr, end })
    }

    /// The first address.
    pub fn start(self) -> usize {
        self.start
    }

    /// The first address after the range.
    pub fn end(self) -> usize {
        self.end
    }

    /// The number of bytes; never zero.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        self.end - self.start
    }

    /// Whether every byte of `other` lies in this range.
    pub fn covers(self, other: AddressRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether any byte lies in both ranges.
    pub fn overlaps(self, other: AddressRange) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// From `start` to `end`, which is greater.
    #[cfg(test)]
    pub(crate) fn between(start: usize, end: usize) -> AddressRange {
        debug_assert!(start < end);
        AddressRange { start, end }
    }

    /// The smallest range that covers both.
    pub(crate) fn union(self, other: AddressRange) -> AddressRange {
        AddressRange { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The smallest range of whole pages around this one, or `None` where its end would wrap.
    pub fn round_to_pages(self) -> Option<AddressRange> {
        let mask = page_size() - 1;
        Some(AddressRange { start: self.start & !mask, end: self.end.checked_add(mask)? & !mask })
    }
}

impl AddressRange {
    /// The pages that the range touches. In the last page of the address space, whose end is no
    /// address, it ends with the last byte that a range can have.
    pub(crate) fn touched_pages(self) -> AddressRange {
        let mask = page_size() - 1;
        let end = self.end.checked_add(mask).map_or(usize::MAX, |end| end & !mask);
        AddressRange { start: self.start & !mask, end }
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

/// The size of a page on the running machine, in bytes (`sysconf(_SC_PAGESIZE)`).
pub fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    // SAFETY: sysconf(3) takes no pointer and has no precondition.
    *SIZE.get_or_init(|| unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
}
