//! Every change that the monitor promises to see, and the few that it says it does not.

use nix::libc;

use super::memory::{ANONYMOUS, Memory, lonely_range, raw, try_raw};
use super::{cache, is_right, skip, untold};
use regcache::page_size;

/// Not in the libc crate for glibc.
const MADV_DONTNEED_LOCKED: i32 = 24;
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

/// Whether the pages that were pinned are others afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pin {
    Lost,
    Kept,
}

/// Changes memory in one way and maps it again, twice: a cache that nobody tells gives what `pin`
/// says, and the one with the monitor always the right bytes.
fn row(pin: Pin, change: impl Fn(&Memory)) {
    let (Some(cache), Some(untold)) = (cache(), untold()) else { return };
    let old = Memory::new(4);
    assert!(is_right(&untold, &old));
    change(&old);
    old.fill();
    assert_eq!(is_right(&untold, &old), pin == Pin::Kept, "what the row is about");

    let memory = Memory::new(4);
    for _ in 0..3 {
        assert!(is_right(&cache, &memory));
        assert!(is_right(&cache, &memory));
        change(&memory);
        memory.fill();
        assert!(is_right(&cache, &memory));
    }
    let stats = cache.stats();
    assert!(stats.stale >= 1 && stats.hits >= 1, "{stats}");
}

#[test]
fn munmap_and_mmap() {
    row(Pin::Lost, |memory| {
        memory.unmap();
        memory.map_again();
    });
}

#[test]
fn munmap_of_more() {
    row(Pin::Lost, |memory| {
        let (start, len) = (memory.range.start(), memory.range.len());
        raw(libc::SYS_munmap, &[start - 16 * page_size(), len + 32 * page_size()]);
        memory.map_again();
    });
}

#[test]
fn munmap_of_one_page() {
    row(Pin::Lost, |memory| {
        let page = memory.pages(2, 1);
        page.unmap();
        page.map_again();
    });
}

#[test]
fn mmap_over() {
    row(Pin::Lost, |memory| memory.map_at(ANONYMOUS | libc::MAP_FIXED));
}

#[test]
fn shrink() {
    row(Pin::Lost, |memory| {
        memory.remap(2 * page_size(), 0, 0).unwrap();
        memory.pages(2, 2).map_again();
    });
}

#[test]
fn move_away() {
    row(Pin::Lost, |memory| {
        let (len, to) = (memory.range.len(), lonely_range(memory.range.len()));
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        assert_eq!(memory.remap(len, flags, to.start()).unwrap(), to.start());
        memory.map_again();
    });
}

#[test]
fn move_away_and_keep_the_mapping() {
    row(Pin::Lost, |memory| {
        let (len, to) = (memory.range.len(), lonely_range(memory.range.len()));
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        assert_eq!(memory.remap(len, flags, to.start()).unwrap(), to.start());
    });
}

#[test]
fn grow_elsewhere() {
    row(Pin::Lost, |memory| {
        let to = lonely_range(2 * memory.range.len());
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        assert_eq!(memory.remap(to.len(), flags, to.start()).unwrap(), to.start());
        memory.map_again();
    });
}

#[test]
fn another_is_moved_onto_it() {
    row(Pin::Lost, |memory| {
        let other = Memory::new(4);
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        other.remap(memory.range.len(), flags, memory.range.start()).unwrap();
    });
}

#[test]
fn dontneed() {
    row(Pin::Lost, |memory| memory.advise(libc::MADV_DONTNEED));
}

#[test]
fn dontneed_of_locked_memory() {
    let probe = Memory::new(1);
    if let Err(error) = probe.try_advise(MADV_DONTNEED_LOCKED) {
        return skip(&error);
    }
    row(Pin::Lost, |memory| {
        raw(libc::SYS_mlock, &[memory.range.start(), memory.range.len()]);
        memory.advise(MADV_DONTNEED_LOCKED);
    });
}

#[test]
fn free() {
    // The pages are taken when memory is short, and pinned ones are not.
    row(Pin::Kept, |memory| memory.advise(libc::MADV_FREE));
}

