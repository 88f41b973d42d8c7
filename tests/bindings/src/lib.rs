//! What the cache does with a protection domain that another crate has made.

use std::ffi::c_void;
use std::ptr::NonNull;

use regcache::monitor::Ummunotify;
use regcache::registrar::Verbs;
use regcache::{Access, Cache};

/// Registers a buffer with `pd` by a cache, twice, and looks at the keys.
///
/// # Safety
///
/// `pd` is a live `struct ibv_pd`.
pub unsafe fn check(pd: NonNull<c_void>) {
    // SAFETY: the caller promises that the domain lives as long as this call, and the cache and its
    // registrations are gone when it returns.
    let verbs = unsafe { Verbs::from_pd(pd) }.expect("libibverbs");
    let monitor = Ummunotify::open().expect("/dev/ummunotify");
    let cache = Cache::builder(verbs, monitor).build().expect("a cache");
    let buffer = vec![0u8; 1 << 16];
    let get = || {
        cache
            .get_or_register(buffer.as_ptr() as usize, buffer.len(), Access::LOCAL_WRITE)
            .expect("a registration")
    };
    let (first, second) = (get(), get());
    assert!(first.is_cached());
    assert_eq!(first.lkey(), second.lkey());
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.hits), (1, 1), "{stats}");
    drop((first, second));
    cache.flush().expect("nothing is in use");
    let stats = cache.stats();
    assert_eq!((stats.registrations, stats.deregistrations, stats.regions), (1, 1, 0), "{stats}");
}
