//! What a registrar refuses: registrations that are too many, deregistrations while a memory window
//! is bound; and what pins memory on its way out.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use common::{Recorder, cache, page, pages};
use nix::errno::Errno;
use regcache::monitor::Manual;
use regcache::registrar::{Keys, Registrar};
use regcache::{Access, AddressRange, Cache, Error, page_size};

const RW: Access = Access::LOCAL_WRITE;

/// Devices say in many ways that they have no room for another registration.
#[test]
fn whatever_says_too_many_evicts() {
    use Errno::{EAGAIN, EBUSY, EMFILE, ENFILE, ENOMEM, ENOSPC};
    for errno in [ENOMEM, EAGAIN, ENOSPC, EBUSY, EMFILE, ENFILE] {
        let cache = cache();
        cache.registrar().set_capacity(8 * page_size());
        cache.registrar().set_refusal(errno);
        for n in 0..16 {
            let guard = cache.get_or_register(page(2 * n), 8, RW);
            assert!(guard.unwrap().is_cached(), "{errno}, buffer {n}");
        }
        assert_eq!(cache.stats().evicted, 8, "{errno}");
        // With everything in use there is nothing to evict.
        let held: Vec<_> = (0..8).map(|n| cache.get_or_register(page(2 * n), 8, RW)).collect();
        let error = cache.get_or_register(page(40), 8, RW).unwrap_err();
        assert!(matches!(error, Error::CannotPin { .. } | Error::Register { .. }), "{error}");
        drop(held);
    }
    let cache = cache();
    cache.registrar().set_capacity(page_size());
    cache.registrar().set_refusal(Errno::EFAULT);
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    let error = cache.get_or_register(page(2), 8, RW).unwrap_err();
    assert!(matches!(error, Error::NotAccessible { .. }), "{error}");
    assert_eq!(cache.stats().evicted, 0, "an eviction would not help");
}

/// Refused deregistrations count as what they are, pinned memory, and lookups try them again.
#[test]
fn what_is_not_deregistered_counts_and_is_tried_again_by_lookups() {
    let limit = 16 * page_size();
    let recorder = Recorder::default();
    let builder = Cache::builder(recorder.clone(), Manual::new()).max_bytes(limit as u64);
    let cache = builder.build().unwrap();
    let get = |n: usize| cache.get_or_register(page(2 * n), page_size(), RW).map(drop);
    (0..16).for_each(|n| get(n).unwrap());
    recorder.set_busy(true);
    let mut refused = 0;
    for n in 16..200 {
        if let Err(error) = get(n) {
            assert!(matches!(error, Error::NotDeregistered { .. }), "{error}");
            assert!(error.to_string().contains("EBUSY"), "{error}");
            refused += 1;
        }
        let pinned = recorder.live_bytes();
        assert!(pinned <= limit + page_size(), "{pinned} bytes are pinned after {n} buffers");
    }
    assert!(refused > 0, "there was no room");
    // Nobody calls drain().
    recorder.set_busy(false);
    get(300).unwrap();
    assert!(cache.get_or_register(page(600), 8, RW).unwrap().is_cached());
    assert!(recorder.live_bytes() <= limit);
}

/// The same where the device is full, and not the cache.
#[test]
fn a_full_device_gets_back_what_it_refused_to_give() {
    let cache = cache();
    let recorder = cache.registrar();
    recorder.set_capacity(4 * page_size());
    (0..4).for_each(|n| drop(cache.get_or_register(page(2 * n), 8, RW).unwrap()));
    recorder.set_busy(true);
    cache.flush().unwrap();
    assert!(matches!(cache.get_or_register(page(20), 8, RW), Err(Error::CannotPin { .. })));
    recorder.set_busy(false);
    assert!(cache.get_or_register(page(20), 8, RW).unwrap().is_cached());
}

/// A device that is gone refuses for ever.
#[test]
fn a_device_that_is_gone_ends_in_errors_and_a_drop_that_ends() {
    let recorder = Recorder::default();
    let cache = Cache::builder(recorder.clone(), Manual::new()).max_regions(8).build().unwrap();
    (0..8).for_each(|n| drop(cache.get_or_register(page(2 * n), 8, RW).unwrap()));
    recorder.set_busy(true);
    let error = (8..100).find_map(|n| cache.get_or_register(page(2 * n), 8, RW).err());
    assert!(matches!(error, Some(Error::NotDeregistered { .. })), "{error:?}");
    drop(cache);
    assert_eq!(recorder.live(), 8, "they are the device's");
}

