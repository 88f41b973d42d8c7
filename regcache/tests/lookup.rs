//! Hit, miss, stale, evict: what a single user sees.

mod common;

use std::mem::size_of;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{Recorder, cache, page, pages};
use nix::errno::Errno;
use regcache::monitor::{Cookie, Invalid, Manual, Monitor, MonitorError};
use regcache::{Access, AddressRange, Cache, Error, Guard, page_size};

const RW: Access = Access::LOCAL_WRITE;

#[test]
fn a_guard_is_three_words() {
    assert_eq!(size_of::<Guard<'_, Recorder, Manual>>(), 24);
}

#[test]
fn the_second_lookup_of_a_buffer_hits() {
    let cache = cache();
    let first = cache.get_or_register(page(0) + 100, 50, RW).unwrap().lkey();
    let again = cache.get_or_register(page(0) + 7, page_size() - 7, RW).unwrap();
    assert_eq!(again.lkey(), first, "the whole page is registered");
    assert_eq!(again.range(), pages(0, 1));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.registrations), (1, 1, 1));
}

#[test]
fn access_is_honoured() {
    let cache = cache();
    let read = cache.get_or_register(page(0), 8, Access::empty()).unwrap().lkey();
    let write = cache.get_or_register(page(0), 8, RW).unwrap().lkey();
    assert_ne!(read, write);
    assert_eq!(cache.get_or_register(page(0), 8, Access::empty()).unwrap().lkey(), read);
    let relaxed = cache.get_or_register(page(0), 8, RW | Access::RELAXED_ORDERING).unwrap();
    assert!(![read, write].contains(&relaxed.lkey()));
}

#[test]
fn remote_access_is_exact_and_unsafe() {
    let cache = cache();
    let access = RW | Access::REMOTE_WRITE;
    let error = cache.get_or_register(page(0), 8, access).unwrap_err();
    assert!(matches!(error, Error::RemoteAccessIsUnsafe { .. }), "{error}");
    // SAFETY: the registrar of this test lets nobody reach any memory.
    let guard = unsafe { cache.get_or_register_remote(page(0) + 3, 8, access) }.unwrap();
    assert_eq!(guard.range(), AddressRange::new(page(0) + 3, 8).unwrap());
}

#[test]
fn a_stale_registration_is_never_found_again() {
    let cache = cache();
    let old = cache.get_or_register(page(0), 8, RW).unwrap().lkey();
    cache.monitor().invalidate(pages(0, 1));
    let new = cache.get_or_register(page(0), 8, RW).unwrap().lkey();
    assert_ne!(old, new);
    assert_eq!(cache.registrar().live(), 1, "the stale one is gone");
    assert_eq!(cache.stats().stale, 1);
}

#[test]
fn an_event_elsewhere_costs_no_registration() {
    let cache = cache();
    let other = cache.get_or_register(page(5), 8, RW).unwrap().lkey();
    let old = cache.get_or_register(page(0), 8, RW).unwrap().lkey();
    cache.monitor().invalidate(pages(5, 1));
    assert_eq!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), old);
    assert_ne!(cache.get_or_register(page(5), 8, RW).unwrap().lkey(), other);
}

#[test]
fn stale_in_use_lives_until_its_last_guard() {
    let cache = cache();
    let first = cache.get_or_register(page(0), 8, RW).unwrap();
    let second = cache.get_or_register(page(0), 8, RW).unwrap();
    cache.monitor().invalidate(pages(0, 1));
    let new = cache.get_or_register(page(0), 8, RW).unwrap();
    assert_ne!(new.lkey(), first.lkey());
    assert_eq!(cache.registrar().live(), 2);
    drop(first);
    assert_eq!(cache.registrar().live(), 2);
    drop(second);
    assert_eq!(cache.registrar().live(), 1);
    assert_eq!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), new.lkey());
}

#[test]
fn drain_gives_memory_back_without_a_lookup() {
    let cache = cache();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    cache.monitor().invalidate(pages(0, 1));
    cache.drain().unwrap();
    assert_eq!(cache.registrar().live(), 0);
    assert_eq!(cache.stats().bytes, 0);
}

#[test]
fn flush_spares_what_is_in_use_and_hides_it() {
    let cache = cache();
    let held = cache.get_or_register(page(0), 8, RW).unwrap();
    drop(cache.get_or_register(page(1), 8, RW).unwrap());
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live_ranges(), [pages(0, 1)]);
    let new = cache.get_or_register(page(0), 8, RW).unwrap();
    assert_ne!(new.lkey(), held.lkey());
}

