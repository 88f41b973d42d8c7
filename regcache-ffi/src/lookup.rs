//! Get, hold and put.

use std::panic::{self, AssertUnwindSafe};

use libc::{c_int, c_void};

use crate::boundary::{enter, fail};
use crate::create::{CacheHandle, body};
use crate::failure::Failure;
use crate::handle::out;
use crate::lease::Ticket;
use crate::threads;

/// Answers with a ticket, or with none.
#[inline(always)]
pub(crate) fn answer(name: &str, result: Result<Ticket, Failure>, to: &mut Ticket) -> c_int {
    match result {
        Ok(ticket) => {
            *to = ticket;
            0
        }
        Err(failure) => {
            *to = Ticket::NONE;
            fail(name, &failure)
        }
    }
}

/// Runs `call` without the accounts of [`enter`], which cost as much as a hit.
#[inline(always)]
pub(crate) fn swiftly(call: impl FnOnce() -> c_int) -> c_int {
    // As in `boundary::catch`. Only a defect in the cache itself panics here: callbacks are run by
    // `boundary::callback`.
    panic::catch_unwind(AssertUnwindSafe(call)).unwrap_or(-libc::ENOTRECOVERABLE)
}

/// `regcache_get()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_get(
    cache: *mut CacheHandle,
    addr: *const c_void,
    len: usize,
    access: u32,
    ticket: *mut Ticket,
) -> c_int {
    swiftly(|| {
        // SAFETY: the header asks for a handle, and for a place for the ticket.
        let (handle, to) = unsafe { (cache.as_ref(), ticket.as_mut()) };
        if let (Some(handle), Some(to)) = (handle, to) {
            // SAFETY: the header forbids to destroy the cache meanwhile.
            if let Some(lessee) = unsafe { threads::near(handle.id()) } {
                // SAFETY: it is this thread's, and the header asks for what a remote access asks
                // for.
                let result = unsafe { lessee.get(addr as usize, len, access) };
                return answer("regcache_get", result, to);
            }
        }
        // SAFETY: the same.
        unsafe { first_get(cache, addr as usize, len, access, ticket) }
    })
}

/// The first lookup of a thread.
#[cold]
#[inline(never)]
unsafe fn first_get(
    cache: *mut CacheHandle,
    addr: usize,
    len: usize,
    access: u32,
    ticket: *mut Ticket,
) -> c_int {
    enter("regcache_get", || {
        // SAFETY: the header asks for a place for the ticket.
        let to = unsafe { out(ticket, "ticket") }?;
        *to = Ticket::NONE;
        // SAFETY: the header asks for a handle.
        let body = unsafe { body(cache) }?;
        // SAFETY: the lessee is this thread's, and the header asks for what a remote access asks for.
        *to = threads::with_lessee(body, |l| unsafe { l.get(addr, len, access) })?;
        Ok(0)
    })
}

/// `regcache_hold()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_hold(
    cache: *mut CacheHandle,
    ticket: Ticket,
    another: *mut Ticket,
) -> c_int {
    enter("regcache_hold", || {
        // SAFETY: the header asks for a place for the ticket.
        let to = unsafe { out(another, "another") }?;
        *to = Ticket::NONE;
        // SAFETY: the header asks for a handle.
        let body = unsafe { body(cache) }?;
        let found = body.directory.find(ticket.lease).filter(|(chunk, _)| chunk.user == 0);
        let loan = found.and_then(|(_, lease)| lease.copy(ticket.lease));
        let loan = loan.ok_or_else(Failure::dead_ticket)?;
        // SAFETY: the lessee is this thread's.
        *to = threads::with_lessee(body, |l| unsafe { l.lend(loan) })?;
        Ok(0)
    })
}

/// `regcache_put()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_put(cache: *mut CacheHandle, ticket: Ticket) -> c_int {
    swiftly(|| {
        // SAFETY: the header asks for a handle.
        let body = match unsafe { body(cache) } {
            Ok(body) => body,
            Err(failure) => return fail("regcache_put", &failure),
        };
        let found = body.directory.find(ticket.lease);
        if let Some((_, lease)) = found.filter(|(chunk, _)| chunk.user == 0) {
            if let Some(loan) = lease.redeem(ticket.lease) {
                drop(loan);
                return 0;
            }
        }
        fail("regcache_put", &Failure::dead_ticket())
    })
}
