//! What a monitor may offer beyond the minimum, several lookups at once, the reaper, progress.

mod common;

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{Recorder, cache, page, pages};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use regcache::monitor::{Cookie, Invalid, Manual, Monitor, MonitorError};
use regcache::{Access, AddressRange, Cache, Error, Reaper, page_size};

const RW: Access = Access::LOCAL_WRITE;

/// A monitor with all there is: a word for each slot, verification, something to wait for.
struct Full {
    generation: AtomicU64,
    words: Vec<AtomicU64>,
    watches: Mutex<Watches>,
    verifications: AtomicUsize,
    drains: AtomicUsize,
    news: EventFd,
}

#[derive(Default)]
struct Watches {
    ranges: Vec<(Cookie, AddressRange)>,
    events: Vec<Cookie>,
    /// Changed for good since they were pinned.
    changed: HashSet<Cookie>,
    /// An event comes in the middle of this many verifications.
    interfere: usize,
}

impl Full {
    fn new() -> Full {
        Full {
            generation: AtomicU64::new(0),
            words: (0..8).map(|_| AtomicU64::new(0)).collect(),
            watches: Mutex::default(),
            verifications: AtomicUsize::new(0),
            drains: AtomicUsize::new(0),
            news: EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap(),
        }
    }

    /// An event of `range`; the pages change or do not.
    fn hit(&self, range: AddressRange, changes: bool) {
        let mut watches = self.watches.lock().unwrap();
        let hit = watches.ranges.iter().filter(|(_, r)| r.overlaps(range));
        for cookie in hit.map(|(cookie, _)| *cookie).collect::<Vec<_>>() {
            self.raise(&mut watches, cookie);
            if changes {
                watches.changed.insert(cookie);
            }
        }
    }

    fn raise(&self, watches: &mut Watches, cookie: Cookie) {
        watches.events.push(cookie);
        if let Some(word) = self.words.get(cookie.slot() as usize) {
            word.fetch_add(1, Ordering::Release);
        }
        self.generation.fetch_add(1, Ordering::Release);
        self.news.write(1).unwrap();
    }

    fn verifications(&self) -> usize {
        self.verifications.load(Ordering::SeqCst)
    }
}

impl Monitor for Full {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        self.watches.lock().unwrap().ranges.push((cookie, range));
        Ok(())
    }
    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.watches.lock().unwrap().ranges.retain(|(c, _)| *c != cookie);
        Ok(())
    }
    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        self.drains.fetch_add(1, Ordering::SeqCst);
        let _ = self.news.read();
        let mut watches = self.watches.lock().unwrap();
        let events = std::mem::take(&mut watches.events);
        events.into_iter().for_each(|cookie| invalid(Invalid::Watch(cookie)));
        Ok(self.generation())
    }
    fn slot_generation(&self, slot: u32) -> Option<u64> {
        Some(self.words.get(slot as usize)?.load(Ordering::Acquire))
    }
    fn verify(&self, cookie: Cookie) -> bool {
        self.verifications.fetch_add(1, Ordering::SeqCst);
        let mut watches = self.watches.lock().unwrap();
        if watches.interfere > 0 {
            watches.interfere -= 1;
            self.raise(&mut watches, cookie);
        }
        !watches.changed.contains(&cookie)
    }
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.news.as_fd())
    }
}

fn full() -> Cache<Recorder, Full> {
    Cache::builder(Recorder::default(), Full::new()).build().unwrap()
}

#[test]
fn an_event_elsewhere_costs_no_drain_where_slots_have_words() {
    let cache = full();
    let key = cache.get_or_register(page(0), 8, RW).unwrap().lkey();
    drop(cache.get_or_register(page(5), 8, RW).unwrap());
    let drains = cache.monitor().drains.load(Ordering::SeqCst);
    cache.monitor().hit(pages(5, 1), true);
    assert_eq!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), key);
    assert_eq!(cache.monitor().drains.load(Ordering::SeqCst), drains);
    assert_eq!(cache.get_or_register(page(5), 8, RW).unwrap().lkey(), 3, "its own event does");
}