#[test]
fn dropping_the_cache_leaves_nothing_registered() {
    let recorder = Recorder::default();
    let cache = Cache::builder(recorder.clone(), Manual::new()).build().unwrap();
    for n in 0..10 {
        drop(cache.get_or_register(page(n), 8, RW).unwrap());
    }
    assert_eq!(recorder.live(), 10);
    drop(cache);
    assert_eq!(recorder.live(), 0);
}

#[test]
fn a_wider_registration_replaces_those_inside_it() {
    let cache = cache();
    for n in [2, 0, 4] {
        drop(cache.get_or_register(page(n), 8, RW).unwrap());
    }
    let held = cache.get_or_register(page(6), 8, RW).unwrap();
    let wide = cache.get_or_register(page(0), 8 * page_size(), RW).unwrap().lkey();
    assert_eq!(cache.registrar().live_ranges(), [pages(0, 8), pages(6, 1)]);
    drop(held);
    assert_eq!(cache.registrar().live_ranges(), [pages(0, 8)]);
    assert_eq!(cache.get_or_register(page(3), 8, RW).unwrap().lkey(), wide);
}

#[test]
fn limits_hold_and_the_unused_goes_first() {
    let cache = Cache::builder(Recorder::default(), Manual::new()).max_regions(3).build().unwrap();
    for n in 0..3 {
        drop(cache.get_or_register(page(n), 8, RW).unwrap());
    }
    let kept = cache.get_or_register(page(1), 8, RW).unwrap().lkey();
    drop(cache.get_or_register(page(3), 8, RW).unwrap());
    assert_eq!(cache.registrar().live(), 3);
    assert_eq!(cache.stats().evicted, 1);
    assert_eq!(cache.get_or_register(page(1), 8, RW).unwrap().lkey(), kept, "it was visited");
}

#[test]
fn a_full_cache_still_hits_and_hands_out_uncached() {
    let cache = Cache::builder(Recorder::default(), Manual::new()).max_regions(1).build().unwrap();
    let held = cache.get_or_register(page(0), 8, RW).unwrap();
    let extra = cache.get_or_register(page(1), 8, RW).unwrap();
    assert!(held.is_cached() && !extra.is_cached());
    assert_eq!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), held.lkey());
    drop(extra);
    assert_eq!(cache.registrar().live(), 1);
    assert_eq!(cache.stats().uncached_full, 1);
}

#[test]
fn what_is_larger_than_the_cache_is_not_cached() {
    let bytes = 4 * page_size();
    let cache =
        Cache::builder(Recorder::default(), Manual::new()).max_bytes(bytes as u64).build().unwrap();
    drop(cache.get_or_register(page(0), bytes, RW).unwrap());
    let large = cache.get_or_register(page(10), bytes + 1, RW).unwrap();
    assert!(!large.is_cached());
    assert_eq!(cache.stats().evicted, 0, "nothing was evicted for what cannot fit");
}

#[test]
fn out_of_memory_evicts_and_tries_again() {
    let cache = cache();
    cache.registrar().set_capacity(4 * page_size());
    let held = cache.get_or_register(page(0), 8, RW).unwrap();
    for n in 1..4 {
        drop(cache.get_or_register(page(n), 8, RW).unwrap());
    }
    drop(cache.get_or_register(page(10), 2 * page_size(), RW).unwrap());
    assert_eq!(cache.stats().evicted, 2);

    let error = cache.get_or_register(page(20), 4 * page_size(), RW).unwrap_err();
    assert!(matches!(error, Error::CannotPin { .. }), "{error}");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
    assert_eq!(cache.registrar().live_ranges(), [held.range()], "nothing idle was spared");
    assert_eq!(cache.stats().regions, 1);
}

#[test]
fn deregistration_that_is_refused_is_tried_again() {
    let cache = cache();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    cache.registrar().set_busy(true);
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live(), 1);
    assert_ne!(cache.stats().deregister_failures, 0);
    cache.registrar().set_busy(false);
    cache.drain().unwrap();
    assert_eq!(cache.registrar().live(), 0);
}

#[test]
fn bad_requests_change_nothing() {
    let cache = cache();
    for (addr, len, access) in [
        (page(0), 0, RW),
        (usize::MAX - 4, 8, RW),
        (page(0), 8, Access::ON_DEMAND),
        (page(0), 8, Access::ZERO_BASED),
    ] {
        cache.get_or_register(addr, len, access).unwrap_err();
    }
    let (stats, live) = (cache.stats(), cache.registrar().calls());
    assert_eq!((stats.misses, stats.regions, live), (0, 0, 0));
}

