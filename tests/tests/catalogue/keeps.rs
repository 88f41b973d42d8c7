//! Rows that leave the registered pages where they are: the registration is kept, because the module
//! does not count the change, or because it finds that the pages are the same.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use regcache::Access;
use regcache::monitor::Ummunotify;
use regcache_guest_tests::frames::is_stale;
use regcache_guest_tests::memory::{Memory, in_child};
use regcache_guest_tests::raw;
use regcache_guest_tests::rows::{PinCache, assert_kept, assert_right, told};

const ANONYMOUS: fn() -> Memory = || Memory::anonymous(4);

#[test]
fn fork_and_write_of_pinned_memory() {
    let change = |m: &Memory| {
        in_child(|| ());
        m.fill(2);
    };
    assert_kept(ANONYMOUS, change);
    assert_kept(Memory::transparent_huge, change);
}

#[test]
fn fork_and_write_while_the_child_lives() {
    let mut ends = [0_i32; 2];
    raw!(SYS_pipe2, ends.as_mut_ptr(), 0);
    let children = std::cell::RefCell::new(Vec::new());
    assert_kept(ANONYMOUS, |m| {
        // SAFETY: the child makes three system calls and leaves by _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: as above.
            unsafe {
                libc::close(ends[1]);
                libc::read(ends[0], [0_u8; 1].as_mut_ptr().cast(), 1);
                libc::_exit(0)
            }
        }
        children.borrow_mut().push(pid);
        m.fill(2);
    });
    raw!(SYS_close, ends[1]);
    for pid in children.into_inner() {
        raw!(SYS_wait4, pid, 0, 0, 0);
    }
}

/// The fork splits it, which is nothing to memory that the cache has noted.
#[test]
fn fork_of_a_transparent_huge_page_is_no_event() {
    let cache = told();
    let memory = Memory::transparent_huge();
    let first = look_up(&cache, &memory);
    in_child(|| ());
    memory.fill(2);
    assert_eq!(look_up(&cache, &memory), first, "the second lookup hits");
    assert_eq!(cache.stats().verified, 0, "nothing was there to be verified");
}

#[test]
fn fork_of_huge_pages() {
    assert_kept(
        || Memory::hugetlb(1),
        |m| {
            in_child(|| ());
            m.fill(2);
        },
    );
}

/// The key of a registration that is cached, and not stale.
fn look_up(cache: &PinCache<Ummunotify>, memory: &Memory) -> u32 {
    let (start, len) = (memory.range.start(), memory.range.len());
    let guard = cache.get_or_register(start, len, Access::LOCAL_WRITE).expect("register");
    assert!(guard.is_cached());
    assert!(!is_stale(&guard, memory.range));
    guard.lkey()
}

/// The pin itself changes the mapping. What it ends in must be good, and cached.
fn assert_pinnable(memory: &Memory) {
    let cache = told();
    let (first, second) = (look_up(&cache, memory), look_up(&cache, memory));
    assert_eq!(first, second, "the second lookup hits");
    println!("pinned again: {}", cache.stats().repinned);
}

#[test]
fn pin_of_untouched_memory() {
    assert_pinnable(&Memory::untouched(4));
}

#[test]
fn pin_of_the_zero_page() {
    let memory = Memory::untouched(4);
    // Reading maps the zero page everywhere.
    for page in 0..4 {
        // SAFETY: the page is mapped readable.
        unsafe { std::ptr::read_volatile(memory.pages(page, 1).start() as *const u8) };
    }
    assert_pinnable(&memory);
}

#[test]
fn pin_of_copy_on_write_memory() {
    let memory = Memory::anonymous(4);
    let mut ends = [0_i32; 2];
    raw!(SYS_pipe2, ends.as_mut_ptr(), 0);
    // SAFETY: the child makes three system calls and leaves by _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            libc::close(ends[1]);
            libc::read(ends[0], [0_u8; 1].as_mut_ptr().cast(), 1);
            libc::_exit(0)
        }
    }
    assert_pinnable(&memory);
    raw!(SYS_close, ends[1]);
    raw!(SYS_wait4, pid, 0, 0, 0);
}

#[test]
fn mprotect_round_trip() {
    for memory in [ANONYMOUS, Memory::transparent_huge] {
        assert_kept(memory, |m| {
            let (start, len) = (m.range.start(), m.range.len());
            raw!(SYS_mprotect, start, len, libc::PROT_READ);
            raw!(SYS_mprotect, start, len, libc::PROT_READ | libc::PROT_WRITE);
            m.fill(2);
        });
    }
}

#[test]
fn madvise_free() {
    assert_kept(ANONYMOUS, |m| {
        m.advise(libc::MADV_FREE);
        m.fill(2);
    });
}

#[test]
fn madvise_pageout() {
    assert_kept(ANONYMOUS, |m| {
        m.advise(libc::MADV_PAGEOUT);
        m.fill(2);
    });
}

