//! Tickets: what C has instead of a guard, good for one put.
//!
//! A guard lies in a *lease* of a table that the cache's handle owns. A ticket is the lease's number
//! and how often it has been lent, so a ticket that was put names no lease any more, whoever has the
//! lease now. A lease that has been lent so often that its terms are used up is retired. A thread lends from leases of its own by plain stores; whoever puts a ticket takes it
//! back by one compare-and-swap, since two threads might put the same one.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::failure::Failure;
use crate::lessee::Loan;
use crate::region::Region;

/// `struct regcache_ticket`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// Names the lease and its term; 0 names none.
    pub lease: u64,
    /// What is registered.
    pub region: *const Region,
}

impl Ticket {
    /// Names nothing.
    pub const NONE: Ticket = Ticket { lease: 0, region: ptr::null() };
}

/// Leases of a chunk.
pub(crate) const CHUNK: usize = 256;
/// Chunks of a directory: 16,777,216 leases.
const CHUNKS: usize = 1 << 16;
/// The low bits of a lease's ticket are its number, the rest counts its terms.
const NUMBER: u64 = (CHUNKS * CHUNK) as u64 - 1;
const TERM: u64 = NUMBER + 1;

// Not tickets: those count terms from 1.
const FREE: u64 = 0;
/// Being copied, or taken back.
const BUSY: u64 = 1;
/// Its terms are used up, so that it is never lent again.
const RETIRED: u64 = 2;
/// The last term, of which tickets are the largest.
const LAST_TERM: u64 = !NUMBER;
/// Terms that each lease has, at least: 2^39. In a loop that only lends one lease and takes it back
/// they last for hours.
const MOST_SALT: u64 = LAST_TERM >> 1 & !NUMBER;

/// Holds a guard, or nothing.
#[repr(C, align(32))]
pub(crate) struct Lease<L = Loan> {
    /// The ticket that it is lent by, `FREE`, or `BUSY`.
    ticket: AtomicU64,
    /// The last ticket. Its owner's.
    last: Cell<u64>,
    loan: UnsafeCell<MaybeUninit<L>>,
}

// SAFETY: `last` is the owner's, who is one thread at a time. `loan` is written by the owner while
// the lease is free, and read by who has made it busy.
unsafe impl<L: Send + Sync> Sync for Lease<L> {}
// SAFETY: as above.
unsafe impl<L: Send + Sync> Send for Lease<L> {}

