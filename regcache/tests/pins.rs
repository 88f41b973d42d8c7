//! The whole cache on real pins, on any Linux: an io_uring pins, the test tells of changes, and the
//! bytes that the device moves say whether a registration is stale.
#![cfg(feature = "io-uring")]

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use regcache::monitor::Manual;
use regcache::registrar::IoUring;
use regcache::{Access, AddressRange, Cache, Error, page_size};

/// Memory that the test pulls away and maps again.
struct Memory {
    addr: NonNull<libc::c_void>,
    bytes: NonZeroUsize,
}

impl Memory {
    fn new(pages: usize) -> Memory {
        let bytes = NonZeroUsize::new(pages * page_size()).unwrap();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let addr = unsafe {
            let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            mmap_anonymous(None, bytes, prot, MapFlags::MAP_PRIVATE)
        };
        Memory { addr: addr.unwrap(), bytes }
    }

    fn range(&self) -> AddressRange {
        AddressRange::new(self.addr.as_ptr() as usize, self.bytes.get()).unwrap()
    }

    /// Replaces it by new memory at the same address.
    fn remap(&self) {
        let at = NonZeroUsize::new(self.addr.as_ptr() as usize);
        // SAFETY: what is replaced is the test's own, and no reference points into it.
        let again = unsafe {
            let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            mmap_anonymous(at, self.bytes, prot, MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED)
        };
        assert_eq!(again.unwrap(), self.addr);
    }

    fn fill(&self, byte: u8) {
        // SAFETY: the memory is mapped writable, and no reference points into it.
        unsafe { self.addr.as_ptr().cast::<u8>().write_bytes(byte, self.bytes.get()) };
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the memory any more.
        let _ = unsafe { munmap(self.addr, self.bytes.get()) };
    }
}

/// VmPin is of the whole process, so one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

type PinCache = Cache<IoUring, Manual>;

fn cache() -> PinCache {
    Cache::builder(IoUring::new(16).unwrap(), Manual::new()).max_bytes(1 << 24).build().unwrap()
}

/// What the device reads of `memory`, by the registration that the cache gives: its first byte.
fn device_reads(cache: &PinCache, memory: &Memory) -> u8 {
    let range = memory.range();
    let guard = cache.get_or_register(range.start(), range.len(), Access::empty()).unwrap();
    let file = fs::File::from(memfd_create("device", MFdFlags::MFD_CLOEXEC).unwrap());
    let written =
        cache.registrar().write_fixed(guard.region(), range.start(), range.len(), &file, 0);
    assert_eq!(written, Ok(range.len()));
    let mut first = [0];
    file.read_exact_at(&mut first, 0).unwrap();
    first[0]
}

fn pinned_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn untold_the_device_reads_old_bytes_and_told_it_reads_the_new() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = cache();
    let memory = Memory::new(4);
    memory.fill(1);
    assert_eq!(device_reads(&cache, &memory), 1);

    memory.remap();
    memory.fill(2);
    assert_eq!(device_reads(&cache, &memory), 1, "nobody told: this is what stale means");

    cache.monitor().invalidate(memory.range());
    memory.remap();
    memory.fill(3);
    assert_eq!(device_reads(&cache, &memory), 3);
    assert_eq!(device_reads(&cache, &memory), 3);
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.stale), (2, 2, 1), "{stats}");
}

#[test]
fn a_change_of_one_page_is_enough() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = cache();
    let memory = Memory::new(4);
    memory.fill(1);
    assert_eq!(device_reads(&cache, &memory), 1);
    cache.monitor().invalidate(AddressRange::new(memory.range().end() - 1, 1).unwrap());
    memory.remap();
    memory.fill(2);
    assert_eq!(device_reads(&cache, &memory), 2);
}

#[test]
fn nothing_stays_pinned() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = pinned_kib();
    let returns = || {
        let start = Instant::now();
        // The kernel unpins a while after it was told to.
        while pinned_kib() > before {
            assert!(start.elapsed() < Duration::from_secs(30), "{} KiB pinned", pinned_kib());
            thread::sleep(Duration::from_millis(20));
        }
    };

    let cache = cache();
    let memory = Memory::new(8);
    let range = memory.range();
    memory.fill(1);
    for page in 0..8 {
        drop(cache.get_or_register(range.start() + page * page_size(), 1, Access::empty()));
    }
    assert!(pinned_kib() >= before + 8 * page_size() as u64 / 1024);
    cache.monitor().invalidate(range);
    cache.drain().unwrap();
    returns();

    drop(cache.get_or_register(range.start(), range.len(), Access::empty()).unwrap());
    let held = cache.get_or_register(range.start(), range.len(), Access::empty()).unwrap();
    cache.flush().unwrap();
    drop(held);
    returns();

    // SAFETY: the memory is the test's own, and no reference points into it.
    unsafe { mprotect(memory.addr, page_size(), ProtFlags::PROT_NONE) }.unwrap();
    let error = cache.get_or_register(range.start(), range.len(), Access::empty()).unwrap_err();
    assert!(matches!(error, Error::NotAccessible { .. }), "{error}");
    assert_eq!(cache.stats().regions, 0);
    drop(cache);
    returns();
}
