//! A registrar that pins nothing and remembers everything, to see what the cache asks for.
#![allow(dead_code)] // each test program uses a part

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use regcache::monitor::Manual;
use regcache::registrar::{Keys, Registrar};
use regcache::{Access, AddressRange, Cache, page_size};

/// What a test makes the registrar do in the middle of `register`.
pub type Script = dyn Fn(AddressRange) -> Result<(), Errno> + Send + Sync;

/// A handle: clones share one record.
#[derive(Clone)]
pub struct Recorder(Arc<Record>);

pub struct Record {
    next: AtomicU64,
    live: Mutex<HashMap<u64, AddressRange>>,
    most: AtomicU64,
    calls: AtomicU64,
    bytes: AtomicUsize,
    busy: AtomicBool,
    /// Bytes that can be registered at a time.
    capacity: AtomicUsize,
    /// What more than that fails with.
    refusal: AtomicI32,
    script: Box<Script>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::with(|_| Ok(()))
    }
}

impl Recorder {
    pub fn with(
        script: impl Fn(AddressRange) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Recorder {
        Recorder(Arc::new(Record {
            next: AtomicU64::new(1),
            live: Mutex::default(),
            most: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            capacity: AtomicUsize::new(usize::MAX),
            refusal: AtomicI32::new(Errno::ENOMEM as i32),
            script: Box::new(script),
        }))
    }

    /// Makes more than `bytes` at a time fail with ENOMEM.
    pub fn set_capacity(&self, bytes: usize) {
        self.0.capacity.store(bytes, Ordering::SeqCst);
    }

    /// Makes it fail with `errno` instead.
    pub fn set_refusal(&self, errno: Errno) {
        self.0.refusal.store(errno as i32, Ordering::SeqCst);
    }

    /// Bytes of registrations that were made and not undone.
    pub fn live_bytes(&self) -> usize {
        self.0.live.lock().unwrap().values().map(|range| range.len()).sum()
    }

    /// Registrations that were made and not undone.
    pub fn live(&self) -> usize {
        self.0.live.lock().unwrap().len()
    }

    /// The most that were live at any one time.
    pub fn most_live(&self) -> u64 {
        self.0.most.load(Ordering::SeqCst)
    }

    /// Calls of `register`.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub fn live_ranges(&self) -> Vec<AddressRange> {
        let mut ranges: Vec<_> = self.0.live.lock().unwrap().values().copied().collect();
        ranges.sort_by_key(|r| r.start());
        ranges
    }

    /// Bytes of all registrations ever made.
    pub fn registered_bytes(&self) -> usize {
        self.0.bytes.load(Ordering::SeqCst)
    }

    pub fn is_live(&self, region: u64) -> bool {
        self.0.live.lock().unwrap().contains_key(&region)
    }

    /// While set, `deregister` fails with EBUSY.
    pub fn set_busy(&self, busy: bool) {
        self.0.busy.store(busy, Ordering::SeqCst);
    }
}

impl Registrar for Recorder {
    type Region = u64;

    unsafe fn register(&self, range: AddressRange, _access: Access) -> Result<u64, Errno> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        (self.0.script)(range)?;
        let id = self.0.next.fetch_add(1, Ordering::SeqCst);
        let mut live = self.0.live.lock().unwrap();
        let bytes: usize = live.values().map(|r| r.len()).sum();
        if bytes + range.len() > self.0.capacity.load(Ordering::SeqCst) {
            return Err(Errno::from_raw(self.0.refusal.load(Ordering::SeqCst)));
        }
        live.insert(id, range);
        self.0.bytes.fetch_add(range.len(), Ordering::SeqCst);
        self.0.most.fetch_max(live.len() as u64, Ordering::SeqCst);
        Ok(id)
    }

    fn deregister(&self, region: &u64) -> Result<(), Errno> {
        if self.0.busy.load(Ordering::SeqCst) {
            return Err(Errno::EBUSY);
        }
        let gone = self.0.live.lock().unwrap().remove(region);
        assert!(gone.is_some(), "region {region} was deregistered twice");
        Ok(())
    }

    fn keys(&self, region: &u64) -> Keys {
        Keys { local: *region as u32, remote: *region as u32 }
    }
}

pub type TestCache = Cache<Recorder, Manual>;

pub fn cache() -> TestCache {
    Cache::builder(Recorder::default(), Manual::new()).max_bytes(1 << 30).build().unwrap()
}

/// Address of page `n` of a made-up heap.
pub fn page(n: usize) -> usize {
    (1 << 32) + n * page_size()
}

/// `count` pages from page `n`.
pub fn pages(n: usize, count: usize) -> AddressRange {
    AddressRange::new(page(n), count * page_size()).unwrap()
}
