//! Several caches in one process, a rail each: they share what the process may pin.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use common::page;
use nix::errno::Errno;
use regcache::monitor::Manual;
use regcache::registrar::{Keys, Registrar};
use regcache::{Access, AddressRange, Cache, Error, page_size};

const RW: Access = Access::LOCAL_WRITE;

/// Pins by one account for all.
#[derive(Clone)]
struct Rail {
    pinned: Arc<AtomicUsize>,
    limit: usize,
}

impl Registrar for Rail {
    type Region = usize;

    unsafe fn register(&self, range: AddressRange, _access: Access) -> Result<usize, Errno> {
        if self.pinned.fetch_add(range.len(), Ordering::SeqCst) + range.len() > self.limit {
            self.pinned.fetch_sub(range.len(), Ordering::SeqCst);
            return Err(Errno::ENOMEM);
        }
        Ok(range.len())
    }

    fn deregister(&self, len: &usize) -> Result<(), Errno> {
        self.pinned.fetch_sub(*len, Ordering::SeqCst);
        Ok(())
    }

    fn keys(&self, _len: &usize) -> Keys {
        Keys { local: 0, remote: 0 }
    }
}

fn rail(pages: usize) -> Rail {
    Rail { pinned: Arc::default(), limit: pages * page_size() }
}

fn cache(rail: &Rail) -> Cache<Rail, Manual> {
    Cache::builder(rail.clone(), Manual::new()).max_bytes(1 << 40).build().unwrap()
}

/// The caches of one test are siblings of the other's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn what_is_idle_in_one_makes_room_in_another() {
    let _one = ONE_AT_A_TIME.lock();
    let rail = rail(16);
    let (first, second) = (cache(&rail), cache(&rail));
    (0..16).for_each(|n| drop(first.get_or_register(page(2 * n), 8, RW).unwrap()));
    let wide = second.get_or_register(page(100), 8 * page_size(), RW).unwrap();
    assert!(wide.is_cached());
    assert!((8..12).contains(&first.stats().evicted), "{}", first.stats());
    // In use everywhere: the error says where.
    let held: Vec<_> = (0..8).map(|n| first.get_or_register(page(2 * n), 8, RW).unwrap()).collect();
    let error = second.get_or_register(page(200), 8, RW).unwrap_err();
    let bytes = 8 * page_size() as u64;
    assert!(
        matches!(
            error,
            Error::CannotPin { pinned_bytes, pinned_by_others, .. }
                if pinned_bytes == bytes && pinned_by_others == bytes
        ),
        "{error}"
    );
    drop(held);
    assert!(second.get_or_register(page(200), 8, RW).unwrap().is_cached());
    // A cache that is gone holds nothing.
    drop(first);
    assert!(second.get_or_register(page(300), 7 * page_size(), RW).unwrap().is_cached());
}

#[test]
fn caches_that_come_and_go_evict_in_each_other() {
    let _one = ONE_AT_A_TIME.lock();
    let rail = rail(8);
    thread::scope(|scope| {
        for thread in 0..4 {
            let rail = &rail;
            scope.spawn(move || {
                for round in 0..50 {
                    let cache = cache(rail);
                    for n in 0..20 {
                        let at = page(1000 * thread + 50 * round + 2 * n);
                        // What another evicts may be taken by a third.
                        match cache.get_or_register(at, 8, RW) {
                            Ok(_) | Err(Error::CannotPin { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(rail.pinned.load(Ordering::SeqCst), 0);
}
