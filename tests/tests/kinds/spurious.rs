//! What leaves pinned pages where they are.

use std::fs;

use regcache::AddressRange;
use regcache_guest_tests::memory::{Memory, Sharer, in_child};
use regcache_guest_tests::truth::Row;
use regcache_guest_tests::{attempt, raw};
use ummunotify::Kinds;

use super::machine::{ksm, numa_balancing, swap, two_nodes};
use super::{
    ANONYMOUS, BLOCK, HUGETLB, MADV_COLLAPSE, MADV_SOFT_OFFLINE, SHARED, TRANSPARENT_HUGE, block,
};

const NONE: Kinds = Kinds::empty();
const CLEAR: Kinds = Kinds::CLEAR;
const PROTECTION_VMA: Kinds = Kinds::PROTECTION_VMA;
const PROTECTION_PAGE: Kinds = Kinds::PROTECTION_PAGE;

fn fork(_: &Memory) {
    in_child(|| ());
}

fn mprotect(range: AddressRange) {
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    for prot in [libc::PROT_READ, rw, libc::PROT_NONE, rw] {
        raw!(SYS_mprotect, range.start(), range.len(), prot);
    }
}

fn clear_refs(what: &str) {
    fs::write("/proc/self/clear_refs", what).expect("clear_refs");
}

/// The first pages of a block.
fn head(m: &Memory) -> AddressRange {
    m.pages(0, 4)
}

/// A page of the same block, and of another page table entry.
fn far(m: &Memory) -> AddressRange {
    m.pages(100, 1)
}

fn unmap(range: AddressRange) {
    raw!(SYS_munmap, range.start(), range.len());
}

fn touch_head(m: &Memory) {
    Memory::at(head(m).start(), head(m).len()).fill(3);
}