/// A registrar that waits, or panics, when it is to deregister.
#[derive(Default)]
struct Odd {
    live: AtomicU64,
    panics: AtomicBool,
    reached: Option<mpsc::SyncSender<()>>,
    go_on: Option<std::sync::Mutex<mpsc::Receiver<()>>>,
}

/// A handle: clones share it.
#[derive(Clone, Default)]
struct Handle(Arc<Odd>);

impl Registrar for Handle {
    type Region = u64;

    unsafe fn register(&self, _range: AddressRange, _access: Access) -> Result<u64, Errno> {
        Ok(self.0.live.fetch_add(1, Ordering::SeqCst))
    }

    fn deregister(&self, _region: &u64) -> Result<(), Errno> {
        if let (Some(reached), Some(go_on)) = (&self.0.reached, &self.0.go_on) {
            reached.send(()).unwrap();
            go_on.lock().unwrap().recv().unwrap();
        }
        assert!(!self.0.panics.swap(false, Ordering::SeqCst), "the test's own");
        self.0.live.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn keys(&self, region: &u64) -> Keys {
        Keys { local: *region as u32, remote: *region as u32 }
    }
}

/// One panic of a callback loses one registration at most, and that is tried again.
#[test]
fn a_panic_in_deregister_loses_nothing() {
    for at_once in [true, false] {
        let odd = Handle::default();
        let cache = Cache::builder(odd.clone(), Manual::new()).build().unwrap();
        (0..10).for_each(|n| drop(cache.get_or_register(page(2 * n), 8, RW).unwrap()));
        odd.0.panics.store(true, Ordering::SeqCst);
        if at_once {
            assert!(catch_unwind(AssertUnwindSafe(|| cache.flush())).is_err());
            assert_eq!(odd.0.live.load(Ordering::SeqCst), 1, "the others are deregistered");
            drop(cache);
            assert_eq!(odd.0.live.load(Ordering::SeqCst), 0, "and that one too, later");
        } else {
            assert!(catch_unwind(AssertUnwindSafe(|| drop(cache))).is_err());
            assert!(odd.0.live.load(Ordering::SeqCst) <= 1);
        }
    }
}

/// While another thread deregisters, the key is alive: `revoke` says so.
#[test]
fn revoke_counts_what_is_being_deregistered() {
    for cached in [true, false] {
        let (reached, is_reached) = mpsc::sync_channel(0);
        let (go_on, goes_on) = mpsc::channel();
        let odd = Odd { reached: Some(reached), go_on: Some(goes_on.into()), ..Odd::default() };
        let odd = Handle(Arc::new(odd));
        let builder = Cache::builder(odd.clone(), Manual::new());
        let builder = if cached { builder } else { builder.max_bytes(1) };
        let cache = builder.build().unwrap();
        let guard = cache.get_or_register(page(0), 8, RW).unwrap();
        assert_eq!(guard.is_cached(), cached);
        assert_eq!(cache.revoke(pages(0, 1)).unwrap(), 1, "it is in use");
        thread::scope(|scope| {
            scope.spawn(|| drop(guard));
            is_reached.recv().unwrap();
            let alive = [0, 1].map(|at| cache.revoke(pages(at, 1)));
            go_on.send(()).unwrap();
            assert_eq!(alive.map(Result::unwrap), [1, 0], "cached: {cached}");
        });
        assert_eq!(cache.revoke(pages(0, 1)).unwrap(), 0);
        assert_eq!(odd.0.live.load(Ordering::SeqCst), 0);
    }
}

/// As above, for one that was refused and is tried again.
#[test]
fn revoke_counts_what_was_refused() {
    let cache = cache();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    cache.registrar().set_busy(true);
    cache.flush().unwrap();
    assert_eq!(cache.revoke(pages(0, 1)).unwrap(), 1);
    cache.registrar().set_busy(false);
    assert_eq!(cache.revoke(pages(0, 1)).unwrap(), 0);
}
