//! A callback that panics, each in its turn: the panic reaches the caller, and nothing is lost.

mod common;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use common::{page, pages};
use nix::errno::Errno;
use regcache::monitor::{Cookie, Invalid, Monitor, MonitorError};
use regcache::registrar::{Keys, Registrar};
use regcache::{Access, AddressRange, Cache};

const RW: Access = Access::LOCAL_WRITE;

/// The callbacks, and when each panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Register,
    /// While the first registration is held: an event came during it.
    SecondRegister,
    Keys,
    Deregister,
    Watch,
    Unwatch,
    Drain,
    Pinned,
    Verify,
}

const CALLS: [Call; 9] = [
    Call::Register,
    Call::SecondRegister,
    Call::Keys,
    Call::Deregister,
    Call::Watch,
    Call::Unwatch,
    Call::Drain,
    Call::Pinned,
    Call::Verify,
];

#[derive(Default)]
struct World {
    /// The next call that panics, once.
    panics: Mutex<Option<Call>>,
    registered: Mutex<BTreeSet<u32>>,
    next: AtomicU64,
    calls: AtomicUsize,
    watched: Mutex<Vec<(Cookie, AddressRange)>>,
    events: Mutex<Vec<Cookie>>,
    generation: AtomicU64,
}

impl World {
    fn at(&self, call: Call) {
        let panics = self.panics.lock().unwrap().take_if(|next| *next == call).is_some();
        assert!(!panics, "the test's own");
    }

    fn change(&self, range: AddressRange) {
        for (cookie, watched) in &*self.watched.lock().unwrap() {
            if watched.overlaps(range) {
                self.generation.fetch_add(1, Ordering::SeqCst);
                self.events.lock().unwrap().push(*cookie);
            }
        }
    }
}

impl Registrar for &World {
    type Region = u32;

    unsafe fn register(&self, range: AddressRange, _access: Access) -> Result<u32, Errno> {
        self.at(Call::Register);
        if self.calls.fetch_add(1, Ordering::SeqCst) % 2 == 1 {
            self.at(Call::SecondRegister);
        } else if *self.panics.lock().unwrap() == Some(Call::SecondRegister) {
            self.change(range);
        }
        let region = self.next.fetch_add(1, Ordering::SeqCst) as u32;
        self.registered.lock().unwrap().insert(region);
        Ok(region)
    }

    fn deregister(&self, region: &u32) -> Result<(), Errno> {
        self.at(Call::Deregister);
        assert!(self.registered.lock().unwrap().remove(region), "twice");
        Ok(())
    }

    fn keys(&self, region: &u32) -> Keys {
        self.at(Call::Keys);
        Keys { local: *region, remote: *region }
    }
}

impl Monitor for &World {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        self.at(Call::Watch);
        self.watched.lock().unwrap().push((cookie, range));
        Ok(())
    }

    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.watched.lock().unwrap().retain(|(other, _)| *other != cookie);
        self.at(Call::Unwatch);
        Ok(())
    }

    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        let generation = self.generation();
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        self.at(Call::Drain);
        events.into_iter().for_each(|cookie| invalid(Invalid::Watch(cookie)));
        Ok(generation)
    }

    fn pinned(&self, _cookie: Cookie) {
        self.at(Call::Pinned);
    }

    fn verify(&self, _cookie: Cookie) -> bool {
        self.at(Call::Verify);
        false
    }
}

fn panics(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_err()
}

#[test]
fn nothing_is_lost() {
    for call in CALLS {
        let world = World::default();
        let cache = Cache::builder(&world, &world).max_regions(8).build().unwrap();
        let mut seen = 0;
        for round in 0..100 {
            let n = round % 12;
            world.calls.store(0, Ordering::SeqCst);
            *world.panics.lock().unwrap() = Some(call);
            // A miss that evicts, then an event, and the miss that follows.
            seen += usize::from(panics(|| drop(cache.get_or_register(page(n), 8, RW))));
            world.change(pages(n, 1));
            seen += usize::from(panics(|| drop(cache.get_or_register(page(n), 8, RW))));
            *world.panics.lock().unwrap() = None;
            world.calls.store(0, Ordering::SeqCst);
            let guard = cache.get_or_register(page(n), 8, RW).unwrap();
            assert!(world.registered.lock().unwrap().contains(guard.region()), "{call:?}");
            assert_eq!(guard.is_cached(), call != Call::Drain, "{call:?}");
        }
        assert!(seen >= 1, "{call:?} never panicked");
        assert!(seen >= 50 || call == Call::Drain, "{call:?} panicked {seen} times");
        let stats = cache.stats();
        drop(cache);
        let left = world.registered.lock().unwrap().len();
        assert_eq!(left, 0, "{call:?}: registrations are left; {stats:?}");
        assert_eq!(world.watched.lock().unwrap().len(), 0, "{call:?}: watches are left");
    }
}