#[test]
fn what_cannot_be_registered_is_an_error_each_time_and_leaves_nothing() {
    let recorder = Recorder::with(|_| Err(Errno::EFAULT));
    let cache = Cache::builder(recorder, Narrow::default()).build().unwrap();
    for _ in 0..2 {
        let error = cache.get_or_register(page(0), 8, RW).unwrap_err();
        assert!(matches!(error, Error::NotAccessible { errno: Errno::EFAULT, .. }), "{error}");
    }
    let stats = cache.stats();
    assert_eq!((stats.regions, stats.bytes, stats.register_failures), (0, 0, 2));
    // A watch that was left behind would raise events.
    assert_eq!(cache.monitor().watches.load(Ordering::SeqCst), 0);
}

/// A monitor that works until it is told to fail.
#[derive(Default)]
struct Fragile {
    manual: Manual,
    broken: AtomicBool,
}

impl Monitor for Fragile {
    fn generation(&self) -> u64 {
        self.manual.generation()
    }
    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        self.manual.watch(cookie, range)
    }
    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.manual.unwatch(cookie)
    }
    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        match self.broken.load(Ordering::SeqCst) {
            true => Err(MonitorError::Other("events were lost".into())),
            false => self.manual.drain(invalid),
        }
    }
}

#[test]
fn a_monitor_that_fails_is_not_trusted_again() {
    let cache = Cache::builder(Recorder::default(), Fragile::default()).build().unwrap();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    let held = cache.get_or_register(page(1), 8, RW).unwrap();
    cache.monitor().broken.store(true, Ordering::SeqCst);
    cache.monitor().manual.invalidate(pages(0, 1));

    let new = cache.get_or_register(page(1), 8, RW).unwrap();
    assert!(!new.is_cached() && new.lkey() != held.lkey());
    assert_eq!(cache.registrar().live(), 2, "the idle one is gone, the held one is not");
    drop((held, new));
    assert_eq!(cache.registrar().live(), 0);
    assert_eq!(cache.stats().uncached_unmonitored, 1);
}

/// A monitor that can watch two ranges.
#[derive(Default)]
struct Narrow {
    manual: Manual,
    watches: AtomicUsize,
}

impl Monitor for Narrow {
    fn generation(&self) -> u64 {
        self.manual.generation()
    }
    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        if self.watches.load(Ordering::SeqCst) == 2 {
            return Err(MonitorError::TooManyWatches(2));
        }
        self.watches.fetch_add(1, Ordering::SeqCst);
        self.manual.watch(cookie, range)
    }
    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.watches.fetch_sub(1, Ordering::SeqCst);
        self.manual.unwatch(cookie)
    }
    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        self.manual.drain(invalid)
    }
}

#[test]
fn a_limit_of_the_monitor_evicts_and_then_lends_out_uncached() {
    let cache = Cache::builder(Recorder::default(), Narrow::default()).build().unwrap();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    let _one = cache.get_or_register(page(1), 8, RW).unwrap();
    let _two = cache.get_or_register(page(2), 8, RW).unwrap();
    assert_eq!(cache.stats().evicted, 1);
    let extra = cache.get_or_register(page(3), 8, RW).unwrap();
    assert!(!extra.is_cached());
    assert_eq!(cache.stats().uncached_unwatchable, 1);
    drop(extra);
    assert_eq!(cache.registrar().live(), 2);
}

/// Where all of a large cache is in use, a miss does not look at all of it each time; and what is let
/// go of is found all the same.
#[test]
fn a_full_cache_in_use_does_not_sweep_at_each_miss() {
    const REGIONS: usize = 4096;
    let builder = Cache::builder(Recorder::default(), Manual::new()).max_regions(REGIONS);
    let cache = builder.max_bytes(1 << 40).build().unwrap();
    let get = |n: usize| cache.get_or_register(page(2 * n), 8, RW).unwrap();
    let mut held: Vec<_> = (0..REGIONS).map(get).collect();
    for n in 0..1000 {
        assert!(!get(REGIONS + n).is_cached());
    }
    assert_eq!(cache.stats().evicted, 0);
    drop(held.swap_remove(REGIONS / 2));
    let misses = (0..200).position(|n| get(2 * REGIONS + n).is_cached());
    assert!(misses.is_some_and(|misses| misses <= 64), "{misses:?} misses until it was found");
}
