//! Registrations outside the table that still pin memory: those that are lent out uncached, and
//! those that the registrar would not deregister (EBUSY while a memory window is bound).

use std::collections::VecDeque;

use nix::errno::Errno;

use crate::range::AddressRange;
use crate::slot::Body;

pub(crate) struct Outside<T> {
    /// Refused by the registrar, the oldest first.
    refused: VecDeque<Body<T>>,
    /// How many those are, and their bytes, also while one is tried again.
    count: u32,
    bytes: u64,
    /// What the registrar said last.
    errno: Errno,
    /// Of registrations that are lent out uncached or tried again.
    ranges: Vec<AddressRange>,
}

/// What the registrar would not deregister.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub regions: u32,
    pub bytes: u64,
    pub errno: Errno,
}

impl<T> Outside<T> {
    pub(crate) fn new() -> Outside<T> {
        Outside {
            refused: VecDeque::new(),
            count: 0,
            bytes: 0,
            errno: Errno::UnknownErrno,
            ranges: Vec::new(),
        }
    }

    pub(crate) fn refused(&self) -> Refused {
        Refused { regions: self.count, bytes: self.bytes, errno: self.errno }
    }

    /// Registrations that touch `range`.
    pub(crate) fn touching(&self, range: AddressRange) -> usize {
        let refused = self.refused.iter().map(|body| body.range);
        refused.chain(self.ranges.iter().copied()).filter(|other| other.overlaps(range)).count()
    }

    /// A registration that nothing else here knows of begins.
    pub(crate) fn add(&mut self, range: AddressRange) {
        self.ranges.push(range);
    }

    /// It is gone, or known otherwise.
    pub(crate) fn remove(&mut self, range: AddressRange) {
        let at = self.ranges.iter().position(|other| *other == range);
        self.ranges.swap_remove(at.expect("it was added"));
    }

    /// The registrar would not deregister `body`.
    pub(crate) fn refuse(&mut self, body: Body<T>, errno: Errno) {
        self.errno = errno;
        self.count += 1;
        self.bytes += body.range.len() as u64;
        self.refused.push_back(body);
    }

    /// The one that was refused first, to be tried again; then [`gone`](Outside::gone) or
    /// [`refuse_again`](Outside::refuse_again). It counts meanwhile.
    pub(crate) fn next(&mut self) -> Option<Body<T>> {
        let body = self.refused.pop_front()?;
        self.ranges.push(body.range);
        Some(body)
    }

    /// One that was tried again is deregistered.
    pub(crate) fn gone(&mut self, range: AddressRange) {
        self.remove(range);
        self.count -= 1;
        self.bytes -= range.len() as u64;
    }

    /// One that was tried again is refused again.
    pub(crate) fn refuse_again(&mut self, body: Body<T>, errno: Errno) {
        self.gone(body.range);
        self.refuse(body, errno);
    }
}
