//! Tickets: what C has instead of a guard, good for one put.
//!
//! A guard lies in a *lease* of a table that the cache's handle owns. A ticket is the lease's number
//! and how often it has been lent, so a ticket that was put names no lease any more, whoever has the
//! lease now. A thread lends from leases of its own by plain stores; whoever puts a ticket takes it
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

const FREE: u64 = 0;
/// Being copied, or taken back. Not a ticket: those count terms from 1.
const BUSY: u64 = 1;

/// Holds a guard, or nothing.
#[repr(C, align(32))]
pub(crate) struct Lease {
    /// The ticket that it is lent by, `FREE`, or `BUSY`.
    ticket: AtomicU64,
    /// The last ticket. Its owner's.
    last: Cell<u64>,
    loan: UnsafeCell<MaybeUninit<Loan>>,
}

// SAFETY: `last` is the owner's, who is one thread at a time. `loan` is written by the owner while
// the lease is free, and read by who has made it busy. Guards may be sent and shared.
unsafe impl Sync for Lease {}
// SAFETY: as above.
unsafe impl Send for Lease {}

impl Lease {
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        // Acquire pairs with the Release in `end`: what was taken out is out.
        self.ticket.load(Ordering::Acquire) == FREE
    }

    /// Lends. Returns the ticket.
    ///
    /// # Safety
    ///
    /// The caller owns the lease, and found it free.
    #[inline]
    pub(crate) unsafe fn lend(&self, loan: Loan) -> u64 {
        // SAFETY: nobody else touches a free lease.
        unsafe { (*self.loan.get()).write(loan) };
        let mut ticket = self.last.get().wrapping_add(TERM);
        if ticket < TERM {
            ticket += TERM;
        }
        self.last.set(ticket);
        // Release pairs with the Acquire in `begin`: who has the ticket finds the loan.
        self.ticket.store(ticket, Ordering::Release);
        ticket
    }

    /// Takes back what was lent by `ticket`, on any thread.
    #[inline]
    pub(crate) fn redeem(&self, ticket: u64) -> Option<Loan> {
        if !self.begin(ticket) {
            return None;
        }
        // SAFETY: the lease is lent, and this thread alone has it.
        let loan = unsafe { (*self.loan.get()).assume_init_read() };
        self.end(FREE);
        Some(loan)
    }

    /// As [`redeem`](Lease::redeem), where only one thread uses the lease.
    ///
    /// # Safety
    ///
    /// Nobody else uses the lease meanwhile.
    #[inline]
    pub(crate) unsafe fn redeem_alone(&self, ticket: u64) -> Option<Loan> {
        if ticket <= BUSY || self.ticket.load(Ordering::Acquire) != ticket {
            return None;
        }
        // SAFETY: the lease is lent, and the caller promises to be alone.
        let loan = unsafe { (*self.loan.get()).assume_init_read() };
        self.end(FREE);
        Some(loan)
    }

    /// Another guard on what was lent by `ticket`.
    pub(crate) fn copy(&self, ticket: u64) -> Option<Loan> {
        if !self.begin(ticket) {
            return None;
        }
        // SAFETY: the lease is lent, and this thread alone has it.
        let loan = unsafe { (*self.loan.get()).assume_init_ref() }.clone();
        self.end(ticket);
        Some(loan)
    }

    /// Takes back whatever is lent.
    fn seize(&self) -> Option<Loan> {
        match self.ticket.load(Ordering::Acquire) {
            FREE | BUSY => None,
            ticket => self.redeem(ticket),
        }
    }

    #[inline]
    fn begin(&self, ticket: u64) -> bool {
        // Acquire pairs with the Release in `lend` and `end`. A ticket that was redeemed is never
        // there again.
        ticket > BUSY
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
        let salt = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !NUMBER;
        Directory { chunks, count: Mutex::new(0), users: AtomicU64::new(0), salt }
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
        let lease = |n: usize| Lease {
            ticket: AtomicU64::new(FREE),
            last: Cell::new(self.salt | (at * CHUNK + n) as u64),
            loan: UnsafeCell::new(MaybeUninit::uninit()),
        };
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
        self.all().filter(|lease| !lease.is_free()).count()
    }

    /// Puts all tickets.
    pub(crate) fn seize(&self) {
        self.all().for_each(|lease| drop(lease.seize()));
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for chunk in &mut self.chunks[..*self.count.get_mut()] {
            // SAFETY: `grow` made a box of it, and nobody has the directory any more.
            drop(unsafe { Box::from_raw(*chunk.get_mut()) });
        }
    }
}
