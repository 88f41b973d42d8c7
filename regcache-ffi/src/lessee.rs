//! What one thread needs to look up and to lend.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regcache::{Access, Guard, Local};

use crate::failure::Failure;
use crate::lease::{CHUNK, Chunk, Directory, Lease, Ticket};
use crate::registrar::Pinner;
use crate::source::Source;

pub(crate) type Cache = regcache::Cache<Pinner, Source>;
pub(crate) type Loan = Guard<'static, Pinner, Source>;

/// A thread's handle on the cache, and leases of its own.
pub(crate) struct Lessee {
    /// `None` when the cache is gone.
    local: UnsafeCell<Option<Local<'static, Pinner, Source>>>,
    /// The lease that was lent last, which is often free again.
    next: Cell<*const Lease>,
    position: Cell<usize>,
    chunks: RefCell<Vec<*const Chunk>>,
    directory: Arc<Directory>,
    /// A thread has it.
    owned: AtomicBool,
    /// Its name, if its tickets too are put by one thread at a time; else 0.
    user: u64,
}

// SAFETY: who has claimed a lessee uses it on one thread at a time, as `get`'s contract says; `owned`
// is atomic.
unsafe impl Sync for Lessee {}
// SAFETY: as above; a `Local` may be sent.
unsafe impl Send for Lessee {}

impl Lessee {
    pub(crate) fn new(
        cache: &'static Cache,
        directory: &Arc<Directory>,
        exclusive: bool,
    ) -> Result<Lessee, Failure> {
        let user = if exclusive { directory.new_user() } else { 0 };
        let first = directory.grow(user)?;
        // SAFETY: the chunk is a live one of the directory.
        let next = unsafe { &raw const (*first).leases[0] };
        Ok(Lessee {
            local: UnsafeCell::new(Some(cache.local())),
            next: Cell::new(next),
            position: Cell::new(0),
            chunks: RefCell::new(vec![first]),
            directory: directory.clone(),
            owned: AtomicBool::new(true),
            user,
        })
    }

    /// Takes it, if nobody has it.
    pub(crate) fn claim(&self) -> bool {
        // Acquire pairs with the Release in `abandon`.
        !self.owned.swap(true, Ordering::Acquire)
    }

    /// Whether one thread at a time puts its tickets too.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.user != 0
    }

    /// Whether these leases are its own and nobody else's.
    #[inline]
    pub(crate) fn has(&self, chunk: &Chunk) -> bool {
        self.is_exclusive() && chunk.user == self.user
    }

    /// Tickets that have not been put.
    pub(crate) fn live(&self) -> usize {
        let chunks = self.chunks.borrow();
        // SAFETY: chunks of the directory, which this has a share of.
        let leases = chunks.iter().flat_map(|chunk| unsafe { &(**chunk).leases });
        leases.filter(|lease| lease.is_lent()).count()
    }

    /// Lets another thread have it. What was lent stays lent.
    pub(crate) fn abandon(&self) {
        self.owned.store(false, Ordering::Release);
    }

    /// Gives the cache up.
    ///
    /// # Safety
    ///
    /// Nobody uses it meanwhile.
    pub(crate) unsafe fn end(&self) {
        // SAFETY: the caller promises it.
        drop(unsafe { (*self.local.get()).take() });
    }

    /// Looks up, registers on a miss, and lends.
    ///
    /// # Safety
    ///
    /// The caller has claimed the lessee, no other thread uses it, and the cache lives. What
    /// [`regcache::Cache::get_or_register_remote`] asks for holds.
    #[inline(always)]
    pub(crate) unsafe fn get(
        &self,
        addr: usize,
        len: usize,
        access: u32,
    ) -> Result<Ticket, Failure> {
        let Some(access) = Access::from_bits(access) else {
            return Err(unknown_access(access));
        };
        // SAFETY: nobody else uses it, so nobody takes it away.
        let Some(local) = (unsafe { &*self.local.get() }) else {
            return Err(Failure::dead());
        };
        // SAFETY: the caller promises it.
        match unsafe { local.get_or_register_remote(addr, len, access) } {
            // SAFETY: the caller promises it.
            Ok(loan) => unsafe { self.lend(loan) },
            Err(error) => Err(Failure::from(error)),
        }
    }

    /// Makes a ticket of a guard.
    ///
    /// # Safety
    ///
    /// The caller has claimed the lessee, and no other thread uses it.
    #[inline(always)]
    pub(crate) unsafe fn lend(&self, loan: Loan) -> Result<Ticket, Failure> {
        // SAFETY: it points into a chunk of the directory, which this has a share of.
        let mut lease = unsafe { &*self.next.get() };
        if !lease.is_free() {
            lease = self.search()?;
        }
        let region = loan.region().region();
        // SAFETY: the lease is this lessee's, and free.
        Ok(Ticket { lease: unsafe { lease.lend(loan) }, region })
    }

    /// A free lease: the next one, so that tickets which are put in the order in which they were
    /// given out find it at once. If half of all are in a row in use, there are soon more.
    #[cold]
    #[inline(never)]
    fn search(&self) -> Result<&Lease, Failure> {
        let mut chunks = self.chunks.borrow_mut();
        let count = chunks.len() * CHUNK;
        let at = |chunks: &[*const Chunk], n: usize| {
            let chunk = chunks[n / CHUNK];
            // SAFETY: a chunk of the directory, which this has a share of.
            unsafe { &raw const (*chunk).leases[n % CHUNK] }
        };
        let start = self.position.get();
        let mut order = (start + 1..count).chain(0..start + 1).take(count / 2);
        // SAFETY: as above.
        let free = order.find(|n| unsafe { &*at(&chunks, *n) }.is_free());
        let n = match free {
            Some(n) => n,
            None => {
                for _ in 0..chunks.len() {
                    chunks.push(self.directory.grow(self.user)?);
                }
                count
            }
        };
        self.position.set(n);
        let lease = at(&chunks, n);
        self.next.set(lease);
        // SAFETY: as above.
        Ok(unsafe { &*lease })
    }
}

#[cold]
fn unknown_access(access: u32) -> Failure {
    Failure::invalid(format!(
        "access {access:#x} has bits that mean nothing (enum ibv_access_flags)"
    ))
}