rows! {
    // The frame of a file's page stays in the file.
    madv_dontneed_of_shared: Row::of(SHARED)
        .change(|m| m.advise(libc::MADV_DONTNEED)).spurious(CLEAR);
    // Only as long as it is pinned: who is told of it cannot know that it will be written again.
    madv_free: Row::of(ANONYMOUS).change(|m| m.advise(libc::MADV_FREE)).spurious(CLEAR);
    madv_free_and_reclaim: Row::of(ANONYMOUS)
        .change(|m| {
            m.advise(libc::MADV_FREE);
            m.advise(libc::MADV_PAGEOUT);
        })
        .spurious(CLEAR);

    fork_of_anonymous: Row::of(ANONYMOUS).change(fork).spurious(PROTECTION_PAGE);
    fork_of_thp: Row::of(TRANSPARENT_HUGE)
        .change(fork).spurious(PROTECTION_PAGE | CLEAR).sparing(CLEAR)
        .with_huge_pages_only(CLEAR);
    fork_of_hugetlb: Row::of(HUGETLB).change(fork).spurious(CLEAR);
    fork_of_shared: Row::of(SHARED).change(fork).spurious(NONE);
    // No copy-on-write: the child got copies of the pinned pages.
    fork_and_write: Row::of(ANONYMOUS)
        .change(|m| {
            let _sharer = Sharer::fork();
            m.fill(2);
        })
        .spurious(PROTECTION_PAGE);
    fork_and_write_of_hugetlb: Row::of(HUGETLB)
        .change(|m| {
            let _sharer = Sharer::fork();
            m.fill(2);
        })
        .spurious(CLEAR);

    mprotect_of_anonymous: Row::of(ANONYMOUS)
        .change(|m| mprotect(m.range)).spurious(PROTECTION_VMA);
    mprotect_of_shared: Row::of(SHARED).change(|m| mprotect(m.range)).spurious(PROTECTION_VMA);
    mprotect_of_thp: Row::of(TRANSPARENT_HUGE)
        .change(|m| mprotect(m.range)).spurious(PROTECTION_VMA);
    mprotect_of_hugetlb: Row::of(HUGETLB).change(|m| mprotect(m.range)).spurious(PROTECTION_VMA);
    numa_scan: Row::of(ANONYMOUS).with(numa_balancing).until_seen().spurious(PROTECTION_VMA);
    clear_refs_of_soft_dirty_bits: Row::of(ANONYMOUS)
        .change(|_| clear_refs("4")).spurious(Kinds::SOFT_DIRTY);
    clear_refs_of_accessed_bits: Row::of(ANONYMOUS).change(|_| clear_refs("1")).spurious(NONE);

    ksm_scan: Row::of(ANONYMOUS)
        .with(ksm).change(|m| m.advise(libc::MADV_MERGEABLE)).until_seen().spurious(CLEAR);
    migrate_pages: Row::of(ANONYMOUS).with(two_nodes)
        .change(|_| {
            for (from, to) in [(1_u64, 2_u64), (2, 1)] {
                raw!(SYS_migrate_pages, 0, 64, &raw const from, &raw const to);
            }
        })
        .spurious(CLEAR);
    move_pages: Row::of(ANONYMOUS).with(two_nodes)
        .change(|m| {
            const MPOL_MF_MOVE: usize = 2;
            let pages: [usize; 4] = std::array::from_fn(|n| m.pages(n, 1).start());
            let mut status = [0_i32; 4];
            for node in [0_i32, 1] {
                let (pages, nodes) = (pages.as_ptr(), [node; 4]);
                let status = status.as_mut_ptr();
                raw!(SYS_move_pages, 0, 4, pages, nodes.as_ptr(), status, MPOL_MF_MOVE);
            }
        })
        .spurious(CLEAR);
    soft_offline: Row::of(ANONYMOUS)
        .change(|m| {
            let (start, len) = (m.range.start(), m.range.len());
            attempt!(SYS_madvise, start, len, MADV_SOFT_OFFLINE).expect_err("a pinned page");
        })
        .spurious(CLEAR);
    compaction: Row::of(ANONYMOUS)
        .change(|_| fs::write("/proc/sys/vm/compact_memory", "1").expect("compact_memory"))
        .spurious(NONE);
    madv_collapse: Row::of(BLOCK).watching(head)
        .change(|m| {
            m.advise(libc::MADV_HUGEPAGE);
            let (start, len) = (m.range.start(), m.range.len());
            attempt!(SYS_madvise, start, len, MADV_COLLAPSE).expect_err("a pinned page");
        })
        .spurious(NONE);

    reclaim_of_anonymous: Row::of(ANONYMOUS)
        .with(swap).change(|m| m.advise(libc::MADV_PAGEOUT)).spurious(NONE);
    reclaim_of_shared: Row::of(SHARED)
        .with(swap).change(|m| m.advise(libc::MADV_PAGEOUT)).spurious(CLEAR);

    split_by_munmap: Row::of(BLOCK)
        .watching(head).change(|m| unmap(far(m))).touching(touch_head).spurious(CLEAR).with_huge_pages_only(CLEAR);
    split_by_mprotect: Row::of(BLOCK)
        .watching(head).change(|m| mprotect(far(m))).spurious(CLEAR).with_huge_pages_only(CLEAR);
    split_by_madvise: Row::of(BLOCK)
        .watching(head)
        .change(|m| {
            raw!(SYS_madvise, far(m).start(), far(m).len(), libc::MADV_DONTFORK);
        })
        .spurious(CLEAR).with_huge_pages_only(CLEAR);
    split_of_thp: Row::of(TRANSPARENT_HUGE)
        .watching(head).change(|m| unmap(far(m))).touching(touch_head).spurious(CLEAR).with_huge_pages_only(CLEAR);
    split_of_shared: Row::of(|| Memory::shared(block()))
        .watching(head).change(|m| unmap(far(m))).touching(touch_head).spurious(CLEAR).with_huge_pages_only(CLEAR);
    // Not a whole block, so it never was a huge page.
    split_of_a_small_mapping: Row::of(|| Memory::anonymous(block() - 1))
        .watching(head).change(|m| unmap(far(m))).touching(touch_head).spurious(NONE);
    split_between_blocks: Row::of(|| Memory::anonymous(2 * block()))
        .watching(head).change(|m| unmap(m.pages(block(), block()))).touching(touch_head).spurious(NONE);
}