impl<L: Clone> Lease<L> {
    /// Free. Its terms are counted from `last`, whose low bits are its number.
    fn new(last: u64) -> Lease<L> {
        Lease {
            ticket: AtomicU64::new(FREE),
            last: Cell::new(last),
            loan: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        // Acquire pairs with the Release in `end`: what was taken out is out.
        self.ticket.load(Ordering::Acquire) == FREE
    }

    pub(crate) fn is_lent(&self) -> bool {
        // Relaxed: a number for people.
        !matches!(self.ticket.load(Ordering::Relaxed), FREE | RETIRED)
    }

    /// Lends. Returns the ticket.
    ///
    /// # Safety
    ///
    /// The caller owns the lease, and found it free.
    #[inline]
    pub(crate) unsafe fn lend(&self, loan: L) -> u64 {
        // SAFETY: nobody else touches a free lease.
        unsafe { (*self.loan.get()).write(loan) };
        // It does not wrap: after the last term the lease is not free any more.
        let ticket = self.last.get() + TERM;
        self.last.set(ticket);
        // Release pairs with the Acquire in `begin`: who has the ticket finds the loan.
        self.ticket.store(ticket, Ordering::Release);
        ticket
    }

    /// Takes back what was lent by `ticket`, on any thread.
    #[inline]
    pub(crate) fn redeem(&self, ticket: u64) -> Option<L> {
        if !self.begin(ticket) {
            return None;
        }
        // SAFETY: the lease is lent, and this thread alone has it.
        Some(unsafe { self.take_back(ticket) })
    }

    /// As [`redeem`](Lease::redeem), where only one thread uses the lease.
    ///
    /// # Safety
    ///
    /// Nobody else uses the lease meanwhile.
    #[inline]
    pub(crate) unsafe fn redeem_alone(&self, ticket: u64) -> Option<L> {
        if ticket < TERM || self.ticket.load(Ordering::Acquire) != ticket {
            return None;
        }
        // SAFETY: the lease is lent, and the caller promises to be alone.
        Some(unsafe { self.take_back(ticket) })
    }

    /// Ends the term of `ticket`.
    ///
    /// # Safety
    ///
    /// The lease is lent by `ticket`, and the caller alone has it.
    #[inline]
    unsafe fn take_back(&self, ticket: u64) -> L {
        // SAFETY: it is lent, so there is a loan, which nobody reads again before the next.
        let loan = unsafe { (*self.loan.get()).assume_init_read() };
        self.end(if ticket < LAST_TERM { FREE } else { RETIRED });
        loan
    }

    /// Another guard on what was lent by `ticket`.
    pub(crate) fn copy(&self, ticket: u64) -> Option<L> {
        if !self.begin(ticket) {
            return None;
        }
        // SAFETY: the lease is lent, and this thread alone has it.
        let loan = unsafe { (*self.loan.get()).assume_init_ref() }.clone();
        self.end(ticket);
        Some(loan)
    }

    /// Takes back whatever is lent.
    fn seize(&self) -> Option<L> {
        match self.ticket.load(Ordering::Acquire) {
            FREE | BUSY | RETIRED => None,
            ticket => self.redeem(ticket),
        }
    }

    #[inline]
    fn begin(&self, ticket: u64) -> bool {
        // Acquire pairs with the Release in `lend` and `end`. A ticket that was redeemed is never
        // there again.
        ticket >= TERM
            && self
                .ticket
                .compare_exchange(ticket, BUSY, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    #[inline]
    fn end(&self, next: u64) {
        // Release pairs with the Acquire in `begin` and `is_free`.
        self.ticket.store(next, Ordering::Release);
    }
}

/// Leases that one owner lends from.
pub(crate) struct Chunk {
    /// Who alone uses them; 0 for all threads.
    pub user: u64,
    pub leases: [Lease; CHUNK],
}

/// All leases of a cache, by number.
pub(crate) struct Directory {
    chunks: Box<[AtomicPtr<Chunk>]>,
    count: Mutex<usize>,
    users: AtomicU64,
    /// Tickets of another cache are not good here.
    salt: u64,
}

impl Directory {
    pub(crate) fn new(id: u64) -> Directory {
        let zeros = Box::into_raw(vec![0_usize; CHUNKS].into_boxed_slice());
        // SAFETY: an atomic pointer is a word, and a word of zero is a null pointer. The memory is
        // that of a box.
        let chunks = unsafe { Box::from_raw(zeros as *mut [AtomicPtr<Chunk>]) };
        Directory { chunks, count: Mutex::new(0), users: AtomicU64::new(0), salt: salt_of(id) }
    }

    /// A name for who uses leases alone.
    pub(crate) fn new_user(&self) -> u64 {
        // Relaxed: a number says nothing about other memory.
        self.users.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// More leases. They live as long as the directory.
    pub(crate) fn grow(&self, user: u64) -> Result<*const Chunk, Failure> {
        let mut count = self.count.lock();
        let at = *count;
        let Some(place) = self.chunks.get(at) else {
            return Err(Failure::new(libc::EMFILE, "16777216 tickets have been given out"));
        };
        let lease = |n: usize| Lease::new(self.salt | (at * CHUNK + n) as u64);
        let chunk = Box::new(Chunk { user, leases: std::array::from_fn(lease) });
        let chunk = Box::into_raw(chunk);
        // Release pairs with the Acquire in `find`.
        place.store(chunk, Ordering::Release);
        *count += 1;
        Ok(chunk)
    }

    /// The lease that a ticket names, if there is one.
    #[inline]
    pub(crate) fn find(&self, ticket: u64) -> Option<(&Chunk, &Lease)> {
        let number = (ticket & NUMBER) as usize;
        let place = &self.chunks[number / CHUNK];
        // SAFETY: a chunk lives as long as the directory. Acquire pairs with the Release in `grow`.
        let chunk = unsafe { place.load(Ordering::Acquire).as_ref() }?;
        Some((chunk, &chunk.leases[number % CHUNK]))
    }

    fn all(&self) -> impl Iterator<Item = &Lease> {
        let count = *self.count.lock();
        let chunks = self.chunks[..count].iter().filter_map(|chunk| {
            // SAFETY: as in `find`.
            unsafe { chunk.load(Ordering::Acquire).as_ref() }
        });
        chunks.flat_map(|chunk| &chunk.leases)
    }

    /// Tickets that have not been put.
    pub(crate) fn live(&self) -> usize {
        self.all().filter(|lease| lease.is_lent()).count()
    }

    /// Puts all tickets.
    pub(crate) fn seize(&self) {
        self.all().for_each(|lease| drop(lease.seize()));
    }
}

/// Where the terms of a cache's leases begin.
fn salt_of(id: u64) -> u64 {
    id.wrapping_mul(0x9e37_79b9_7f4a_7c15) & MOST_SALT
}

impl Drop for Directory {
    fn drop(&mut self) {
        for chunk in &mut self.chunks[..*self.count.get_mut()] {
            // SAFETY: `grow` made a box of it, and nobody has the directory any more.
            drop(unsafe { Box::from_raw(*chunk.get_mut()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_no_later_term() {
        let lease = Lease::new(7);
        // SAFETY: only this thread has the lease, and it is free.
        let first = unsafe { lease.lend(Arc::new(1)) };
        assert_eq!(lease.copy(first).as_deref(), Some(&1));
        assert_eq!(lease.redeem(first).as_deref(), Some(&1));
        assert!(lease.redeem(first).is_none() && lease.copy(first).is_none());
        // SAFETY: as above.
        let second = unsafe { lease.lend(Arc::new(2)) };
        assert!(lease.redeem(first).is_none());
        assert_eq!(lease.redeem(second).as_deref(), Some(&2));
        for other in [FREE, BUSY, RETIRED] {
            assert!(lease.redeem(other).is_none());
        }
    }

    #[test]
    fn a_lease_whose_terms_are_used_up_is_never_lent_again() {
        let lease = Lease::new(LAST_TERM - TERM | 7);
        // SAFETY: only this thread has the lease, and it is free.
        let last = unsafe { lease.lend(Arc::new(1)) };
        assert!(last >= LAST_TERM && lease.is_lent());
        assert!(lease.redeem(last).is_some());
        assert!(!lease.is_free() && !lease.is_lent());
        assert!(lease.redeem(last).is_none() && lease.seize().is_none());
    }

    /// Each cache's terms begin elsewhere, and far from the end.
    #[test]
    fn salts_leave_terms() {
        let most = (1..200).map(salt_of).max().unwrap();
        assert!(most <= MOST_SALT && (LAST_TERM - MOST_SALT) / TERM >= 1 << 39);
    }

    /// Two threads put the same ticket while its owner lends again: each loan is taken back once.
    #[test]
    fn one_of_two_puts_wins() {
        let lease = Lease::new(7);
        for round in 0..20_u32 {
            while !lease.is_free() {
                thread::yield_now();
            }
            // SAFETY: only this thread lends, and the lease is free.
            let ticket = unsafe { lease.lend(Arc::new(round)) };
            let taken = thread::scope(|scope| {
                let threads = [0, 1].map(|_| scope.spawn(|| lease.redeem(ticket)));
                threads.map(|thread| thread.join().unwrap())
            });
            let taken: Vec<_> = taken.into_iter().flatten().collect();
            assert_eq!(taken.len(), 1);
            assert_eq!(Arc::try_unwrap(taken.into_iter().next().unwrap()), Ok(round));
        }
    }
}
