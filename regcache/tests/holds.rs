//! Who holds a registration: guards by the hundred, on many threads, clones, handles; and how each
//! kind of barrier does.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use common::{Recorder, TestCache, page, pages};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use regcache::monitor::Manual;
use regcache::{Access, Barrier, Cache, Error, Guard};

const RW: Access = Access::LOCAL_WRITE;

fn with(barrier: Barrier) -> TestCache {
    Cache::builder(Recorder::default(), Manual::new()).barrier(barrier).build().unwrap()
}

fn each_barrier(test: impl Fn(TestCache)) {
    assert_eq!(Barrier::best(), Barrier::Membarrier, "this kernel has membarrier(2)");
    test(with(Barrier::Membarrier));
    test(with(Barrier::Atomic));
}

#[test]
fn guards_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Guard<'_, Recorder, Manual>>();
    check::<TestCache>();
}

#[test]
fn more_guards_than_a_thread_has_cells() {
    each_barrier(|cache| {
        let mut guards: Vec<_> =
            (0..1000).map(|n| cache.get_or_register(page(n % 3), 8, RW).unwrap()).collect();
        cache.monitor().invalidate(pages(0, 3));
        cache.drain().unwrap();
        assert_eq!(cache.registrar().live(), 3, "all are held");
        let last = guards.split_off(997);
        drop(guards);
        assert_eq!(cache.registrar().live(), 3, "each is held once");
        drop(last);
        assert_eq!(cache.registrar().live(), 0);
        // The cells are free again.
        drop(cache.get_or_register(page(0), 8, RW).unwrap());
        drop(cache.get_or_register(page(0), 8, RW).unwrap());
        assert_eq!(cache.registrar().live(), 1);
    });
}

#[test]
fn a_guard_that_is_dropped_elsewhere_ends_what_was_stale() {
    each_barrier(|cache| {
        thread::scope(|scope| {
            let (send, receive) = mpsc::channel();
            let cache = &cache;
            scope.spawn(move || send.send(cache.get_or_register(page(0), 8, RW).unwrap()).unwrap());
            let guard = receive.recv().unwrap();
            cache.monitor().invalidate(pages(0, 1));
            cache.drain().unwrap();
            assert_eq!(cache.registrar().live(), 1);
            drop(guard);
            assert_eq!(cache.registrar().live(), 0);
        });
    });
}

/// The thread's cells go to another when it exits, with what is held by them.
#[test]
fn holds_survive_the_thread_that_made_them() {
    each_barrier(|cache| {
        let guards: Vec<_> = (0..20)
            .map(|n| {
                thread::scope(|scope| {
                    let cache = &cache;
                    scope
                        .spawn(move || {
                            drop(cache.get_or_register(page(n), 8, RW).unwrap());
                            cache.get_or_register(page(n), 8, RW).unwrap()
                        })
                        .join()
                        .unwrap()
                })
            })
            .collect();
        cache.flush().unwrap();
        assert_eq!(cache.registrar().live(), 20);
        drop(guards);
        assert_eq!(cache.registrar().live(), 0);
    });
}

#[test]
fn a_clone_holds_as_the_original_does() {
    each_barrier(|cache| {
        let guard = cache.get_or_register(page(0), 8, RW).unwrap();
        let clone = guard.clone();
        assert_eq!(clone.lkey(), guard.lkey());
        cache.flush().unwrap();
        drop(guard);
        assert_eq!(cache.registrar().live(), 1);
        drop(clone);
        assert_eq!(cache.registrar().live(), 0);
    });
}

#[test]
fn a_clone_of_an_uncached_one_too() {
    let cache = Cache::builder(Recorder::default(), Manual::new()).max_regions(0).build().unwrap();
    let guard = cache.get_or_register(page(0), 8, RW).unwrap();
    let clone = guard.clone();
    assert!(!clone.is_cached());
    drop(guard);
    assert_eq!(cache.registrar().live(), 1);
    drop(clone);
    assert_eq!(cache.registrar().live(), 0);
}

