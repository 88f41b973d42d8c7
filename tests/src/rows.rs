//! How a row of the catalogue is judged.
//!
//! Each row is played twice: against a cache that nobody tells of changes, and against one that
//! listens to the kernel. The first shows what the row does to a registration, so that a row which
//! does nothing cannot pass for one that was caught.

use regcache::monitor::{Manual, Monitor, Ummunotify};
use regcache::registrar::{IoUring, Registrar};
use regcache::{Access, AddressRange, Cache};

use crate::frames::{Framed, is_stale};
use crate::memory::Memory;

/// A cache of real pins.
pub type PinCache<M> = Cache<Framed<IoUring>, M>;

/// Real pins, and nobody who tells.
pub fn unaided() -> PinCache<Manual> {
    cache_of(IoUring::new(64).expect("io_uring"), Manual::new())
}

/// Real pins, and the kernel tells.
pub fn told() -> PinCache<Ummunotify> {
    cache_of(IoUring::new(64).expect("io_uring"), Ummunotify::open().expect("/dev/ummunotify"))
}

/// A cache of `registrar`'s registrations, whose frames are noted.
pub fn cache_of<R: Registrar, M: Monitor>(registrar: R, monitor: M) -> Cache<Framed<R>, M> {
    Cache::builder(Framed(registrar), monitor).max_bytes(1 << 30).build().expect("cache")
}

/// What became of a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    stale: bool,
    hit: bool,
}

/// Registers `memory`, does `change`, and looks `after` up again.
fn play<R: Registrar, M: Monitor>(
    cache: &Cache<Framed<R>, M>,
    memory: &Memory,
    after: AddressRange,
    change: impl FnOnce(&Memory),
) -> Verdict {
    let get = |range: AddressRange| {
        cache.get_or_register(range.start(), range.len(), Access::LOCAL_WRITE).expect("register")
    };
    let before = get(memory.range);
    assert!(before.is_cached() && !is_stale(&before, memory.range), "a good start");
    drop(before);
    let hits = cache.stats().hits;
    change(memory);
    let guard = get(after);
    Verdict { stale: is_stale(&guard, after), hit: cache.stats().hits > hits }
}

/// `change` makes a registration stale: an unaided cache returns it, ours never.
pub fn assert_caught(memory: impl Fn() -> Memory, change: impl Fn(&Memory)) {
    assert_caught_with(unaided(), told(), memory, change);
}

/// As [`assert_caught`], for given caches.
pub fn assert_caught_with<R: Registrar>(
    unaided: Cache<Framed<R>, Manual>,
    told: Cache<Framed<R>, Ummunotify>,
    memory: impl Fn() -> Memory,
    change: impl Fn(&Memory),
) {
    let first = memory();
    let verdict = play(&unaided, &first, first.range, &change);
    assert_eq!(verdict, Verdict { stale: true, hit: true }, "an unaided cache must fall for this");
    let second = memory();
    let verdict = play(&told, &second, second.range, &change);
    assert_eq!(verdict, Verdict { stale: false, hit: false });
    assert_eq!(told.stats().stale, 1);
}

/// `change` leaves the pages at `after` where they are: whatever the cache returns is right. Says
/// so where it registered anew for nothing.
pub fn assert_right(
    memory: impl Fn() -> Memory,
    after: impl Fn(&Memory) -> AddressRange,
    change: impl Fn(&Memory),
) {
    let hit = plays_right(memory, after, change);
    println!("spurious miss: {}", if hit { "no" } else { "yes" });
}

/// As [`assert_right`], and the registration is kept: the kernel filters this, or finds the pages
/// unchanged.
pub fn assert_kept(memory: impl Fn() -> Memory, change: impl Fn(&Memory)) {
    assert!(plays_right(memory, |m| m.range, change), "a spurious miss");
}

/// Whether the cache hits after `change`, and is right.
fn plays_right(
    memory: impl Fn() -> Memory,
    after: impl Fn(&Memory) -> AddressRange,
    change: impl Fn(&Memory),
) -> bool {
    let first = memory();
    let verdict = play(&unaided(), &first, after(&first), &change);
    assert!(!verdict.stale, "this row must not make a registration stale");
    let second = memory();
    let verdict = play(&told(), &second, after(&second), &change);
    assert!(!verdict.stale);
    verdict.hit
}
