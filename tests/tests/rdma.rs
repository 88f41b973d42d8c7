//! Rows of the catalogue with bytes that crossed the RDMA device.
#![cfg(feature = "guest")]

use std::os::fd::AsRawFd;

use regcache::monitor::{Manual, Ummunotify};
use regcache_guest_tests::memory::{Memory, in_child};
use regcache_guest_tests::raw;
use regcache_guest_tests::rdma::Wire;

/// Sends once, changes one of the two buffers, sends again: with a cache that nobody tells, and
/// with ours. Returns whether the second message arrived, for each.
fn second_message(memory: fn() -> Memory, change: fn(&Memory), of_sender: bool) -> [bool; 2] {
    let wire = Wire::new();
    let unaided = wire.cache(Manual::new());
    let told = wire.cache(Ummunotify::open().unwrap());
    let run = |delivers: &dyn Fn(&Memory, &Memory) -> bool| {
        let (from, to) = (memory(), memory());
        assert!(delivers(&from, &to), "a good start");
        change(if of_sender { &from } else { &to });
        delivers(&from, &to)
    };
    [
        run(&|from, to| wire.delivers(&unaided, from.range, to.range)),
        run(&|from, to| wire.delivers(&told, from.range, to.range)),
    ]
}

fn assert_cured(memory: fn() -> Memory, change: fn(&Memory)) {
    for of_sender in [true, false] {
        assert_eq!(second_message(memory, change, of_sender), [false, true]);
    }
}

#[test]
fn raw_munmap_and_mmap() {
    assert_cured(
        || Memory::anonymous(4),
        |m| {
            m.unmap();
            m.map_again();
        },
    );
}

#[test]
fn madvise_dontneed_locked() {
    const MADV_DONTNEED_LOCKED: i32 = 24;
    assert_cured(|| Memory::anonymous(4), |m| m.advise(MADV_DONTNEED_LOCKED));
}

#[test]
fn punch_hole() {
    assert_cured(
        || Memory::shared(4),
        |m| {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            raw!(SYS_fallocate, m.file().as_raw_fd(), mode, 0, m.range.len());
        },
    );
}

#[test]
fn truncate_by_another_process() {
    assert_cured(
        || Memory::shared(4),
        |m| {
            in_child(|| {
                raw!(SYS_ftruncate, m.file().as_raw_fd(), 0);
                raw!(SYS_ftruncate, m.file().as_raw_fd(), m.range.len());
            });
        },
    );
}

#[test]
fn fork_and_write_keeps_both_right() {
    for of_sender in [true, false] {
        let change = |m: &Memory| {
            in_child(|| ());
            m.fill(3);
        };
        assert_eq!(second_message(|| Memory::anonymous(4), change, of_sender), [true, true]);
    }
}

#[test]
fn read_only_memory_can_be_sent() {
    // Linux 6.1 pins memory for writing even where it is only to be read (FOLL_FORCE), so private
    // memory works and a read-only mapping of a file may not: the rights are the cache's to keep.
    let wire = Wire::new();
    let cache = wire.cache(Ummunotify::open().unwrap());
    let memory = Memory::anonymous(1);
    raw!(SYS_mprotect, memory.range.start(), memory.range.len(), libc::PROT_READ);
    let get = |access| cache.get_or_register(memory.range.start(), 8, access);
    let read = get(regcache::Access::empty()).expect("sending needs no right to write");
    let error = get(regcache::Access::LOCAL_WRITE).unwrap_err();
    assert!(matches!(error, regcache::Error::NotAccessible { .. }), "{error}");
    assert_eq!(get(regcache::Access::empty()).unwrap().lkey(), read.lkey());
}
