//! Guards, clones and cells on several threads at once, small enough for Miri: `cargo xtask miri` runs
//! this with several orders of the threads. A region is a box, so that a use after the deregistration
//! is a use of freed memory.

use std::sync::mpsc::channel;
use std::thread;

use nix::errno::Errno;
use regcache::monitor::Manual;
use regcache::registrar::{Keys, Registrar};
use regcache::{Access, AddressRange, Barrier, Cache, Guard};

struct Boxes;

impl Registrar for Boxes {
    type Region = Box<usize>;

    unsafe fn register(&self, range: AddressRange, _access: Access) -> Result<Box<usize>, Errno> {
        Ok(Box::new(range.start()))
    }

    fn deregister(&self, _region: &Box<usize>) -> Result<(), Errno> {
        Ok(())
    }

    fn keys(&self, _region: &Box<usize>) -> Keys {
        Keys { local: 0, remote: 0 }
    }
}

type BoxCache = Cache<Boxes, Manual>;

const PAGE: usize = 4096;

fn cache(barrier: Barrier, max_bytes: usize) -> BoxCache {
    let builder = Cache::builder(Boxes, Manual::new()).max_regions(4).max_bytes(max_bytes as u64);
    builder.barrier(barrier).build().unwrap()
}

fn page(n: usize) -> usize {
    (16 + n) * PAGE
}

fn get(cache: &BoxCache, n: usize) -> Guard<'_, Boxes, Manual> {
    cache.get_or_register(page(n), PAGE, Access::LOCAL_WRITE).unwrap()
}

/// Lookups of the same pages, with clones and guards that other threads drop, while mappings change.
fn guards_are_lent_while_mappings_change(cache: &BoxCache) {
    thread::scope(|scope| {
        let (to, from) = channel::<Guard<'_, Boxes, Manual>>();
        scope.spawn(move || {
            for guard in from {
                assert!(**guard.region() >= page(0));
            }
        });
        for _ in 0..2 {
            let to = to.clone();
            scope.spawn(move || {
                for round in 0..3 {
                    let guard = get(cache, round % 2);
                    let clone = guard.clone();
                    to.send(guard).unwrap();
                    assert_eq!(**clone.region(), page(round % 2));
                }
            });
        }
        drop(to);
        cache.monitor().invalidate(AddressRange::new(page(0), PAGE).unwrap());
        cache.drain().unwrap();
        cache.flush().unwrap();
    });
    cache.flush().unwrap();
    assert_eq!(cache.stats().regions, 0);
}

#[test]
fn holds_by_cells() {
    guards_are_lent_while_mappings_change(&cache(Barrier::Membarrier, 1 << 20));
}

#[test]
fn holds_by_count() {
    guards_are_lent_while_mappings_change(&cache(Barrier::Atomic, 1 << 20));
}

/// The last guard on a registration that is not in the table frees it, while the next to last is
/// still being dropped by another thread.
#[test]
fn uncached_guards_are_dropped_at_once() {
    let cache = cache(Barrier::Membarrier, 1);
    for _ in 0..8 {
        let guard = get(&cache, 0);
        assert!(!guard.is_cached());
        let clone = guard.clone();
        thread::scope(|scope| {
            scope.spawn(move || drop(clone));
            drop(guard);
        });
    }
}

/// A thread's cells serve the next thread, with what is still held by them.
#[test]
fn handles_are_handed_on() {
    let cache = cache(Barrier::Membarrier, 1 << 20);
    let local = cache.local();
    let first = local.get_or_register(page(0), PAGE, Access::LOCAL_WRITE).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let local = local;
            local.get_or_register(page(1), PAGE, Access::LOCAL_WRITE).unwrap()
        });
        cache.flush().unwrap();
        assert_eq!(**first.region(), page(0));
        drop(first);
        let second = thread.join().unwrap();
        assert_eq!(**second.region(), page(1));
    });
}

/// The owner of a cell uses it again when another thread has let go of it.
#[test]
fn a_cell_is_used_again_after_another_thread() {
    let cache = cache(Barrier::Membarrier, 1 << 20);
    drop(get(&cache, 0));
    for _ in 0..3 {
        let guard = get(&cache, 0);
        thread::scope(|scope| {
            scope.spawn(move || assert_eq!(**guard.region(), page(0)));
            scope.spawn(|| cache.flush().unwrap());
            for _ in 0..2 {
                assert_eq!(**get(&cache, 0).region(), page(0));
            }
        });
    }
}
