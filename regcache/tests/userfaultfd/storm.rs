//! Many threads at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use regcache::Access;

use super::memory::{ANONYMOUS, Memory, lonely_range};
use super::{cache, is_right};

const TIME: Duration = Duration::from_secs(4);

/// Four threads change memory of their own in every way, and look it up at once after each change.
#[test]
fn what_a_thread_has_changed_it_never_finds_stale() {
    let Some(cache) = cache() else { return };
    let start = Instant::now();
    thread::scope(|scope| {
        for seed in 0..4_usize {
            let cache = &cache;
            scope.spawn(move || {
                let memory = Memory::new(1 + 3 * seed);
                let mut random = seed as u64 + 1;
                while start.elapsed() < TIME {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    match (random >> 33) % 6 {
                        0 => {
                            memory.unmap();
                            memory.map_again();
                        }
                        1 => memory.map_at(ANONYMOUS | libc::MAP_FIXED),
                        2 => memory.advise(libc::MADV_DONTNEED),
                        3 => {
                            let (len, to) = (memory.range.len(), lonely_range(memory.range.len()));
                            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                            // It fails where the memory is of several mappings.
                            if memory.remap(len, flags, to.start()).is_ok() {
                                Memory { range: to, file: None }.unmap();
                                memory.map_again();
                            }
                        }
                        4 => {
                            let page = memory.pages((random % (1 + 3 * seed as u64)) as usize, 1);
                            page.unmap();
                            page.map_again();
                        }
                        _ => {}
                    }
                    memory.fill();
                    assert!(is_right(cache, &memory), "{:?}", cache.stats());
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.hits > 0 && stats.stale > 0, "{stats}");
}

/// Threads look up memory all the time, while another changes it: whatever they cached during a
/// change, that one finds the right bytes after it.
fn under_lookups(change: impl Fn(&Memory)) {
    let Some(cache) = cache() else { return };
    let memory = Memory::new(64);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let range = memory.range;
                    // It fails while nothing is mapped.
                    let _ = cache.get_or_register(range.start(), range.len(), Access::empty());
                }
            });
        }
        let _end = End(&stop);
        let start = Instant::now();
        let (mut rounds, mut wrong) = (0, 0);
        while start.elapsed() < TIME {
            rounds += 1;
            let before = Instant::now();
            change(&memory);
            // On a machine so busy, the documentation promises less.
            let is_late = before.elapsed() > Duration::from_millis(500);
            memory.fill();
            wrong += u32::from(!is_right(&cache, &memory) && !is_late);
        }
        assert_eq!(wrong, 0, "of {rounds}; {}", cache.stats());
    });
}

/// Stops the others, also when a test fails.
struct End<'s>(&'s AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn munmap_while_others_look_up() {
    under_lookups(|memory| {
        memory.unmap();
        memory.map_again();
    });
}

#[test]
fn mmap_over_while_others_look_up() {
    under_lookups(|memory| memory.map_at(ANONYMOUS | libc::MAP_FIXED));
}

#[test]
fn dontneed_while_others_look_up() {
    under_lookups(|memory| {
        // Long enough for the range to be cached again.
        thread::sleep(Duration::from_millis(1));
        memory.advise(libc::MADV_DONTNEED);
    });
}
