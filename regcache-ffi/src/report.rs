//! What a cache has done, and what it holds.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr;

use libc::c_int;
use regcache::Stats;

use crate::boundary::enter;
use crate::create::{CacheHandle, body};
use crate::failure::Failure;
use crate::handle::out;
use crate::manage::on;

macro_rules! statistics {
    ($($name:ident)*) => {
        /// `struct regcache_stats`
        #[repr(C)]
        #[derive(Debug, Clone, Copy)]
        pub struct Statistics {
            /// The size of this structure.
            pub type_size: usize,
            $(#[doc = concat!("See `regcache::Stats::", stringify!($name), "`.")] pub $name: u64,)*
            /// Tickets that have not been put.
            pub tickets: u64,
        }

        impl Statistics {
            fn new(stats: Stats, tickets: u64) -> Statistics {
                Statistics { type_size: size_of::<Statistics>(), $($name: stats.$name,)* tickets }
            }
        }
    };
}

statistics! {
    hits misses joined registrations deregistrations register_failures deregister_failures stale
    verified revoked barrier_failures evicted repinned uncached_too_large uncached_full
    uncached_contested uncached_reentered uncached_unwatchable uncached_unmonitored regions bytes
}

/// More than the structure will ever have: what claims to be larger was not initialised.
const LARGEST: usize = 4096;

/// `regcache_query()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_query(cache: *mut CacheHandle, stats: *mut Statistics) -> c_int {
    enter("regcache_query", || {
        // SAFETY: the header asks for a handle.
        let body = unsafe { body(cache) }?;
        // Only the size is known to be initialised, and perhaps no more than that is there.
        // SAFETY: the header asks for a place that begins with its size.
        let size = *unsafe { out(stats.cast::<usize>(), "stats") }?;
        if !(size_of::<usize>()..=LARGEST).contains(&size) {
            return Err(Failure::invalid(format!(
                "stats->type_size is {size}: initialise the structure with its macro"
            )));
        }
        let foreign = body.refuse_foreign().is_err();
        let tickets = if foreign { 0 } else { body.directory.live() as u64 };
        let mut own = Statistics::new(body.cache().stats(), tickets);
        own.type_size = size;
        let fits = size.min(size_of::<Statistics>());
        // SAFETY: the caller has `size` bytes, of which these are filled and the rest zeroed.
        unsafe {
            ptr::write_bytes(stats.cast::<MaybeUninit<u8>>(), 0, size);
            ptr::copy_nonoverlapping((&raw const own).cast::<u8>(), stats.cast::<u8>(), fits);
        }
        Ok(0)
    })
}

/// `regcache_dump()`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn regcache_dump(
    cache: *mut CacheHandle,
    buffer: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: the header asks for a handle.
    unsafe {
        on("regcache_dump", cache, |body| {
            if buffer.is_null() && size > 0 {
                return Err(Failure::null("buffer"));
            }
            let text = body.cache().dump()?.to_string();
            if size > 0 {
                let fits = text.len().min(size - 1);
                // The header asks for `size` bytes, of which no more are written.
                ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), fits);
                buffer.add(fits).write(0);
            }
            Ok(c_int::try_from(text.len()).unwrap_or(c_int::MAX))
        })
    }
}