#[test]
fn a_handle_is_the_cache() {
    each_barrier(|cache| {
        let local = cache.local();
        let key = local.get_or_register(page(0), 8, RW).unwrap().lkey();
        for _ in 0..3 {
            assert_eq!(local.get_or_register(page(0), 8, RW).unwrap().lkey(), key);
        }
        assert_eq!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), key);
        let held = local.get_or_register(page(0), 8, RW).unwrap();
        cache.monitor().invalidate(pages(0, 1));
        assert_ne!(local.get_or_register(page(0), 8, RW).unwrap().lkey(), key);
        drop(local);
        assert_eq!(cache.registrar().live(), 2, "the guard outlives the handle");
        drop(held);
        assert_eq!(cache.registrar().live(), 1);
        let error = cache.local().get_or_register(page(0), 0, RW).unwrap_err();
        assert!(matches!(error, Error::EmptyRange { .. }));
    });
}

#[test]
fn hits_of_all_ways_are_counted() {
    each_barrier(|cache| {
        drop(cache.get_or_register(page(0), 8, RW).unwrap());
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let local = cache.local();
                    for _ in 0..100 {
                        drop(cache.get_or_register(page(0), 8, RW).unwrap());
                        drop(local.get_or_register(page(0), 8, RW).unwrap());
                    }
                });
            }
        });
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses), (600, 1));
        assert_eq!(stats.locked_hits, 0, "hints lead each thread to it");
    });
}

#[test]
fn many_caches_on_one_thread() {
    let caches: Vec<_> = (0..40).map(|_| with(Barrier::best())).collect();
    for round in 0..3 {
        for (n, cache) in caches.iter().enumerate() {
            let guard = cache.get_or_register(page(n), 8, RW).unwrap();
            assert_eq!(guard.range(), pages(n, 1));
            assert_eq!(cache.stats().hits, round);
        }
    }
    drop(caches);
    // New ones take the names' places in what the thread remembers.
    let cache = with(Barrier::best());
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    assert_eq!(cache.registrar().live(), 1);
}

#[test]
fn a_lookup_in_the_last_moments_of_a_thread() {
    struct Late(Arc<TestCache>);
    impl Drop for Late {
        fn drop(&mut self) {
            drop(self.0.get_or_register(page(0), 8, RW).unwrap());
            drop(self.0.get_or_register(page(0), 8, RW).unwrap());
        }
    }
    thread_local!(static LATE: std::cell::RefCell<Option<Late>> = const { std::cell::RefCell::new(None) });
    let cache = Arc::new(with(Barrier::best()));
    for first in [true, false] {
        let cache = cache.clone();
        thread::spawn(move || {
            // Destructors run in an order that is not known: before and after the cache's own.
            if first {
                drop(cache.get_or_register(page(1), 8, RW).unwrap());
            }
            LATE.with(|late| *late.borrow_mut() = Some(Late(cache.clone())));
            drop(cache.get_or_register(page(1), 8, RW).unwrap());
        })
        .join()
        .unwrap();
    }
    assert_eq!(cache.registrar().live(), 2);
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live(), 0);
}

/// Calls every public function of a cache that is the parent's. All of them return.
fn is_refused_everywhere(cache: &TestCache) -> bool {
    let is_refused = |result: Result<(), Error>| matches!(result, Err(Error::Forked));
    let local = cache.local();
    // SAFETY: all of them fail, and so let no peer reach any memory.
    let (remote, local_remote) = unsafe {
        let access = RW | Access::REMOTE_READ;
        (
            cache.get_or_register_remote(page(0), 8, access).map(drop),
            local.get_or_register_remote(page(0), 8, access).map(drop),
        )
    };
    let results = [
        cache.get_or_register(page(6), 8, RW).map(drop),
        cache.get_or_register(page(0), 8, RW).map(drop),
        local.get_or_register(page(6), 8, RW).map(drop),
        local.cache().get_or_register(page(1), 8, RW).map(drop),
        cache
            .get_or_register_many(&[(page(6), 8), (page(0), 4 << 20), (page(1), 4 << 20)], RW)
            .map(drop),
        remote,
        local_remote,
        cache.drain(),
        cache.flush(),
        cache.revoke(pages(0, 1)).map(drop),
        cache.dump().map(drop),
    ];
    drop(local);
    cache.monitor().invalidate(pages(0, 1));
    let told = !format!("{cache:?} {:?} {}", cache.monitor(), cache.stats()).is_empty();
    // The test's own registrar has a lock.
    let _ = cache.registrar();
    told && results.into_iter().all(is_refused)
}

