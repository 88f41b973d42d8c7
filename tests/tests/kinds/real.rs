//! What takes pinned pages away.

use std::os::fd::AsRawFd;

use regcache_guest_tests::memory::{Memory, in_child};
use regcache_guest_tests::raw;
use regcache_guest_tests::truth::Row;
use ummunotify::Kinds;

use super::machine::throwaway;
use super::{
    ANONYMOUS, HUGETLB, MADV_DONTNEED_LOCKED, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE, SHARED,
    SHARED_HUGETLB, TRANSPARENT_HUGE,
};

const UNMAP: Kinds = Kinds::UNMAP;
const CLEAR: Kinds = Kinds::CLEAR;

fn dontneed(m: &Memory) {
    m.advise(libc::MADV_DONTNEED);
}

fn truncate(m: &Memory) {
    raw!(SYS_ftruncate, m.file().as_raw_fd(), 0);
    raw!(SYS_ftruncate, m.file().as_raw_fd(), m.range.len());
}

fn punch_hole(m: &Memory) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    raw!(SYS_fallocate, m.file().as_raw_fd(), mode, 0, m.range.len());
}

rows! {
    munmap: Row::of(ANONYMOUS)
        .change(Memory::unmap).then(Memory::map_again).real(UNMAP);
    munmap_of_one_page: Row::of(ANONYMOUS)
        .change(|m| {
            raw!(SYS_munmap, m.pages(2, 1).start(), m.pages(2, 1).len());
        })
        .then(Memory::map_over).real(UNMAP);
    munmap_of_shared: Row::of(SHARED)
        .change(Memory::unmap).then(Memory::map_again).real(UNMAP);
    munmap_of_hugetlb: Row::of(HUGETLB)
        .change(Memory::unmap).then(Memory::map_again).real(UNMAP);
    munmap_of_thp: Row::of(TRANSPARENT_HUGE)
        .change(Memory::unmap).then(Memory::map_again).real(UNMAP);
    map_fixed_over: Row::of(ANONYMOUS).change(Memory::map_over).real(UNMAP);
    mremap_move: Row::of(ANONYMOUS)
        .change(|m| {
            let away = Memory::untouched(4).range.start();
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            raw!(SYS_mremap, m.range.start(), m.range.len(), m.range.len(), flags, away);
        })
        .then(Memory::map_again).real(UNMAP);
    mremap_dontunmap: Row::of(ANONYMOUS)
        .change(|m| {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
            raw!(SYS_mremap, m.range.start(), m.range.len(), m.range.len(), flags, 0);
        })
        .real(UNMAP);
    mremap_onto: Row::of(ANONYMOUS)
        .change(|m| {
            let other = Memory::anonymous(4).range;
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let onto = m.range.start();
            raw!(SYS_mremap, other.start(), other.len(), other.len(), flags, onto);
        })
        .real(UNMAP);
    mremap_shrink: Row::of(ANONYMOUS)
        .change(|m| {
            raw!(SYS_mremap, m.range.start(), m.range.len(), m.range.len() / 2, 0);
        })
        .then(Memory::map_over).real(UNMAP);

    madv_dontneed: Row::of(ANONYMOUS).change(dontneed).real(CLEAR);
    madv_dontneed_locked: Row::of(ANONYMOUS)
        .change(|m| m.advise(MADV_DONTNEED_LOCKED)).real(CLEAR);
    madv_dontneed_of_thp: Row::of(TRANSPARENT_HUGE).change(dontneed).real(CLEAR);
    // Linux 6.1 says UNMAP wherever it unmaps huge pages from the pool, inside of CLEAR or without.
    madv_dontneed_of_hugetlb: Row::of(HUGETLB)
        .change(dontneed).real(CLEAR).kinds_before(6, 2, CLEAR | UNMAP);
    madv_remove: Row::of(SHARED).change(|m| m.advise(libc::MADV_REMOVE)).real(CLEAR);
    madv_guard_install: Row::of(ANONYMOUS).since(6, 13)
        .change(|m| m.advise(MADV_GUARD_INSTALL))
        .then(|m| m.advise(MADV_GUARD_REMOVE)).real(CLEAR);
    truncate_of_a_file: Row::of(SHARED).change(truncate).real(CLEAR);
    truncate_by_another_process: Row::of(SHARED).change(|m| in_child(|| truncate(m))).real(CLEAR);
    punch_hole_in_a_file: Row::of(SHARED).change(punch_hole).real(CLEAR);
    punch_hole_by_another_process: Row::of(SHARED)
        .change(|m| in_child(|| punch_hole(m))).real(CLEAR);
    truncate_of_hugetlb: Row::of(SHARED_HUGETLB)
        .change(truncate).real(CLEAR).kinds_before(6, 2, UNMAP);
    punch_hole_in_hugetlb: Row::of(SHARED_HUGETLB)
        .change(punch_hole).real(CLEAR).kinds_before(6, 2, UNMAP);
    // The page stays pinned, and the program has lost it.
    hwpoison: Row::of(|| Memory::anonymous(1)).with(throwaway)
        .change(|m| m.advise(libc::MADV_HWPOISON)).then(Memory::map_over).real(CLEAR);
}
