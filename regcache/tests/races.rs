//! What happens in between: events during a pin, threads that miss together, re-entry, fork.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::Duration;

use common::{Recorder, TestCache, cache, page, pages};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use regcache::monitor::{Cookie, Invalid, Manual, Monitor, MonitorError};
use regcache::{Access, AddressRange, Cache, Error};

const RW: Access = Access::LOCAL_WRITE;

/// A cache whose registrar can reach the cache, as a callback that re-enters it does.
fn cache_with(
    script: impl Fn(&TestCache) -> Result<(), Errno> + Send + Sync + 'static,
) -> Arc<TestCache> {
    let cell: Arc<OnceLock<std::sync::Weak<TestCache>>> = Arc::default();
    let inner = cell.clone();
    let recorder = Recorder::with(move |_| {
        let cache = inner.get().expect("set before use").upgrade().expect("alive while used");
        script(&cache)
    });
    let cache = Arc::new(Cache::builder(recorder, Manual::new()).build().unwrap());
    cell.set(Arc::downgrade(&cache)).unwrap();
    cache
}

#[test]
fn an_event_during_the_pin_pins_again_while_holding_the_first() {
    let events = AtomicU64::new(1);
    let cache = cache_with(move |cache| {
        if events.fetch_sub(1, Ordering::SeqCst) == 1 {
            cache.monitor().invalidate(pages(0, 1));
        }
        Ok(())
    });
    let guard = cache.get_or_register(page(0), 8, RW).unwrap();
    assert!(guard.is_cached());
    assert_eq!(guard.lkey(), 2, "the second registration is the one that is kept");
    assert_eq!(cache.registrar().most_live(), 2, "the first was held during the second");
    assert_eq!(cache.registrar().live(), 1);
    assert_eq!(cache.stats().repinned, 1);
    assert_eq!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), 2);
}

#[test]
fn events_without_end_give_an_uncached_registration() {
    let cache = cache_with(|cache| {
        cache.monitor().invalidate(pages(0, 1));
        Ok(())
    });
    let guard = cache.get_or_register(page(0), 8, RW).unwrap();
    assert!(!guard.is_cached());
    assert_eq!(cache.registrar().calls(), 3);
    assert_eq!(cache.registrar().live(), 1);
    drop(guard);
    assert_eq!(cache.registrar().live(), 0);
    assert_eq!(cache.stats().uncached_contested, 1);
    assert_eq!(cache.stats().regions, 0);
}

#[test]
fn the_second_pin_gets_the_memory_of_the_first_when_there_is_too_little() {
    let events = AtomicU64::new(1);
    let cache = cache_with(move |cache| {
        if events.fetch_sub(1, Ordering::SeqCst) == 1 {
            cache.monitor().invalidate(pages(0, 1));
        }
        Ok(())
    });
    cache.registrar().set_capacity(regcache::page_size());
    assert!(cache.get_or_register(page(0), 8, RW).unwrap().is_cached());
    assert_eq!(cache.registrar().live(), 1);
}

#[test]
fn an_event_elsewhere_during_the_pin_is_no_matter() {
    let cache = cache_with(|cache| {
        cache.monitor().invalidate(pages(5, 1));
        Ok(())
    });
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    assert_eq!(cache.stats().repinned, 0);
}

#[test]
fn threads_that_miss_together_register_once() {
    let barrier = Arc::new(Barrier::new(8));
    let recorder = Recorder::with(|_| {
        thread::sleep(Duration::from_millis(50));
        Ok(())
    });
    let cache = Cache::builder(recorder, Manual::new()).build().unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), 1);
            });
        }
    });
    assert_eq!(cache.registrar().calls(), 1);
}