#[test]
fn huge_pages() {
    let huge = page_size() * page_size() / size_of::<u64>();
    row(Pin::Lost, |memory| {
        // A part of a huge page, which may have been one while it was pinned.
        let block = Memory::map(huge, ANONYMOUS, None);
        let _ = block.try_advise(libc::MADV_HUGEPAGE);
        block.fill();
        memory.map_at(ANONYMOUS | libc::MAP_FIXED);
    });
    let Some(cache) = cache() else { return };
    let block = Memory::map(huge, ANONYMOUS, None);
    assert_eq!(block.range.start() % huge, 0);
    let _ = block.try_advise(libc::MADV_HUGEPAGE);
    block.fill();
    let part = block.pages(3, 5);
    assert!(is_right(&cache, &part));
    block.pages(4, 1).advise(libc::MADV_DONTNEED);
    part.fill();
    assert!(is_right(&cache, &part));
    assert!(is_right(&cache, &block));
    block.unmap();
    block.map_again();
    block.fill();
    assert!(is_right(&cache, &block));
    assert!(is_right(&cache, &part));
}

#[test]
fn locked_memory_is_watched_as_other() {
    let Some(cache) = cache() else { return };
    let memory = Memory::new(4);
    raw(libc::SYS_mlock, &[memory.range.start(), memory.range.len()]);
    assert!(is_right(&cache, &memory));
    memory.map_at(ANONYMOUS | libc::MAP_FIXED);
    memory.fill();
    assert!(is_right(&cache, &memory));
    assert_eq!(cache.stats().uncached(), 0);
}

/// Fork leaves the parent its pinned pages, so no event is missed.
#[test]
fn fork_and_write() {
    let (Some(cache), memory) = (cache(), Memory::new(4)) else { return };
    assert!(is_right(&cache, &memory));
    // SAFETY: the child makes system calls only, and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::pause();
            libc::_exit(0)
        }
    }
    memory.fill();
    let right = is_right(&cache, &memory);
    raw(libc::SYS_kill, &[child as usize, libc::SIGKILL as usize]);
    raw(libc::SYS_wait4, &[child as usize, 0, 0, 0]);
    assert!(right);
    assert_eq!(cache.stats().hits, 1);
}

/// What the documentation says is not seen: should a kernel come to tell of it, say so there.
fn unseen(change: impl Fn(&Memory)) {
    let Some(cache) = cache() else { return };
    let memory = Memory::new(4);
    assert!(is_right(&cache, &memory));
    change(&memory);
    memory.fill();
    assert!(!is_right(&cache, &memory), "this kernel tells of it");
}

#[test]
fn shmat_over_it_is_not_seen() {
    unseen(|memory| {
        let mode = (libc::IPC_CREAT | 0o600) as usize;
        let private = libc::IPC_PRIVATE as usize;
        let id = raw(libc::SYS_shmget, &[private, memory.range.len(), mode]);
        raw(libc::SYS_shmat, &[id, memory.range.start(), libc::SHM_REMAP as usize]);
        raw(libc::SYS_shmctl, &[id, libc::IPC_RMID as usize, 0]);
    });
}

#[test]
fn guard_pages_are_not_seen() {
    let probe = Memory::new(1);
    if let Err(error) = probe.try_advise(MADV_GUARD_INSTALL) {
        return skip(&format!("MADV_GUARD_INSTALL: {error}"));
    }
    unseen(|memory| {
        let (start, len) = (memory.range.start(), memory.range.len());
        for advice in [MADV_GUARD_INSTALL, MADV_GUARD_REMOVE] {
            try_raw(libc::SYS_madvise, &[start, len, advice as usize]).unwrap();
        }
    });
}

/// Two rails: each keeps its own registration of a buffer, and both are told when it changes.
#[test]
fn two_caches_of_one_buffer() {
    let (Some(first), Some(second)) = (cache(), cache()) else { return };
    let memory = Memory::new(4);
    for round in 1..4 {
        for _ in 0..50 {
            assert!(is_right(&first, &memory));
            assert!(is_right(&second, &memory));
        }
        for stats in [first.stats(), second.stats()] {
            assert_eq!((stats.registrations, stats.uncached()), (round, 0), "{stats}");
        }
        memory.map_at(ANONYMOUS | libc::MAP_FIXED);
        memory.fill();
    }
    drop(first);
    assert!(is_right(&second, &memory));
    memory.map_at(ANONYMOUS | libc::MAP_FIXED);
    memory.fill();
    assert!(is_right(&second, &memory), "the end of one cache ended the watches of another");
}
