//! The cache for one thread at a time: lookups that search for nothing, and puts without a
//! read-modify-write.

use std::ptr;
use std::sync::Arc;

use libc::{c_int, c_void};

use crate::boundary::{enter, fail};
use crate::create::{CacheBody, CacheHandle, body};
use crate::failure::Failure;
use crate::handle::{Handle, handle, out};
use crate::lease::{Directory, Ticket};
use crate::lessee::Lessee;
use crate::lookup::{answer, swiftly};

/// `struct regcache_local`
pub type LocalHandle = Handle<LocalBody>;

/// What a local handle is on.
pub struct LocalBody {
    cache: *const CacheHandle,
    lessee: Arc<Lessee>,
    directory: Arc<Directory>,
}

// SAFETY: the handle of the cache is never freed; all else may be sent and shared.
unsafe impl Send for LocalBody {}
// SAFETY: as above.
unsafe impl Sync for LocalBody {}

impl Drop for LocalBody {
    fn drop(&mut self) {
        self.lessee.abandon();
    }
}

/// `regcache_local_open()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_local_open(
    cache: *mut CacheHandle,
    local: *mut *mut LocalHandle,
) -> c_int {
    enter("regcache_local_open", || {
        // SAFETY: the header asks for a place for the result.
        let to = unsafe { out(local, "local") }?;
        *to = ptr::null_mut();
        // SAFETY: the header asks for a handle.
        let body = unsafe { body(cache) }?;
        let lessee = body.claim_lessee(true)?;
        let directory = body.directory.clone();
        *to = Handle::open(|_| LocalBody { cache, lessee, directory });
        body.locals.lock().push(*to as usize);
        Ok(0)
    })
}

/// `regcache_local_close()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_local_close(local: *mut LocalHandle) -> c_int {
    enter("regcache_local_close", || {
        // SAFETY: the header asks for a handle.
        let handle = unsafe { handle(local, "local") }?;
        let body = handle.body()?;
        // SAFETY: the cache cannot be destroyed without closing this handle.
        let cache: &CacheBody = unsafe { crate::create::body(body.cache) }?;
        cache.refuse_foreign()?;
        let live = body.lessee.live();
        if live > 0 {
            let text = format!("{live} tickets have not been put");
            return Err(Failure::new(libc::EBUSY, text));
        }
        cache.locals.lock().retain(|open| *open != local as usize);
        // SAFETY: the header forbids calls on the handle meanwhile.
        drop(unsafe { handle.close() }?);
        Ok(0)
    })
}

/// `regcache_local_get()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_local_get(
    local: *mut LocalHandle,
    addr: *const c_void,
    len: usize,
    access: u32,
    ticket: *mut Ticket,
) -> c_int {
    swiftly(|| {
        // SAFETY: the header asks for a handle, and for a place for the ticket.
        let to = match unsafe { out(ticket, "ticket") } {
            Ok(to) => to,
            Err(failure) => return fail("regcache_local_get", &failure),
        };
        // SAFETY: as above.
        let body = unsafe { handle(local, "local") }.and_then(Handle::body);
        // SAFETY: the header says that one thread uses it, and asks for what a remote access asks
        // for.
        let result = body.and_then(|body| unsafe { body.lessee.get(addr as usize, len, access) });
        answer("regcache_local_get", result, to)
    })
}

/// `regcache_local_hold()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_local_hold(
    local: *mut LocalHandle,
    ticket: Ticket,
    another: *mut Ticket,
) -> c_int {
    enter("regcache_local_hold", || {
        // SAFETY: the header asks for a place for the ticket.
        let to = unsafe { out(another, "another") }?;
        *to = Ticket::NONE;
        // SAFETY: the header asks for a handle.
        let body = unsafe { handle(local, "local") }?.body()?;
        let found = body.directory.find(ticket.lease).filter(|(chunk, _)| body.lessee.has(chunk));
        let loan = found.and_then(|(_, lease)| lease.copy(ticket.lease));
        // SAFETY: the header says that one thread uses it.
        *to = unsafe { body.lessee.lend(loan.ok_or_else(Failure::dead_ticket)?) }?;
        Ok(0)
    })
}

/// `regcache_local_put()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_local_put(local: *mut LocalHandle, ticket: Ticket) -> c_int {
    swiftly(|| {
        // SAFETY: the header asks for a handle.
        let body = match unsafe { handle(local, "local") }.and_then(Handle::body) {
            Ok(body) => body,
            Err(failure) => return fail("regcache_local_put", &failure),
        };
        let found = body.directory.find(ticket.lease);
        if let Some((_, lease)) = found.filter(|(chunk, _)| body.lessee.has(chunk)) {
            // SAFETY: the lease is this lessee's, and the header says that one thread uses it.
            if let Some(loan) = unsafe { lease.redeem_alone(ticket.lease) } {
                drop(loan);
                return 0;
            }
        }
        fail("regcache_local_put", &Failure::dead_ticket())
    })
}
