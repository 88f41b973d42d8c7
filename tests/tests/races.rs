//! Changes in one thread against lookups in another.
#![cfg(feature = "guest")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use regcache::Access;
use regcache_guest_tests::frames::is_stale;
use regcache_guest_tests::memory::Memory;
use regcache_guest_tests::rows::told;

/// One thread pulls the memory away and maps new memory at the same address, 200 times and more;
/// the others look it up. A lookup that lies between two changes must be of the frames that the
/// program sees; whether it does is told by a number that is odd while a change goes on.
#[test]
fn remapping_against_lookups() {
    const CHANGES: u64 = 400;
    let cache = told();
    let memory = Memory::anonymous(4);
    let (start, len) = (memory.range.start(), memory.range.len());
    let changes = AtomicU64::new(0);
    let judged = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    // Unmapped memory must not be touched by the oracle, so it works under this lock; the lookups
    // do not.
    let mapped = parking_lot::RwLock::new(());

    thread::scope(|scope| {
        // However this ends, the others end too.
        let _stop = StopOnDrop(&stop);
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let before = changes.load(Ordering::SeqCst);
                    // Not mapped at this moment: an error, and nothing to judge.
                    let Ok(guard) = cache.get_or_register(start, len, Access::LOCAL_WRITE) else {
                        continue;
                    };
                    let _still = mapped.read();
                    if before % 2 == 0 && changes.load(Ordering::SeqCst) == before {
                        assert!(!is_stale(&guard, memory.range), "stale after change {before}");
                        judged.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for _ in 0..CHANGES {
            {
                let _gone = mapped.write();
                changes.fetch_add(1, Ordering::SeqCst);
                memory.unmap();
                memory.map_again();
                changes.fetch_add(1, Ordering::SeqCst);
            }
            // Let some lookups be judged in between, hits among them.
            let until = judged.load(Ordering::Relaxed) + 3;
            let start = Instant::now();
            while judged.load(Ordering::Relaxed) < until {
                assert!(start.elapsed() < Duration::from_secs(60), "no lookup was judged good");
                thread::yield_now();
            }
        }
    });
    let stats = cache.stats();
    println!("{} lookups judged; {stats}", judged.load(Ordering::Relaxed));
    assert!(stats.hits > CHANGES, "hits are what could be stale");
    assert!(stats.stale >= CHANGES / 2);
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
