//! A global allocator that calls the cache: it announces what it frees, and looks memory up when it
//! allocates. And registrars that look up each other's memory. Nothing waits for itself, and nothing
//! that was announced is found again.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use common::{Recorder, TestCache, page};
use nix::errno::Errno;
use regcache::monitor::Manual;
use regcache::registrar::{Keys, Registrar};
use regcache::{Access, AddressRange, Cache, Error, page_size};

const RW: Access = Access::LOCAL_WRITE;

/// A registrar that allocates nothing.
#[derive(Default)]
struct Counting {
    calls: AtomicU32,
    live: AtomicUsize,
}

impl Registrar for Counting {
    type Region = u32;

    unsafe fn register(&self, _range: AddressRange, _access: Access) -> Result<u32, Errno> {
        self.live.fetch_add(1, Ordering::SeqCst);
        Ok(self.calls.fetch_add(1, Ordering::SeqCst))
    }

    fn deregister(&self, _region: &u32) -> Result<(), Errno> {
        self.live.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn keys(&self, region: &u32) -> Keys {
        Keys { local: *region, remote: *region }
    }
}

struct Calling;

#[global_allocator]
static ALLOCATOR: Calling = Calling;

/// The cache that the allocator calls.
static CACHE: OnceLock<Cache<Counting, Manual>> = OnceLock::new();
static CALLS: AtomicBool = AtomicBool::new(false);
static REFUSED: AtomicUsize = AtomicUsize::new(0);
static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// A lookup allocates, and that is not to go on for ever.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static NESTED: Cell<bool> = const { Cell::new(false) };
}

impl Calling {
    fn call(&self, call: impl FnOnce(&Cache<Counting, Manual>)) {
        // Acquire pairs with the Release in the test, which has made the cache.
        let Some(cache) = CACHE.get().filter(|_| CALLS.load(Ordering::Acquire)) else { return };
        let depth = DEPTH.with(|depth| depth.replace(depth.get() + 1));
        if depth < 3 {
            call(cache);
        }
        DEPTH.with(|depth| depth.set(depth.get() - 1));
    }
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Calling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.call(|cache| {
            let n = 100 + layout.size() % 7;
            match cache.get_or_register(page(n), 8, RW) {
                Ok(_) => LOOKED_UP.fetch_add(1, Ordering::Relaxed),
                Err(Error::Reentered) => REFUSED.fetch_add(1, Ordering::Relaxed),
                Err(_) => 0,
            };
        });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        self.call(|cache| {
            let freed = AddressRange::new(memory as usize, layout.size());
            freed.into_iter().for_each(|freed| cache.monitor().invalidate(freed));
        });
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Whether `work` ends within a time that only a hang exceeds.
fn ends(work: impl FnOnce() + Send + 'static) -> bool {
    // What hangs may hang the whole program: that ends by SIGALRM.
    nix::unistd::alarm::set(120);
    let thread = thread::spawn(work);
    for _ in 0..600 {
        if thread.is_finished() {
            thread.join().unwrap();
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn an_allocator_may_call() {
    let cache = Cache::builder(Counting::default(), Manual::new()).max_regions(64).build().unwrap();
    let cache = CACHE.get_or_init(|| cache);
    CALLS.store(true, Ordering::Release);
    let work = move || {
        for round in 0..60 {
            for n in 0..80 {
                let guard = cache.get_or_register(page(n), 8, RW).unwrap();
                let ranges = [(page(n + 1), 8), (page(n + 2), 8)];
                drop(cache.get_or_register_many(&ranges, RW).unwrap());
                drop(guard);
            }
            match round % 3 {
                0 => cache.drain().unwrap(),
                1 => cache.flush().unwrap(),
                _ => _ = cache.revoke(AddressRange::new(page(3), 8).unwrap()).unwrap(),
            }
            // What is freed is not found again.
            let buffer = vec![1_u8; 4 * page_size()];
            let (addr, len) = (buffer.as_ptr() as usize, buffer.len());
            drop(cache.get_or_register(addr, len, RW).unwrap());
            drop(buffer);
            let before = cache.registrar().calls.load(Ordering::SeqCst);
            let key = cache.get_or_register(addr, len, RW).unwrap().lkey();
            assert!(key >= before, "a stale hit in round {round}");
        }
    };
    let ended = ends(work) && {
        let threads: Vec<_> = (0..2).map(|_| thread::spawn(move || ends(work))).collect();
        threads.into_iter().all(|thread| thread.join().unwrap())
    };
    CALLS.store(false, Ordering::Release);
    assert!(ended, "it hangs");
    assert!(REFUSED.load(Ordering::Relaxed) > 0, "never inside the cache");
    assert!(LOOKED_UP.load(Ordering::Relaxed) > 0, "never outside it");
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live.load(Ordering::SeqCst), 0);
}

/// Each registers a range whose registrar looks up the other's range.
#[test]
fn registrars_may_look_up_each_others_memory() {
    for many in [false, true] {
        let slot: Arc<OnceLock<TestCache>> = Arc::new(OnceLock::new());
        let (ours, meeting) = (slot.clone(), Arc::new(AtomicUsize::new(0)));
        let recorder = Recorder::with(move |range| {
            let n = (range.start() - page(0)) / page_size();
            // Once on each of the two threads.
            if n < 2 && !NESTED.with(|nested| nested.replace(true)) {
                // Both are under way.
                meeting.fetch_add(1, Ordering::SeqCst);
                while meeting.load(Ordering::SeqCst) < 2 {
                    thread::yield_now();
                }
                let cache = ours.get().unwrap();
                if many {
                    let ranges = [(page(1 - n), 8), (page(1024 * (n + 2)), 8 << 20)];
                    drop(cache.get_or_register_many(&ranges, RW).unwrap());
                } else {
                    drop(cache.get_or_register(page(1 - n), 8, RW).unwrap());
                }
            }
            Ok(())
        });
        let cache = Cache::builder(recorder, Manual::new()).max_bytes(1 << 40).build().unwrap();
        assert!(slot.set(cache).is_ok());
        let done = ends({
            let slot = slot.clone();
            move || {
                let cache = slot.get().unwrap();
                thread::scope(|scope| {
                    for n in 0..2 {
                        scope.spawn(move || drop(cache.get_or_register(page(n), 8, RW).unwrap()));
                    }
                });
            }
        });
        assert!(done, "they wait for each other");
        let stats = slot.get().unwrap().stats();
        assert!(stats.uncached_reentered >= 1, "{stats:?}");
    }
}
