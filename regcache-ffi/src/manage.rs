//! What ends registrations: news, and the caller's wish.

use std::os::fd::AsRawFd;

use libc::{c_int, c_void};
use regcache::AddressRange;
use regcache::monitor::Monitor;

use crate::boundary::enter;
use crate::completion::{Completion, CompletionFn};
use crate::create::{CacheBody, CacheHandle, body};
use crate::failure::Failure;

/// A range that C passed.
pub(crate) fn range(addr: *const c_void, len: usize) -> Result<AddressRange, Failure> {
    AddressRange::new(addr as usize, len).ok_or_else(|| {
        Failure::invalid(format!("{len} bytes at {addr:p} are none, or wrap around"))
    })
}

/// A call on a cache, away from the fast paths.
///
/// # Safety
///
/// `cache` is NULL or a handle, and is not destroyed meanwhile.
pub(crate) unsafe fn on(
    name: &'static str,
    cache: *mut CacheHandle,
    call: impl FnOnce(&CacheBody) -> Result<c_int, Failure>,
) -> c_int {
    enter(name, || {
        // SAFETY: the caller promises it.
        let body = unsafe { body(cache) }?;
        body.refuse_foreign()?;
        call(body)
    })
}

/// `regcache_notify()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_notify(
    cache: *mut CacheHandle,
    addr: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_notify", cache, |body| {
            announce(body, range(addr, len)?)?;
            Ok(0)
        })
    }
}

/// From now on no lookup finds what touches `range`.
fn announce(body: &CacheBody, range: AddressRange) -> Result<(), Failure> {
    let source = body.cache().monitor();
    source.announce(range);
    if source.kernel().is_some() {
        // The kernel's counter did not move, so no lookup would ask.
        body.cache().drain()?;
    }
    Ok(())
}

/// `regcache_invalidate()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_invalidate(
    cache: *mut CacheHandle,
    addr: *const c_void,
    len: usize,
    completion: Option<CompletionFn>,
    context: *mut c_void,
) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_invalidate", cache, |body| {
            let range = range(addr, len)?;
            // It is called when the last one that has it drops it: perhaps this function.
            let completion = completion.map(|function| Completion::new(function, context));
            if let Some(completion) = &completion {
                body.living.wait(range, completion);
            }
            // Not `revoke`, which leaves alone what is being registered right now.
            body.cache().monitor().announce(range);
            body.cache().drain()?;
            Ok(0)
        })
    }
}

/// `regcache_revoke()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_revoke(
    cache: *mut CacheHandle,
    addr: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_revoke", cache, |body| {
            let range = range(addr, len)?;
            body.cache().monitor().announce(range);
            body.cache().drain()?;
            body.cache().revoke(range)?;
            Ok(c_int::try_from(body.living.touching(range)).unwrap_or(c_int::MAX))
        })
    }
}

/// `regcache_drain()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_drain(cache: *mut CacheHandle) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_drain", cache, |body| {
            body.cache().drain()?;
            Ok(0)
        })
    }
}

/// `regcache_flush()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_flush(cache: *mut CacheHandle) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_flush", cache, |body| {
            body.cache().flush()?;
            Ok(0)
        })
    }
}

/// `regcache_fd()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_fd(cache: *mut CacheHandle) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_fd", cache, |body| {
            let fd = body.cache().monitor().pollable();
            fd.map(|fd| fd.as_raw_fd()).ok_or_else(|| {
                Failure::new(libc::EOPNOTSUPP, "a manual monitor has nothing to wait for")
            })
        })
    }
}