/// Slots beyond the monitor's words go by the common generation.
#[test]
fn slots_without_a_word_are_as_fresh() {
    let cache = full();
    let keys: Vec<_> =
        (0..20).map(|n| cache.get_or_register(page(n), 8, RW).unwrap().lkey()).collect();
    for (n, key) in keys.into_iter().enumerate() {
        cache.monitor().hit(pages(n, 1), true);
        assert_ne!(cache.get_or_register(page(n), 8, RW).unwrap().lkey(), key);
    }
    assert_eq!(cache.registrar().live(), 20);
}

#[test]
fn a_false_alarm_costs_no_registration() {
    let cache = full();
    for n in [0, 15] {
        let key = cache.get_or_register(page(n), 8, RW).unwrap().lkey();
        for _ in 0..5 {
            cache.monitor().hit(pages(n, 1), false);
            assert_eq!(cache.get_or_register(page(n), 8, RW).unwrap().lkey(), key);
            // The next is found at once, and without a lock.
            let (verifications, locked) =
                (cache.monitor().verifications(), cache.stats().locked_hits);
            assert_eq!(cache.get_or_register(page(n), 8, RW).unwrap().lkey(), key);
            assert_eq!(cache.monitor().verifications(), verifications);
            assert_eq!(cache.stats().locked_hits, locked);
        }
        cache.monitor().hit(pages(n, 1), true);
        assert_ne!(cache.get_or_register(page(n), 8, RW).unwrap().lkey(), key);
    }
    assert_eq!(cache.stats().verified, 10);
    assert_eq!(cache.stats().stale, 2);
}

#[test]
fn an_event_during_the_verification_is_not_missed() {
    let cache = full();
    let key = cache.get_or_register(page(0), 8, RW).unwrap().lkey();
    cache.monitor().watches.lock().unwrap().interfere = 1;
    cache.monitor().hit(pages(0, 1), false);
    assert_eq!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), key);
    assert_eq!(cache.monitor().verifications(), 2, "it was asked again");

    cache.monitor().watches.lock().unwrap().interfere = usize::MAX;
    cache.monitor().hit(pages(0, 1), false);
    cache.drain().unwrap();
    assert_eq!(cache.monitor().verifications(), 5, "and not for ever");
    assert_eq!(cache.registrar().live(), 0);
}

#[test]
fn verification_can_be_done_without() {
    let builder = Cache::builder(Recorder::default(), Full::new()).verify(false);
    let cache = builder.build().unwrap();
    let key = cache.get_or_register(page(0), 8, RW).unwrap().lkey();
    cache.monitor().hit(pages(0, 1), false);
    assert_ne!(cache.get_or_register(page(0), 8, RW).unwrap().lkey(), key);
    assert_eq!(cache.monitor().verifications(), 0);
}

#[test]
fn a_held_registration_is_verified_too() {
    let cache = full();
    let held = cache.get_or_register(page(0), 8, RW).unwrap();
    cache.monitor().hit(pages(0, 1), false);
    let again = cache.get_or_register(page(0), 8, RW).unwrap();
    assert_eq!(held.lkey(), again.lkey());
    cache.monitor().hit(pages(0, 1), true);
    cache.drain().unwrap();
    assert_eq!(cache.registrar().live(), 1);
    drop((held, again));
    assert_eq!(cache.registrar().live(), 0);
}

#[test]
fn the_reaper_gives_memory_back_with_no_lookup() {
    let cache = Arc::new(full());
    let reaper = Reaper::start(&cache).unwrap();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    cache.monitor().hit(pages(0, 1), true);
    let start = Instant::now();
    while cache.registrar().live() > 0 {
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(1));
    }
    drop(reaper);
    let recorder = cache.registrar().clone();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    drop(cache);
    assert_eq!(recorder.live(), 0, "the reaper has let go of the cache");
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_reaper_alone() {
    let cache = Arc::new(full());
    let reaper = Reaper::start(&cache).unwrap();
    // SAFETY: the child only drops the reaper, and leaves by _exit.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // SAFETY: it only makes a child that hangs end, by a signal.
            unsafe { libc::alarm(20) };
            let ended = catch_unwind(AssertUnwindSafe(|| drop(reaper)));
            // SAFETY: _exit(2) runs no code of this process any more.
            unsafe { libc::_exit(if ended.is_ok() { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    cache.monitor().hit(pages(0, 1), true);
    let start = Instant::now();
    while cache.registrar().live() > 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "the parent's reaper has ended");
        thread::sleep(Duration::from_millis(1));
    }
    drop(reaper);
}

/// Where no thread can be had, the caller registers by itself. Run alone, by the test below.
#[test]
#[ignore = "takes this process's threads away"]
fn many_lookups_with_no_thread() {
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).unwrap();
    let spawned = thread::Builder::new().spawn(|| ());
    assert_eq!(spawned.unwrap_err().raw_os_error(), Some(Errno::EAGAIN as i32));
    let cache = cache();
    let ranges: Vec<_> = (0..8).map(|n| (page(2048 * n), 4 << 20)).collect();
    assert_eq!(cache.get_or_register_many(&ranges, RW).unwrap().len(), ranges.len());
    let cache = Arc::new(full());
    let error = Reaper::start(&cache).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EAGAIN as i32), "{error}");
}