#[test]
fn a_failure_is_shared_by_those_who_wait_and_remembered_by_nobody() {
    let waiting = Arc::new(AtomicBool::new(true));
    let fails = waiting.clone();
    let recorder = Recorder::with(move |_| {
        thread::sleep(Duration::from_millis(100));
        if fails.load(Ordering::SeqCst) { Err(Errno::EFAULT) } else { Ok(()) }
    });
    let cache = Cache::builder(recorder, Manual::new()).build().unwrap();
    let failures = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                if cache.get_or_register(page(0), 8, RW).is_err() {
                    failures.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(failures.load(Ordering::SeqCst), 8);
    // Who came while the first was trying does not know what was mapped when it began. One of them
    // tries again, for all.
    let calls = cache.registrar().calls();
    assert!(calls <= 3, "{calls} pins for 8 who waited");
    waiting.store(false, Ordering::SeqCst);
    assert!(cache.get_or_register(page(0), 8, RW).is_ok());
}

/// The memory is mapped while another thread is failing to register it.
#[test]
fn a_failure_from_before_the_lookup_is_not_its_own() {
    let started = Arc::new(Barrier::new(2));
    let mapped = Arc::new(AtomicBool::new(false));
    let recorder = {
        let (started, mapped) = (started.clone(), mapped.clone());
        Recorder::with(move |_| {
            if mapped.load(Ordering::SeqCst) {
                return Ok(());
            }
            started.wait();
            thread::sleep(Duration::from_millis(100));
            Err(Errno::EFAULT)
        })
    };
    let cache = Cache::builder(recorder, Manual::new()).build().unwrap();
    thread::scope(|scope| {
        let early = scope.spawn(|| cache.get_or_register(page(0), 8, RW).map(drop));
        started.wait();
        mapped.store(true, Ordering::SeqCst);
        assert!(cache.get_or_register(page(0), 8, RW).unwrap().is_cached());
        assert!(early.join().unwrap().is_err());
    });
    assert_eq!(cache.stats().joined, 1);
}

/// A lookup of mapped memory waits for a registration of more, part of which is not mapped.
#[test]
fn a_failure_of_a_wider_range_is_nobody_elses() {
    let started = Arc::new(Barrier::new(2));
    let recorder = {
        let started = started.clone();
        Recorder::with(move |range| {
            if range == pages(0, 4) {
                started.wait();
                thread::sleep(Duration::from_millis(100));
                return Err(Errno::EFAULT);
            }
            Ok(())
        })
    };
    let cache = Cache::builder(recorder, Manual::new()).build().unwrap();
    thread::scope(|scope| {
        let wide =
            scope.spawn(|| cache.get_or_register(page(0), 4 * regcache::page_size(), RW).map(drop));
        started.wait();
        assert_eq!(cache.get_or_register(page(1), 8, RW).unwrap().range(), pages(1, 1));
        assert!(wide.join().unwrap().is_err());
    });
    assert_eq!(cache.stats().joined, 1);
}

#[test]
fn a_registrar_that_looks_up_its_own_memory_gets_it_uncached() {
    let depth = AtomicU64::new(0);
    let cache = cache_with(move |cache| {
        if depth.fetch_add(1, Ordering::SeqCst) == 0 {
            let inner = cache.get_or_register(page(0), 8, RW).expect("no deadlock");
            assert!(!inner.is_cached());
        }
        Ok(())
    });
    assert!(cache.get_or_register(page(0), 8, RW).unwrap().is_cached());
    assert_eq!(cache.stats().uncached_reentered, 1);
}

#[test]
fn a_panic_in_the_registrar_lets_the_others_go() {
    let calls = AtomicU64::new(0);
    let recorder = Recorder::with(move |_| {
        if calls.fetch_add(1, Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(100));
            panic!("the test's own");
        }
        Ok(())
    });
    let cache = Cache::builder(recorder, Manual::new()).build().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| drop(cache.get_or_register(page(0), 8, RW)));
        thread::sleep(Duration::from_millis(30));
        assert!(cache.get_or_register(page(0), 8, RW).unwrap().is_cached());
        assert!(first.join().is_err());
    });
    assert!(cache.get_or_register(page(0), 8, RW).unwrap().is_cached());
}

#[test]
fn a_child_is_refused_and_deregisters_nothing() {
    let recorder = Recorder::default();
    let cache = Cache::builder(recorder.clone(), Manual::new()).build().unwrap();
    let guard = cache.get_or_register(page(0), 8, RW).unwrap();
    let stale = cache.get_or_register(page(1), 8, RW).unwrap();
    cache.monitor().invalidate(pages(1, 1));
    cache.drain().unwrap();
    // SAFETY: the child calls only code that refuses before it takes a lock, and leaves by _exit.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let refused = matches!(cache.get_or_register(page(0), 8, RW), Err(Error::Forked))
                && matches!(cache.drain(), Err(Error::Forked))
                && matches!(cache.flush(), Err(Error::Forked));
            // The last guard of a stale registration, which the parent still holds.
            drop(stale);
            drop(guard);
            drop(cache);
            let same = recorder.live() == 2;
            // SAFETY: _exit(2) runs no code of this process any more.
            unsafe { libc::_exit(if refused && same { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
    drop((guard, stale));
    assert_eq!(recorder.live(), 1);
    assert_eq!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), 1);
}

/// Reports the first cookie again and again, as an event does that was read before its watch ended.
#[derive(Default)]
struct Late {
    manual: Manual,
    first: OnceLock<Cookie>,
}

impl Monitor for Late {
    fn generation(&self) -> u64 {
        self.manual.generation()
    }
    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        self.first.get_or_init(|| cookie);
        self.manual.watch(cookie, range)
    }
    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.manual.unwatch(cookie)
    }
    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        if let Some(first) = self.first.get() {
            invalid(Invalid::Watch(*first));
        }
        self.manual.drain(invalid)
    }
}

#[test]
fn a_late_event_does_not_hit_the_next_tenant_of_the_slot() {
    let cache = Cache::builder(Recorder::default(), Late::default()).build().unwrap();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    cache.flush().unwrap();
    let next = cache.get_or_register(page(1), 8, RW).unwrap().lkey();
    cache.drain().unwrap();
    assert_eq!(cache.get_or_register(page(1), 8, RW).unwrap().lkey(), next);
    assert_eq!(cache.stats().stale, 0);
}

/// Many threads look up, hold and check while others invalidate: no lookup that begins after an
/// invalidation returns a registration made before it.
#[test]
fn no_lookup_returns_what_was_invalidated_before_it_began() {
    const PAGES: usize = 8;
    let cache = cache();
    // The newest key that must not be returned for each page any more.
    let dead: Vec<AtomicU64> = (0..PAGES).map(|_| AtomicU64::new(0)).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..3 {
            let (cache, dead, stop) = (&cache, &dead, &stop);
            scope.spawn(move || {
                let mut n = seed;
                while !stop.load(Ordering::Relaxed) {
                    n = (n * 5 + 1) % PAGES;
                    let floor = dead[n].load(Ordering::SeqCst);
                    let guard = cache.get_or_register(page(n), 8, RW).unwrap();
                    assert!(u64::from(guard.lkey()) > floor, "{} <= {floor}", guard.lkey());
                }
            });
        }
        for round in 0..2000 {
            let n = round % PAGES;
            let newest = u64::from(cache.get_or_register(page(n), 8, RW).unwrap().lkey());
            cache.monitor().invalidate(pages(n, 1));
            dead[n].store(newest, Ordering::SeqCst);
        }
        stop.store(true, Ordering::Relaxed);
    });
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live(), 0);
    assert_eq!(cache.stats().regions, 0);
}