/// A monitor that comes from the parent may be in the midst of anything: a child's cache over it
/// keeps nothing.
#[test]
fn a_manual_monitor_of_the_parent_serves_no_cache_of_the_child() {
    let monitor = Manual::new();
    // SAFETY: no other thread of this program has a lock that the child takes, and it leaves by
    // _exit.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // SAFETY: it only makes a child that hangs end, by a signal.
            unsafe { libc::alarm(20) };
            let cache = Cache::builder(Recorder::default(), monitor).build().unwrap();
            let get = || {
                let guard = cache.get_or_register(page(0), 8, RW).unwrap();
                (guard.lkey(), guard.is_cached())
            };
            let first = get();
            cache.monitor().invalidate(pages(0, 1));
            let second = get();
            let good = first.0 != second.0 && !second.1;
            // SAFETY: _exit(2) runs no code of this process any more.
            unsafe { libc::_exit(if good { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
}

/// Children of a process whose other threads are in the midst of lookups, misses and drains.
#[test]
fn no_child_hangs() {
    let cache = with(Barrier::best());
    let stop = AtomicBool::new(false);
    let held = cache.get_or_register(page(0), 8, RW).unwrap();
    let mut unwell = Vec::new();
    thread::scope(|scope| {
        for thread in 0..2 {
            let (cache, stop) = (&cache, &stop);
            scope.spawn(move || {
                for n in (1..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    drop(cache.get_or_register(page(1 + (n + thread) % 5), 8, RW).unwrap());
                    if n % 7 == 0 {
                        cache.monitor().invalidate(pages(n % 5, 1));
                    }
                    if n % 11 == 0 {
                        // Threads that come and go claim what belongs to a thread.
                        drop(cache.local());
                    }
                }
            });
        }
        for _ in 0..200 {
            let guard = cache.get_or_register(page(6), 8, RW).unwrap();
            // SAFETY: the child calls only code that refuses before it takes a lock, and leaves by
            // _exit.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    // SAFETY: it only makes a child that hangs end, by a signal.
                    unsafe { libc::alarm(20) };
                    let refused = is_refused_everywhere(&cache);
                    drop((guard.clone(), guard));
                    // SAFETY: _exit(2) runs no code of this process any more.
                    unsafe { libc::_exit(if refused { 0 } else { 1 }) }
                }
                ForkResult::Parent { child } => {
                    let ended = waitpid(child, None).unwrap();
                    if ended != WaitStatus::Exited(child, 0) {
                        unwell.push(ended);
                    }
                }
            }
            if !unwell.is_empty() {
                break;
            }
        }
        // Also after a failure: the threads are waited for.
        stop.store(true, Ordering::Relaxed);
    });
    assert!(unwell.is_empty(), "{unwell:?}");
    assert!(held.is_cached() && cache.registrar().live() > 0);
}

#[test]
fn a_dump_can_be_read() {
    let cache = with(Barrier::best());
    let held = cache.get_or_register(page(0), 8, RW).unwrap();
    drop(cache.get_or_register(page(1), 8, Access::empty()).unwrap());
    cache.monitor().invalidate(pages(0, 1));
    cache.drain().unwrap();
    let dump = cache.dump().unwrap();
    let seen: Vec<_> = dump.regions().iter().map(|r| (r.range, r.stale, r.in_use)).collect();
    assert_eq!(seen, [(pages(0, 1), true, true), (pages(1, 1), false, false)]);
    let text = dump.to_string();
    assert!(text.contains("LOCAL_WRITE, stale, in use\n"), "{text}");
    assert!(text.ends_with("2 registrations"), "{text}");
    drop(held);
}

/// Hits on every thread at once, while what they hit is invalidated: nothing is deregistered while
/// it is held, and nothing is left.
#[test]
fn nothing_is_deregistered_while_it_is_held() {
    each_barrier(|cache| {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for thread in 0..3 {
                let (cache, stop) = (&cache, &stop);
                scope.spawn(move || {
                    let local = cache.local();
                    for n in (thread..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                        let guard = match n % 3 {
                            0 => local.get_or_register(page(n % 4), 8, RW).unwrap(),
                            _ => cache.get_or_register(page(n % 4), 8, RW).unwrap(),
                        };
                        assert!(cache.registrar().is_live(*guard.region()), "{guard:?}");
                        if n % 5 == 0 {
                            let clone = guard.clone();
                            drop(guard);
                            assert!(cache.registrar().is_live(*clone.region()), "{clone:?}");
                        }
                    }
                });
            }
            for n in 0..3000 {
                cache.monitor().invalidate(pages(n % 4, 1));
                cache.drain().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        cache.flush().unwrap();
        assert_eq!(cache.registrar().live(), 0);
        assert_eq!(cache.stats().regions, 0);
    });
}