#[test]
fn threads_that_cannot_be_had_are_done_without() {
    // Nobody, since the limit does not count for root, and a copy, since the directory of this
    // program may be closed to others.
    let copy = std::env::temp_dir().join(format!("regcache-features-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = Command::new(&copy);
    command.args(["--exact", "many_lookups_with_no_thread", "--ignored", "--test-threads=1"]);
    if nix::unistd::geteuid().is_root() {
        command.current_dir("/").uid(65534).gid(65534);
    }
    let output = command.output();
    std::fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_reaper_needs_something_to_wait_for() {
    let error = Reaper::start(&Arc::new(cache())).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EOPNOTSUPP as i32));
}

#[test]
fn many_lookups_at_once_keep_their_order_and_pin_in_parallel() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let recorder = {
        let (running, most) = (running.clone(), most.clone());
        Recorder::with(move |_| {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        })
    };
    let builder = Cache::builder(recorder, Manual::new()).max_bytes(1 << 40).max_parallel(4);
    let cache = builder.build().unwrap();
    let len = 2 << 20;
    let at = |n: usize| page(1024 * n);
    drop(cache.get_or_register(at(3), len, RW).unwrap());
    let ranges: Vec<_> = (0..12).map(|n| (at(n), len)).chain([(at(3), 8)]).collect();
    let guards = cache.get_or_register_many(&ranges, RW).unwrap();
    for (guard, (addr, len)) in guards.iter().zip(&ranges) {
        assert!(guard.range().covers(AddressRange::new(*addr, *len).unwrap()));
    }
    assert_eq!(cache.registrar().calls(), 12);
    let most = most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} at a time");
    assert!(cache.get_or_register_many(&[], RW).unwrap().is_empty());
}

#[test]
fn many_lookups_of_which_one_fails_leave_nothing_held() {
    let recorder = Recorder::with(|range| match range.start() == page(2) {
        true => Err(Errno::EFAULT),
        false => Ok(()),
    });
    let cache = Cache::builder(recorder, Manual::new()).build().unwrap();
    let ranges: Vec<_> = (0..4).map(|n| (page(n), 8)).collect();
    let error = cache.get_or_register_many(&ranges, RW).unwrap_err();
    assert!(matches!(error, Error::NotAccessible { .. }), "{error}");
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live(), 0);
}

#[test]
fn large_registrations_show_how_far_they_are() {
    let bytes = 200 << 20;
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let length = bytes.try_into().unwrap();
    // SAFETY: a new mapping.
    let memory = unsafe { mmap_anonymous(None, length, prot, MapFlags::MAP_PRIVATE) }.unwrap();
    let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
    let sink = seen.clone();
    let builder = Cache::builder(Recorder::default(), Manual::new()).max_bytes(1 << 40);
    let cache = builder
        .on_progress(move |progress| sink.lock().unwrap().push(progress.ready))
        .build()
        .unwrap();
    drop(cache.get_or_register(memory.as_ptr() as usize, bytes, RW).unwrap());
    assert_eq!(*seen.lock().unwrap(), [0, 64 << 20, 128 << 20, 192 << 20, 200 << 20]);
    drop(cache.get_or_register(page(0), page_size(), RW).unwrap());
    assert_eq!(seen.lock().unwrap().len(), 5, "small ones say nothing");
}

#[test]
fn a_cache_of_too_many_is_refused() {
    let builder = Cache::builder(Recorder::default(), Manual::new()).max_regions(usize::MAX);
    let error = builder.build().unwrap_err().to_string();
    assert!(error.contains("16777216 is the most"), "{error}");
}
