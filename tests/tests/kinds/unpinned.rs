//! Copies that a pin would have forbidden, and those that the pin itself makes.

use std::fs;
use std::os::fd::AsRawFd;

use regcache_guest_tests::memory::Memory;
use regcache_guest_tests::raw;
use regcache_guest_tests::truth::Row;
use ummunotify::Kinds;

use super::machine::{huge_pages, probe_events, swap, two_nodes, uprobes};
use super::{ANONYMOUS, BLOCK, MADV_COLLAPSE};

const CLEAR: Kinds = Kinds::CLEAR;

rows! {
    copy_on_write: Row::of(ANONYMOUS).shared_with_a_child()
        .unpinned().change(|m| m.fill(2)).real(CLEAR);
    copy_on_write_by_the_pin: Row::of(ANONYMOUS).shared_with_a_child()
        .pinned_by_the_change().spurious(CLEAR);
    zero_page_replaced_by_the_pin: Row::of(|| {
        let memory = Memory::untouched(4);
        for n in 0..4 {
            // SAFETY: the page is mapped readable.
            unsafe { std::ptr::read_volatile(memory.pages(n, 1).start() as *const u8) };
        }
        memory
    })
    .pinned_by_the_change().spurious(CLEAR);

    // The same as where the memory is pinned, so that those rows are not for nothing.
    madv_collapse_of_unpinned: Row::of(BLOCK).unpinned().with(huge_pages)
        .change(|m| {
            m.advise(libc::MADV_HUGEPAGE);
            m.advise(MADV_COLLAPSE);
        })
        .real(CLEAR);
    migrate_pages_of_unpinned: Row::of(ANONYMOUS).unpinned().with(two_nodes)
        .change(|m| {
            const MPOL_MF_MOVE: usize = 2;
            let pages = [m.range.start()];
            let mut status = [-1_i32];
            raw!(SYS_move_pages, 0, 1, pages.as_ptr(), 0, status.as_mut_ptr(), 0);
            let node = [1 - status[0]];
            let (pages, status) = (pages.as_ptr(), status.as_mut_ptr());
            raw!(SYS_move_pages, 0, 1, pages, node.as_ptr(), status, MPOL_MF_MOVE);
        })
        .real(CLEAR);
    reclaim_of_unpinned: Row::of(ANONYMOUS).unpinned()
        .with(swap).change(|m| m.advise(libc::MADV_PAGEOUT)).undecided(CLEAR);

    // An io_uring pins no pages that cannot be written.
    uprobe: Row::of(Memory::code).unpinned().with(uprobes)
        .change(|m| {
            let (pid, fd) = (std::process::id(), m.file().as_raw_fd());
            let probe = format!("p:regcache/nop /proc/{pid}/fd/{fd}:0x0");
            probe_events(&probe).expect("a probe");
            fs::write("/sys/kernel/tracing/events/regcache/nop/enable", "1").expect("its event");
        })
        .touching(|_| ()).real(CLEAR);
}