#[test]
fn madvise_collapse() {
    const MADV_COLLAPSE: i32 = 25;
    assert_kept(
        || {
            let memory = Memory::transparent_huge();
            memory.advise(libc::MADV_NOHUGEPAGE);
            memory
        },
        |m| {
            m.advise(libc::MADV_HUGEPAGE);
            // Pinned pages do not collapse (EAGAIN, EINVAL); the attempt counts.
            // SAFETY: the memory is the test's own, and no reference points into it.
            unsafe {
                libc::syscall(libc::SYS_madvise, m.range.start(), m.range.len(), MADV_COLLAPSE)
            };
            m.fill(2);
        },
    );
}

#[test]
fn madvise_dontneed_of_shared_memory() {
    // The frames stay in the file.
    assert_kept(
        || Memory::shared(4),
        |m| {
            m.advise(libc::MADV_DONTNEED);
            m.fill(2);
        },
    );
}

#[test]
fn munmap_of_a_neighbour_page_inside_the_range() {
    for (gone, kept) in [(0, 1), (3, 0), (1, 2)] {
        assert_right(
            ANONYMOUS,
            |m| m.pages(kept, 1),
            |m| {
                let gone = m.pages(gone, 1);
                raw!(SYS_munmap, gone.start(), gone.len());
            },
        );
    }
}

#[test]
fn clear_refs() {
    assert_kept(ANONYMOUS, |m| {
        for what in ["1", "4"] {
            fs::write("/proc/self/clear_refs", what).expect("clear_refs");
        }
        m.fill(2);
    });
}

#[test]
fn ksm() {
    assert_kept(ANONYMOUS, |m| {
        let twin = Memory::anonymous(4);
        for memory in [m, &twin] {
            memory.advise(libc::MADV_MERGEABLE);
        }
        fs::write("/sys/kernel/mm/ksm/sleep_millisecs", "1").expect("ksm");
        fs::write("/sys/kernel/mm/ksm/run", "1").expect("ksm");
        let scans = || -> u64 {
            fs::read_to_string("/sys/kernel/mm/ksm/full_scans").unwrap().trim().parse().unwrap()
        };
        let until = scans() + 3;
        while scans() < until {
            thread::sleep(Duration::from_millis(20));
        }
        fs::write("/sys/kernel/mm/ksm/run", "2").expect("ksm");
        m.fill(2);
    });
}

fn has_two_nodes() -> bool {
    let two = fs::exists("/sys/devices/system/node/node1").unwrap_or(false);
    if !two {
        println!("this machine has one memory node: nothing can move between nodes");
    }
    two
}

#[test]
fn migrate_pages() {
    if !has_two_nodes() {
        return;
    }
    assert_kept(ANONYMOUS, |m| {
        for (from, to) in [(1_u64, 2_u64), (2, 1)] {
            raw!(SYS_migrate_pages, 0, 64, &raw const from, &raw const to);
        }
        m.fill(2);
    });
}

#[test]
fn numa_balancing() {
    const SWITCH: &str = "/proc/sys/kernel/numa_balancing";
    // Real-time kernels do not balance.
    if !has_two_nodes() || !Path::new(SWITCH).exists() {
        return;
    }
    let knob = |name: &str, value: &str| {
        // The periods moved from sysctl to debugfs with 5.13.
        let path = format!("/sys/kernel/debug/sched/numa_balancing/{name}");
        let _ = fs::write(path, value);
    };
    fs::write(SWITCH, "1").expect("numa_balancing");
    knob("scan_delay_ms", "10");
    knob("scan_period_min_ms", "10");
    assert_kept(ANONYMOUS, |m| {
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            m.fill(2);
        }
    });
    fs::write(SWITCH, "0").expect("numa_balancing");
}

#[test]
fn compaction_drop_caches_mlock_and_system() {
    assert_kept(ANONYMOUS, |m| {
        let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        fs::write("/proc/sys/vm/drop_caches", "3").expect("drop_caches");
        raw!(SYS_mlock, m.range.start(), m.range.len());
        raw!(SYS_munlock, m.range.start(), m.range.len());
        let status = std::process::Command::new("/bin/true").status().expect("spawn");
        assert!(status.success());
        m.fill(2);
    });
}

/// Another process's way of writing: the bytes change, and the pages stay.
#[test]
fn process_vm_writev() {
    assert_kept(ANONYMOUS, |m| {
        let from = vec![9_u8; m.range.len()];
        let local = [from.as_ptr() as usize, from.len()];
        let remote = [m.range.start(), m.range.len()];
        let pid = std::process::id();
        let written = raw!(SYS_process_vm_writev, pid, local.as_ptr(), 1, remote.as_ptr(), 1, 0);
        assert_eq!(written, from.len());
    });
}
